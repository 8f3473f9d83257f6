//! x86 guests on the board `pc`: every start state, the ways to report, several processors, snapshots. What the guests
//! must do is said by the processor's and the devices' manuals, in the assembly below.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod machine;
mod processors;

use std::path::Path;

use iced_x86::code_asm::*;
use machine::{Capture, PATIENCE, plain, run};
use mimic::loader::{self, Bits, Isa, LoadOptions};
use mimic::machine::Machine;
use mimic::machine::snapshot::Snapshot;
use mimic::machine::spec::{
    BoardKind, End, EngineKind, Limits, MachineSpec, Report, Resumption, VirtioBus,
};
use processors::count_together;

/// How code is started: flat at an address, or as the file that it is.
fn flat(addr: u64, bits: Bits) -> LoadOptions {
    LoadOptions { load_addr: Some(addr), bits: Some(bits) }
}

fn spec(file: &[u8], options: &LoadOptions, cpus: usize, deterministic: bool) -> MachineSpec {
    let image = loader::parse(file, options).unwrap();
    assert_eq!(image.isa, Isa::X86_64);
    MachineSpec {
        cpus,
        memory: 16 << 20,
        deterministic,
        cmdline: "words for the kernel".into(),
        pass_exit: Some(0x77),
        ..plain(image)
    }
}

fn asm(bitness: u32) -> CodeAssembler {
    CodeAssembler::new(bitness).unwrap()
}

/// Prints `text` by the serial port.
fn print(a: &mut CodeAssembler, text: &str) {
    a.mov(dx, 0x3f8).unwrap();
    for byte in text.bytes() {
        a.mov(al, u32::from(byte)).unwrap();
        a.out(dx, al).unwrap();
    }
}

/// Writes EAX to isa-debug-exit, and waits for the end.
fn exit(a: &mut CodeAssembler) {
    a.out(0xf4, eax).unwrap();
    a.cli().unwrap();
    a.hlt().unwrap();
}

#[test]
fn sixteen_bit_code_starts_in_real_mode() {
    let mut a = asm(16);
    print(&mut a, "real");
    // Segments are paragraphs: 0x100:0x10 is 0x1010.
    a.mov(ax, 0x100).unwrap();
    a.mov(ds, ax).unwrap();
    a.mov(word_ptr(0x10), 0x5a).unwrap();
    a.xor(ax, ax).unwrap();
    a.mov(ds, ax).unwrap();
    a.xor(eax, eax).unwrap();
    a.mov(ax, word_ptr(0x1010)).unwrap();
    exit(&mut a);
    let code = a.assemble(0x7c00).unwrap();
    let (report, text) = run(spec(&code, &flat(0x7c00, Bits::B16), 1, false));
    assert_eq!((report.end, text.as_str()), (End::Exit(0x5a), "real"));
}

/// The vectors, the timer and the variables that a BIOS leaves: IRQ 0 at vector 8 ends its interrupt itself, 18.2 times a
/// second, and a call of a service returns; 639 KiB of memory, then the BIOS's own, and where the serial ports are.
#[test]
fn real_mode_finds_what_a_bios_leaves() {
    let mut a = asm(16);
    a.mov(eax, 3).unwrap();
    a.int(0x11).unwrap();
    a.sti().unwrap();
    for _ in 0..3 {
        a.hlt().unwrap();
        a.add(eax, 0x10).unwrap();
    }
    for (at, value) in [(0x400, 0x3f8), (0x402, 0x2f8), (0x40e, 0x9fc0), (0x413, 639)] {
        let mut good = a.create_label();
        a.cmp(word_ptr(at), value).unwrap();
        a.je(good).unwrap();
        a.ud2().unwrap();
        a.set_label(&mut good).unwrap();
        a.nop().unwrap();
    }
    exit(&mut a);
    let code = a.assemble(0x7c00).unwrap();
    let (report, _) = run(spec(&code, &flat(0x7c00, Bits::B16), 1, true));
    assert_eq!(report.end, End::Exit(0x33));
}

