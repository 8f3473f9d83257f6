//! The code that all blocks share: entry, exits, calls out.
#![allow(clippy::useless_conversion)] // In what `dynasm!` expands to.

use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm};

use super::abi::{
    ADDEND, Calls, ENGINE, EXIT_ATTEND, EXIT_BUDGET, EXIT_LINK, EXIT_LOOKUP, LEAVE, MXCSR,
    MXCSR_HOST, NEXT_PC, READ_TAG, RESUME, SPILLS, TLB, TLB_MASK, WRITE_TAG,
};
use super::fp::{CONSTANTS, FFLAGS};
use super::homes::{GPRS, VOLATILE_GPRS, XMMS};
use crate::ir::Slot;
use mimic_cpu::bus::PAGE_SIZE;
use mimic_cpu::tlb::TLB_SHIFT;

/// Stack below the six saved registers and the return address: room for spilled values, and 16-aligned.
const ROOM: i32 = 8 * SPILLS as i32 + 8;
/// Stack of a thunk that was called: room for XMM0-3 and two words, and 16-aligned again.
const THUNK_ROOM: i32 = 56;
/// The two words.
const KEPT_VA: i32 = 32;
const KEPT_SITE: i32 = 40;

/// Addresses of the shared code.
#[derive(Clone, Copy, Debug)]
pub struct Thunks {
    /// `extern "sysv64" fn(regs: *mut u64, code: *const u8) -> u64`: runs translated code until it is left;
    /// [`Exit::decode`](super::Exit::decode) reads the result. `regs` is the address of the frame's registers.
    pub enter: usize,
    /// Where a call out sends code that must be left ([`Frame::leave`](mimic_cpu::frame::Frame::leave)): the frame
    /// is complete.
    pub left: usize,
    /// Where a call out sends code that goes on elsewhere, at [`Frame::resume`](mimic_cpu::frame::Frame::resume): the
    /// frame is complete.
    pub resume: usize,
    /// Leaves: the link number is in EAX.
    pub(super) link: usize,
    /// Leaves: the virtual address, which the jump cache does not know, is in RAX.
    pub(super) lookup: usize,
    /// Leaves: the block's offset is in EAX.
    pub(super) budget: usize,
    /// Leaves for an interrupt: the next instruction's offset from the page is in EAX.
    pub(super) attend: usize,
    /// Called: va in RAX, site in ECX; value in RAX. Keeps XMM0-3.
    pub(super) load: usize,
    /// Called: va in RAX, site in ECX, value in RDX. Keeps XMM0-3.
    pub(super) store: usize,
    /// As `load`, with a `GroupCheck` in the upper half of RCX. Afterwards, if the TLB allows loads in the group's
    /// one page, RCX is its addend and the zero flag is set.
    pub(super) lead_load: usize,
    /// The same if stores are allowed.
    pub(super) lead_load_for_write: usize,
    /// As `store`, with the same check for stores.
    pub(super) lead_store: usize,
    /// Called: va in RAX, `AtomicSite` in RCX, value in RDX; result in RAX. Keeps XMM0-3.
    pub(super) atomic: usize,
    /// Called: index in EAX, site in ECX. Keeps nothing but the spilled values.
    pub(super) perform: usize,
    /// Address of [`fp::CONSTANTS`](super::fp::CONSTANTS).
    pub(super) constants: usize,
}

type Asm = VecAssembler<X64Relocation>;

fn offset(slot: Slot) -> i32 {
    8 * i32::from(slot)
}

fn save_gprs(ops: &mut Asm, homes: &[(Slot, u8)]) {
    for &(slot, reg) in homes {
        dynasm!(ops; .arch x64; mov [rbp + offset(slot)], Rq(reg));
    }
}

fn load_gprs(ops: &mut Asm, homes: &[(Slot, u8)]) {
    for &(slot, reg) in homes {
        dynasm!(ops; .arch x64; mov Rq(reg), [rbp + offset(slot)]);
    }
}

fn save_xmms(ops: &mut Asm, fp: bool) {
    for (slot, reg) in XMMS.into_iter().filter(|_| fp) {
        dynasm!(ops; .arch x64; movq [rbp + offset(slot)], Rx(reg));
    }
}

