//! Code of x86 guests that start their other processors.

use iced_x86::code_asm::*;

/// 32-bit code that wakes all other processors by INIT and start-up messages (SDM vol. 3, 10.4.4). In real mode each adds
/// `rounds` times to a counter, with LOCK; the first one waits for `others` of them and leaves the counter in EAX.
pub(crate) fn count_together(a: &mut CodeAssembler, others: u32, rounds: u32) {
    // Real-mode code for page 8: count, then wait for good.
    let mut other = CodeAssembler::new(16).unwrap();
    let (mut next, mut halt) = (other.create_label(), other.create_label());
    other.xor(ax, ax).unwrap();
    other.mov(ds, ax).unwrap();
    other.mov(ecx, rounds).unwrap();
    other.set_label(&mut next).unwrap();
    other.lock().inc(dword_ptr(0x9000)).unwrap();
    other.dec(ecx).unwrap();
    other.jne(next).unwrap();
    other.lock().inc(dword_ptr(0x9010)).unwrap();
    other.set_label(&mut halt).unwrap();
    other.cli().unwrap();
    other.hlt().unwrap();
    other.jmp(halt).unwrap();
    for (at, byte) in other.assemble(0).unwrap().iter().enumerate() {
        a.mov(byte_ptr(0x8000 + at as u64), u32::from(*byte)).unwrap();
    }
    a.mov(dword_ptr(0x9000), 0).unwrap();
    a.mov(dword_ptr(0x9010), 0).unwrap();
    a.mov(dword_ptr(0xfee0_0300u64), 0xc_4500).unwrap();
    a.mov(dword_ptr(0xfee0_0300u64), 0xc_4608).unwrap();
    let mut wait = a.create_label();
    a.set_label(&mut wait).unwrap();
    a.pause().unwrap();
    a.cmp(dword_ptr(0x9010), others as i32).unwrap();
    a.jne(wait).unwrap();
    a.mov(eax, dword_ptr(0x9000)).unwrap();
}