/// A TSC deadline is a value of the processor's own counter (SDM vol. 3, 11.5.4.1), which software has moved.
#[test]
fn a_deadline_follows_a_moved_time_stamp_counter() {
    let mut a = asm(16);
    let write = |a: &mut CodeAssembler, msr: u32, high: u32, low: u32| {
        a.mov(ecx, msr).unwrap();
        a.mov(edx, high).unwrap();
        a.mov(eax, low).unwrap();
        a.wrmsr().unwrap();
    };
    a.mov(al, 0xff).unwrap();
    a.out(0x21, al).unwrap();
    // x2APIC mode; on; the timer by deadline, at vector 20h, whose handler is the BIOS's.
    write(&mut a, 0x1b, 0, 0xfee0_0d00);
    write(&mut a, 0x80f, 0, 0x1ff);
    write(&mut a, 0x832, 0, 0x4_0020);
    write(&mut a, 0x10, 0x100, 0);
    // In 1 ms.
    a.rdtsc().unwrap();
    a.add(eax, 1_000_000).unwrap();
    a.adc(edx, 0).unwrap();
    a.mov(esi, eax).unwrap();
    a.mov(edi, edx).unwrap();
    a.mov(ecx, 0x6e0).unwrap();
    a.wrmsr().unwrap();
    a.sti().unwrap();
    a.hlt().unwrap();
    // Not before, and less than 134 ms after.
    a.rdtsc().unwrap();
    a.sub(eax, esi).unwrap();
    a.sbb(edx, edi).unwrap();
    a.shr(eax, 27).unwrap();
    a.or(eax, edx).unwrap();
    a.add(eax, 0x44).unwrap();
    exit(&mut a);
    let code = a.assemble(0x7c00).unwrap();
    let (report, _) = run(spec(&code, &flat(0x7c00, Bits::B16), 1, true));
    assert_eq!(report.end, End::Exit(0x44));
}

#[test]
fn thirty_two_bit_code_starts_with_flat_segments() {
    let mut a = asm(32);
    print(&mut a, "flat");
    a.mov(dword_ptr(0x20_0000), 0x70).unwrap();
    a.mov(eax, dword_ptr(0x20_0000)).unwrap();
    a.add(eax, 7).unwrap();
    exit(&mut a);
    let code = a.assemble(0x10_0000).unwrap();
    let (report, text) = run(spec(&code, &flat(0x10_0000, Bits::B32), 1, false));
    assert_eq!((report.end, text.as_str()), (End::Pass, "flat"), "0x77 means pass");
}

#[test]
fn sixty_four_bit_code_starts_with_the_lowest_4_gib_mapped() {
    let mut a = asm(64);
    a.mov(r9, 0x1_0000_0001u64).unwrap();
    a.mov(rcx, 0x20_0000u64).unwrap();
    a.mov(qword_ptr(rcx), r9).unwrap();
    a.mov(rax, qword_ptr(rcx)).unwrap();
    a.shr(rax, 32).unwrap();
    // The local APIC's version register lies in the last of them.
    a.mov(ecx, 0xfee0_0030u32).unwrap();
    a.mov(ecx, dword_ptr(rcx)).unwrap();
    a.shl(ecx, 8).unwrap();
    a.or(eax, ecx).unwrap();
    a.and(eax, 0xffff).unwrap();
    exit(&mut a);
    let code = a.assemble(0x10_0000).unwrap();
    let (report, _) = run(spec(&code, &flat(0x10_0000, Bits::B64), 1, false));
    assert_eq!(report.end, End::Exit(0x1401));
}

#[test]
fn a_rom_starts_at_the_reset_vector_and_is_seen_below_1_mib() {
    let mut rom = vec![0xf4; 128 << 10];
    let mut a = asm(16);
    a.mov(al, 0x42).unwrap();
    a.mov(dx, 0x190).unwrap();
    a.out(dx, al).unwrap();
    // The first byte of the ROM by the alias: 0xe000:0.
    a.mov(ax, 0xe000).unwrap();
    a.mov(ds, ax).unwrap();
    a.mov(byte_ptr(0), 0).unwrap();
    a.xor(eax, eax).unwrap();
    a.mov(al, byte_ptr(0)).unwrap();
    exit(&mut a);
    let code = a.assemble(0x1000).unwrap();
    rom[0x1_1000..0x1_1000 + code.len()].copy_from_slice(&code);
    // JMP 0xf000:0x1000.
    let vector = (128 << 10) - 16;
    rom[vector..vector + 5].copy_from_slice(&[0xea, 0x00, 0x10, 0x00, 0xf0]);
    let (report, _) = run(spec(&rom, &LoadOptions::default(), 1, false));
    assert_eq!((report.end, report.post), (End::Exit(0xf4), Some(0x42)), "it cannot be written");
}

/// A flat multiboot kernel whose header lies behind its code.
fn kernel(code: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    const HEADER: usize = 32;
    let mut a = asm(32);
    code(&mut a);
    let code = a.assemble(0x10_0000 + HEADER as u64).unwrap();
    let (magic, flags, base) = (0x1bad_b002u32, 0x1_0000u32, 0x10_0000u32);
    let sum = magic.wrapping_add(flags).wrapping_neg();
    let mut file: Vec<u8> = [magic, flags, sum, base, base, 0, base + 0x10_0000, base + 32]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    file.extend(code);
    file
}