fn load_xmms(ops: &mut Asm, fp: bool) {
    for (slot, reg) in XMMS.into_iter().filter(|_| fp) {
        dynasm!(ops; .arch x64; movq Rx(reg), [rbp + offset(slot)]);
    }
}

/// Calls a function of the host. It runs with the guest's MXCSR, which differs from its own only in flags that nobody
/// looks at.
fn call_host(ops: &mut Asm, function: usize, fp: bool) {
    if fp {
        dynasm!(ops; .arch x64; stmxcsr [rbp + MXCSR]);
    }
    dynasm!(ops; .arch x64
        ; mov rdi, [rbp + ENGINE]
        ; mov rax, QWORD function as i64
        ; call rax
    );
    if fp {
        load_mxcsr(ops);
    }
}

/// Loads the guest's MXCSR. That is slow, and seldom has an effect. Changes RCX.
fn load_mxcsr(ops: &mut Asm) {
    dynasm!(ops; .arch x64
        ; stmxcsr [rbp + MXCSR_HOST]
        ; mov ecx, [rbp + MXCSR]
        ; cmp ecx, [rbp + MXCSR_HOST]
        ; je >same
        ; ldmxcsr [rbp + MXCSR]
        ; same:
    );
}

/// A thunk for a memory access: keeps all but the scratch registers. That of a leader checks its group by a tag.
fn access(ops: &mut Asm, fp: bool, function: usize, stores: bool, lead: Option<i32>) -> usize {
    let entry = ops.offset().0;
    let kept = if fp { 0..4 } else { 0..0 };
    dynasm!(ops; .arch x64; sub rsp, THUNK_ROOM);
    if lead.is_some() {
        dynasm!(ops; .arch x64
            ; mov [rsp + KEPT_VA], rax
            ; mov [rsp + KEPT_SITE], rcx
        );
    }
    // All of them: to leave, the engine may need the frame complete.
    save_gprs(ops, &GPRS);
    save_xmms(ops, fp);
    for reg in kept.clone() {
        dynasm!(ops; .arch x64; movq [rsp + 8 * i32::from(reg)], Rx(reg));
    }
    dynasm!(ops; .arch x64; mov rsi, rax);
    if stores {
        dynasm!(ops; .arch x64; xchg rcx, rdx);
    } else {
        dynasm!(ops; .arch x64; mov edx, ecx);
    }
    call_host(ops, function, fp);
    dynasm!(ops; .arch x64
        ; cmp QWORD [rbp + LEAVE], 0
        ; jne >leave
    );
    load_gprs(ops, &GPRS[..VOLATILE_GPRS]);
    load_xmms(ops, fp);
    for reg in kept {
        dynasm!(ops; .arch x64; movq Rx(reg), [rsp + 8 * i32::from(reg)]);
    }
    if let Some(tag) = lead {
        // RDX: the group's first byte, RCX: its last.
        dynasm!(ops; .arch x64
            ; mov rdx, [rsp + KEPT_VA]
            ; mov ecx, [rsp + KEPT_SITE + 4]
            ; mov [rsp + KEPT_VA], rax
            ; movzx eax, cx
            ; sub rdx, rax
            ; shr ecx, 16
            ; add rcx, rdx
            ; shr rdx, TLB_SHIFT as i8
            ; and edx, [rbp + TLB_MASK]
            ; add rdx, [rbp + TLB]
            ; and rcx, -(PAGE_SIZE as i32)
            ; cmp rcx, [rdx + tag]
            ; mov rcx, [rdx + ADDEND]
            ; mov rax, [rsp + KEPT_VA]
        );
    }
    // Keeps the flags.
    dynasm!(ops; .arch x64
        ; lea rsp, [rsp + THUNK_ROOM]
        ; ret
        ; leave:
        ; add rsp, THUNK_ROOM + 8
        ; jmp QWORD [rbp + LEAVE]
    );
    entry
}