#[test]
fn a_multiboot_kernel_is_told_of_memory_and_its_command_line() {
    let file = kernel(|a| {
        // Multiboot Specification 3.2 and 3.3: EAX, and in the structure mem_upper at 8, cmdline at 16.
        let mut good = a.create_label();
        a.cmp(eax, 0x2bad_b002u32 as i32).unwrap();
        a.je(good).unwrap();
        a.ud2().unwrap();
        a.set_label(&mut good).unwrap();
        a.mov(esi, dword_ptr(ebx + 16)).unwrap();
        a.mov(dx, 0xe9).unwrap();
        let (mut next, mut done) = (a.create_label(), a.create_label());
        a.set_label(&mut next).unwrap();
        a.lodsb().unwrap();
        a.test(al, al).unwrap();
        a.je(done).unwrap();
        a.out(dx, al).unwrap();
        a.jmp(next).unwrap();
        a.set_label(&mut done).unwrap();
        a.mov(eax, dword_ptr(ebx + 8)).unwrap();
        exit(a);
    });
    let (report, text) = run(spec(&file, &LoadOptions::default(), 1, false));
    assert_eq!((report.end, text.trim()), (End::Exit(15 << 10), "words for the kernel"));
}

/// A kernel that reports what `others` processors count, each 10,000 times.
fn counting_kernel(others: u32) -> Vec<u8> {
    kernel(|a| {
        count_together(a, others, 10_000);
        exit(a);
    })
}

#[test]
fn processors_are_started_by_messages_and_count_together() {
    let file = counting_kernel(3);
    for deterministic in [false, true] {
        let (report, _) = run(spec(&file, &LoadOptions::default(), 4, deterministic));
        assert_eq!(report.end, End::Exit(30_000), "deterministic {deterministic}");
    }
}

#[test]
fn deterministic_runs_are_equal_after_a_save_and_a_load_too() {
    for (board, virtio) in [(BoardKind::Pc, VirtioBus::Pci), (BoardKind::Microvm, VirtioBus::Mmio)]
    {
        deterministic_runs_are_equal(board, virtio);
    }
}

fn deterministic_runs_are_equal(board: BoardKind, virtio: VirtioBus) {
    let file = counting_kernel(1);
    let deterministic = || {
        let spec = spec(&file, &LoadOptions::default(), 2, true);
        MachineSpec { board, virtio, ..spec }
    };
    let (first, _) = run(deterministic());
    let (second, _) = run(deterministic());
    assert!(first.state_hash.is_some() && first.state_hash == second.state_hash);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    for insns in [1, 700, 12_345] {
        let limits = Limits { insns: Some(insns), ..PATIENCE };
        let mut machine =
            Machine::new(MachineSpec { limits, ..deterministic() }, Capture::default().io())
                .unwrap();
        machine.save_at_limit(path.clone());
        assert_eq!(machine.run().end, End::InsnLimit);
        let resumed = resume(&path);
        assert_eq!(resumed.end, End::Exit(10_000));
        assert_eq!(resumed.state_hash, first.state_hash, "saved after {insns} instructions");
    }
}

fn resume(path: &Path) -> Report {
    let how = Resumption { engine: EngineKind::Interp.into(), limits: PATIENCE, disks: Vec::new() };
    let snapshot = Snapshot::open(path).unwrap();
    let mut machine = Machine::resume(snapshot, &how, Capture::default().io()).unwrap();
    machine.hash_at_end();
    machine.run()
}

#[test]
fn the_translator_is_refused_and_a_triple_fault_is_explained() {
    let mut a = asm(32);
    a.ud2().unwrap();
    let code = a.assemble(0x10_0000).unwrap();
    let options = flat(0x10_0000, Bits::B32);
    let jit = MachineSpec { engine: EngineKind::Jit.into(), ..spec(&code, &options, 1, false) };
    let error = Machine::new(jit, Capture::default().io()).err().unwrap().to_string();
    assert!(error.contains("--engine interp"), "{error}");
    let (report, _) = run(spec(&code, &options, 1, false));
    assert!(
        matches!(&report.end, End::Died(why) if why.contains("triple fault")),
        "{:?}",
        report.end
    );
}

/// The processor begins at F000:FFF0 after a reset, and so do systems that want one (IBM, *Personal Computer AT Technical
/// Reference*); Linux does where hardware-reduced ACPI makes it expect UEFI in vain.
#[test]
fn a_jump_to_the_reset_vector_resets() {
    // JMP F000:FFF0.
    let code = [0xea, 0xf0, 0xff, 0x00, 0xf0];
    for (board, virtio) in [(BoardKind::Pc, VirtioBus::Pci), (BoardKind::Microvm, VirtioBus::Mmio)]
    {
        let spec = spec(&code, &flat(0x7c00, Bits::B16), 1, false);
        assert_eq!(run(MachineSpec { board, virtio, ..spec }).0.end, End::Reset, "{board:?}");
    }
}

/// ACPI specification 4.8.3.6 and 4.8.3.7: the registers that the FADT of `microvm` names, and their values there.
#[test]
fn the_microvm_is_reset_and_switched_off_by_its_registers() {
    let run = |register: u64, value: u32| {
        let mut a = asm(32);
        a.mov(byte_ptr(register), value).unwrap();
        a.cli().unwrap();
        a.hlt().unwrap();
        let code = a.assemble(0x10_0000).unwrap();
        let spec = spec(&code, &flat(0x10_0000, Bits::B32), 1, false);
        run(MachineSpec { board: BoardKind::Microvm, virtio: VirtioBus::Mmio, ..spec }).0.end
    };
    assert_eq!(run(0xfea0_0200, 1 << 5 | 5 << 2), End::PowerOff);
    assert_eq!(run(0xfea0_0202, 0x42), End::Reset);
    assert_eq!(run(0xfea0_0202, 6), End::Halted);
}

#[test]
fn a_machine_that_nothing_wakes_ends_and_tells_its_last_post_code() {
    let mut a = asm(16);
    a.mov(al, 0x3a).unwrap();
    a.out(0x80, al).unwrap();
    a.cli().unwrap();
    a.hlt().unwrap();
    let code = a.assemble(0x7c00).unwrap();
    for (cpus, deterministic) in [(1, false), (1, true), (3, false), (3, true)] {
        let (report, _) = run(spec(&code, &flat(0x7c00, Bits::B16), cpus, deterministic));
        assert_eq!((report.end, report.post), (End::Halted, Some(0x3a)), "{cpus} processors");
    }
}

#[test]
fn a_halt_with_interrupts_off_goes_on_where_a_device_raises_nmi() {
    // SDM vol. 3, 11.5.1: LINT0, where the PIC is, delivers NMI; its handler's address is that of vector 2.
    let mut a = asm(16);
    a.xor(ax, ax).unwrap();
    a.mov(ds, ax).unwrap();
    a.mov(word_ptr(8), 0x7c80).unwrap();
    a.mov(word_ptr(10), 0).unwrap();
    // The APIC's registers by unreal mode's way: no segment reaches them, so 32-bit protected mode sets the limit.
    a.lgdt(fword_ptr(0x7d00)).unwrap();
    a.mov(eax, cr0).unwrap();
    a.or(al, 1).unwrap();
    a.mov(cr0, eax).unwrap();
    a.mov(bx, 8).unwrap();
    a.mov(ds, bx).unwrap();
    a.and(al, 0xfe).unwrap();
    a.mov(cr0, eax).unwrap();
    a.mov(ebx, 0xfee0_0350u32).unwrap();
    a.mov(dword_ptr(ebx), 0x400).unwrap();
    // IRQ 0, whose rising edges come from counter 0 (mode 2, 1193 of 1193182 Hz).
    for (port, value) in [(0x43u32, 0x34u32), (0x40, 0xa9), (0x40, 4), (0x21, 0xfe)] {
        a.mov(al, value).unwrap();
        a.out(port as i32, al).unwrap();
    }
    a.cli().unwrap();
    a.hlt().unwrap();
    let mut code = a.assemble(0x7c00).unwrap();
    assert!(code.len() <= 0x80);
    code.resize(0x80, 0xf4);
    let mut handler = asm(16);
    handler.mov(eax, 0x33).unwrap();
    exit(&mut handler);
    code.extend(handler.assemble(0x7c80).unwrap());
    code.resize(0x100, 0);
    code.extend([0x0f, 0, 0x08, 0x7d, 0, 0, 0, 0]);
    code.extend([0; 8]);
    code.extend(0x00cf_9300_0000_ffff_u64.to_le_bytes());
    for deterministic in [false, true] {
        let (report, _) = run(spec(&code, &flat(0x7c00, Bits::B16), 1, deterministic));
        assert_eq!(report.end, End::Exit(0x33), "deterministic {deterministic}");
    }
}