impl Thunks {
    /// Makes the shared code of blocks with floating point, or of those without, for the address `at`. It must lie
    /// within 2 GiB of all blocks that use it.
    #[must_use]
    pub fn emit(at: usize, calls: &Calls, fp: bool) -> (Thunks, Vec<u8>) {
        let mut ops = Asm::new(at);
        let ops = &mut ops;
        let enter = ops.offset().0;
        dynasm!(ops; .arch x64
            ; push rbp
            ; push rbx
            ; push r12
            ; push r13
            ; push r14
            ; push r15
            ; sub rsp, ROOM
            ; mov rbp, rdi
            ; mov rax, rsi
        );
        if fp {
            load_mxcsr(ops);
        }
        load_gprs(ops, &GPRS);
        load_xmms(ops, fp);
        dynasm!(ops; .arch x64; jmp rax);

        let resume = ops.offset().0;
        dynasm!(ops; .arch x64; mov QWORD [rbp + LEAVE], 0);
        if fp {
            load_mxcsr(ops);
        }
        load_gprs(ops, &GPRS);
        load_xmms(ops, fp);
        dynasm!(ops; .arch x64; jmp QWORD [rbp + RESUME]);

        let lookup = ops.offset().0;
        dynasm!(ops; .arch x64
            ; mov [rbp + NEXT_PC], rax
            ; xor eax, eax
            ; mov ecx, EXIT_LOOKUP as i32
            ; jmp >exit
        );
        let budget = ops.offset().0;
        dynasm!(ops; .arch x64
            ; mov ecx, EXIT_BUDGET as i32
            ; jmp >exit
        );
        let attend = ops.offset().0;
        dynasm!(ops; .arch x64
            ; mov ecx, EXIT_ATTEND as i32
            ; jmp >exit
        );
        let link = ops.offset().0;
        dynasm!(ops; .arch x64
            ; mov ecx, EXIT_LINK as i32
            ; exit:
            ; shl rcx, 32
            ; or rax, rcx
        );
        save_gprs(ops, &GPRS);
        save_xmms(ops, fp);
        if fp {
            dynasm!(ops; .arch x64; stmxcsr [rbp + MXCSR]);
        }
        dynasm!(ops; .arch x64; jmp >saved);
        let left = ops.offset().0;
        dynasm!(ops; .arch x64
            ; xor eax, eax
            ; saved:
            ; add rsp, ROOM
            ; pop r15
            ; pop r14
            ; pop r13
            ; pop r12
            ; pop rbx
            ; pop rbp
            ; ret
        );

        let load = access(ops, fp, calls.load, false, None);
        let store = access(ops, fp, calls.store, true, None);
        let lead_load = access(ops, fp, calls.load, false, Some(READ_TAG));
        let lead_load_for_write = access(ops, fp, calls.load, false, Some(WRITE_TAG));
        let lead_store = access(ops, fp, calls.store, true, Some(WRITE_TAG));

        let atomic = access(ops, fp, calls.atomic, true, None);

        let perform = ops.offset().0;
        dynasm!(ops; .arch x64; sub rsp, 8);
        save_gprs(ops, &GPRS);
        save_xmms(ops, fp);
        dynasm!(ops; .arch x64
            ; mov esi, eax
            ; mov edx, ecx
        );
        call_host(ops, calls.perform, fp);
        dynasm!(ops; .arch x64
            ; cmp QWORD [rbp + LEAVE], 0
            ; jne >leave
        );
        load_gprs(ops, &GPRS);
        load_xmms(ops, fp);
        dynasm!(ops; .arch x64
            ; add rsp, 8
            ; ret
            ; leave:
            ; add rsp, 16
            ; jmp QWORD [rbp + LEAVE]
        );
        let mut code = ops.take().expect("all labels are bound, all jumps are in reach");
        code.resize(code.len().next_multiple_of(16), 0);
        let constants = code.len();
        code.extend(CONSTANTS.iter().flat_map(|bits| u128::from(*bits).to_le_bytes()));
        code.extend(FFLAGS);
        let thunks = Thunks {
            enter: at + enter,
            left: at + left,
            resume: at + resume,
            link: at + link,
            lookup: at + lookup,
            budget: at + budget,
            attend: at + attend,
            load: at + load,
            store: at + store,
            lead_load: at + lead_load,
            lead_load_for_write: at + lead_load_for_write,
            lead_store: at + lead_store,
            atomic: at + atomic,
            perform: at + perform,
            constants: at + constants,
        };
        (thunks, code)
    }
}
