//! x86 machines that repeat themselves, and that are saved at any point and go on: with interrupts pending, in interrupt
//! shadows, single steps and repeated strings, with x87 and AVX in use, in nested tasks.
//!
//! The manuals say nothing of saving: a machine that was saved must end as one that was not.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod machine;

use std::path::Path;
use std::time::Duration;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{Capture, PATIENCE, plain};
use mimic::loader::{self, Bits, LoadOptions};
use mimic::machine::Machine;
use mimic::machine::snapshot::Snapshot;
use mimic::machine::spec::{End, EngineKind, Limits, MachineSpec, Report, Resumption};

fn spec(file: &[u8], options: &LoadOptions, cpus: usize, deterministic: bool) -> MachineSpec {
    MachineSpec {
        cpus,
        memory: 32 << 20,
        deterministic,
        pass_exit: Some(0),
        ..plain(loader::parse(file, options).unwrap())
    }
}

fn finish(mut machine: Machine) -> Report {
    machine.hash_at_end();
    machine.run()
}

/// Runs up to a limit.
fn run(spec: MachineSpec, limits: Limits) -> Report {
    finish(Machine::new(MachineSpec { limits, ..spec }, Capture::default().io()).unwrap())
}

/// Runs up to a limit, and saves the machine.
fn save(spec: MachineSpec, limits: Limits, path: &Path) -> End {
    let mut machine =
        Machine::new(MachineSpec { limits, ..spec }, Capture::default().io()).unwrap();
    machine.save_at_limit(path.to_owned());
    machine.run().end
}

fn resume(path: &Path, limits: Limits) -> Report {
    let how = Resumption { engine: EngineKind::Interp.into(), limits, disks: Vec::new() };
    finish(Machine::resume(Snapshot::open(path).unwrap(), &how, Capture::default().io()).unwrap())
}

fn insns(insns: u64) -> Limits {
    Limits { insns: Some(insns), ..PATIENCE }
}

const FLAT: LoadOptions = LoadOptions { load_addr: Some(CODE), bits: Some(Bits::B32) };
const CODE: u64 = 0x10_0000;
const GDT: u32 = 0x20_0000;
const IDT: u32 = 0x20_1000;
/// Task state segments of the first task and of another one.
const TASKS: [u32; 2] = [0x20_2000, 0x20_3000];
const STACKS: u32 = 0x21_0000;
const STRINGS: u32 = 0x22_0000;
const TICKS: u32 = 0x20_4000;

/// SDM vol. 3, 3.4.5: a present system descriptor of a TSS.
fn tss_descriptor(base: u32) -> [u32; 2] {
    [base << 16 | 103, base & 0xff00_0000 | 0x8900 | base >> 16 & 0xff]
}

/// A guest that does a little of everything, over and over. Timer interrupts arrive every 12 microseconds.
fn everything() -> Vec<u8> {
    let assemble = || -> Result<Vec<u8>, IcedError> {
        let mut a = CodeAssembler::new(32)?;
        a.mov(esp, STACKS)?;
        tables(&mut a)?;
        timer(&mut a)?;
        // x87 and AVX (CR4.OSFXSR, OSXSAVE).
        a.mov(eax, 0x4_0200)?;
        a.mov(cr4, eax)?;
        a.mov(eax, 7)?;
        a.xor(edx, edx)?;
        a.xor(ecx, ecx)?;
        a.xsetbv()?;
        a.fninit()?;
        a.fldpi()?;
        a.fld1()?;
        a.vpcmpeqd(ymm1, ymm1, ymm1)?;
        let mut again = a.create_label();
        a.sti()?;
        a.set_label(&mut again)?;
        // Strings across pages, up and down.
        a.mov(esi, STRINGS + 0xf83)?;
        a.mov(edi, STRINGS + 0x2ffe)?;
        a.mov(ecx, 3000)?;
        a.rep().movsb()?;
        a.std()?;
        a.mov(ecx, 500)?;
        a.mov(edi, STRINGS + 0x17f4)?;
        a.rep().stosd()?;
        a.cld()?;
        a.fadd_2(st0, st1)?;
        a.fsqrt()?;
        a.fst(dword_ptr(STRINGS + 0x1000))?;
        a.vpaddd(ymm2, ymm2, ymm1)?;
        a.vpxor(ymm3, ymm2, ymm1)?;
        a.vmovdqu(ymmword_ptr(STRINGS + 0x2010), ymm3)?;
        // Interrupt shadows.
        a.cli()?;
        a.inc(eax)?;
        a.sti()?;
        a.inc(eax)?;
        a.mov(edx, ss)?;
        a.mov(ss, edx)?;
        a.inc(eax)?;
        // A single step.
        a.pushfd()?;
        a.or(dword_ptr(esp), 0x100)?;
        a.popfd()?;
        a.inc(eax)?;
        a.inc(eax)?;
        // CALL 0x20:0: the other task. The switch has set CR0.TS.
        a.db(&[0x9a, 0, 0, 0, 0, 0x20, 0])?;
        a.clts()?;
        a.hlt()?;
        a.jmp(again)?;
        let mut bytes = a.assemble(CODE)?;
        for (at, code) in [(TICK, tick()?), (STEP, step()?), (TASK, task()?)] {
            assert!(bytes.len() as u64 <= u64::from(at) - CODE);
            bytes.resize(at as usize - CODE as usize, 0xcc);
            bytes.extend(code);
        }
        Ok(bytes)
    };
    assemble().unwrap()
}

/// Where handlers and the other task lie.
const TICK: u32 = 0x10_1000;
const STEP: u32 = 0x10_1100;
const TASK: u32 = 0x10_1200;

fn tick() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    a.push(eax)?;
    a.inc(dword_ptr(TICKS))?;
    a.mov(al, 0x20)?;
    a.out(0x20, al)?;
    a.pop(eax)?;
    a.iretd()?;
    a.assemble(TICK.into())
}

/// The trap flag's interrupt: clears the flag.
fn step() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    a.and(dword_ptr(esp + 8), !0x100)?;
    a.iretd()?;
    a.assemble(STEP.into())
}

/// The other task: counts in its own registers, and returns.
fn task() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    a.inc(ebx)?;
    a.iretd()?;
    a.jmp(again)?;
    a.assemble(TASK.into())
}

/// Descriptors, gates and the other task.
fn tables(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let [[a0, a1], [b0, b1]] = TASKS.map(tss_descriptor);
    let words = [0, 0, 0xffff, 0x00cf_9b00, 0xffff, 0x00cf_9300, a0, a1, b0, b1];
    for (at, word) in (GDT..).step_by(4).zip(words) {
        a.mov(dword_ptr(at), word)?;
    }
    for (base, register) in [(GDT, 0), (IDT, 8)] {
        a.mov(word_ptr(TICKS + 0x10 + register), 0x3ff)?;
        a.mov(dword_ptr(TICKS + 0x12 + register), base)?;
    }
    a.lgdt(ptr(TICKS + 0x10))?;
    a.lidt(ptr(TICKS + 0x18))?;
    // A far return to what follows, five bytes behind the call's: loads CS.
    let mut next = a.create_label();
    a.push(8)?;
    a.call(next)?;
    a.set_label(&mut next)?;
    a.add(dword_ptr(esp), 5)?;
    a.retf()?;
    a.mov(eax, 16)?;
    for segment in [ss, ds, es, fs, gs] {
        a.mov(segment, eax)?;
    }
    for (vector, handler) in [(0x20, TICK), (1, STEP)] {
        a.mov(dword_ptr(IDT + 8 * vector), 8 << 16 | handler & 0xffff)?;
        a.mov(dword_ptr(IDT + 8 * vector + 4), handler & 0xffff_0000 | 0x8e00)?;
    }
    // EIP, EFLAGS, ESP and the selectors of the other task (SDM vol. 3, 8.2.1).
    a.mov(dword_ptr(TASKS[1] + 0x20), TASK)?;
    a.mov(dword_ptr(TASKS[1] + 0x24), 0x202)?;
    a.mov(dword_ptr(TASKS[1] + 0x38), STACKS + 0x1000)?;
    for (offset, selector) in
        [(0x48, 16), (0x4c, 8), (0x50, 16), (0x54, 16), (0x58, 16), (0x5c, 16)]
    {
        a.mov(dword_ptr(TASKS[1] + offset), selector)?;
    }
    a.mov(eax, 0x18)?;
    a.ltr(ax)
}

/// IRQ 0 every 14 ticks of the PIT (1,193,182 Hz), at vector 0x20.
fn timer(a: &mut CodeAssembler) -> Result<(), IcedError> {
    for (port, value) in [
        (0x20u32, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xfe),
        (0x43, 0x34),
        (0x40, 14),
        (0x40, 0),
    ] {
        a.mov(al, value)?;
        a.out(port, al)?;
    }
    Ok(())
}

/// Every point of some 150, which are more than a turn of the guest's loop, saved and resumed; and it really does what
/// it is said to.
#[test]
fn a_machine_can_be_saved_after_any_instruction() {
    const FIRST: u64 = 20_000;
    const END: u64 = FIRST + 3_000;
    let file = everything();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let expected = run(spec(&file, &FLAT, 1, true), insns(END));
    assert_eq!(expected.end, End::InsnLimit, "the guest never ends");
    for at in FIRST..FIRST + 150 {
        assert_eq!(save(spec(&file, &FLAT, 1, true), insns(at), &path), End::InsnLimit);
        let resumed = resume(&path, insns(END - at));
        assert_eq!(resumed.state_hash, expected.state_hash, "saved after {at} instructions");
    }
}

/// On several processors, at points all over the guest's life.
#[test]
fn several_processors_can_be_saved_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    for name in
        ["x86/stress-ipi-2", "x86/stress-ipi-4", "x86/stress-shootdown-4", "x86/stress-locks-4"]
    {
        const END: u64 = 300_000;
        let rom = mimic_test_roms::find(name).unwrap();
        let file = rom.build();
        let make = || spec(&file, &LoadOptions::default(), rom.harts as usize, true);
        let expected = run(make(), insns(END));
        for part in 1..12 {
            let at = part * END / 12 + part;
            assert_eq!(save(make(), insns(at), &path), End::InsnLimit, "{name}");
            let resumed = resume(&path, insns(END - at));
            assert_eq!(resumed.state_hash, expected.state_hash, "{name} after {at} instructions");
        }
    }
}

/// What several processors do depends on nothing but the guest, on a busy host, too.
#[test]
fn deterministic_runs_of_stress_guests_are_equal() {
    for name in ["x86/stress-lock-4", "x86/stress-tear-2", "x86/stress-code-4", "x86/stress-ipi-4"]
    {
        let rom = mimic_test_roms::find(name).unwrap();
        let file = rom.build();
        let one = || {
            run(spec(&file, &LoadOptions::default(), rom.harts as usize, true), insns(2_000_000))
        };
        let first = one();
        // Two at the same time are load for each other.
        let others = std::thread::scope(|scope| {
            [scope.spawn(one), scope.spawn(one)].map(|thread| thread.join().unwrap())
        });
        for other in others {
            assert_eq!(
                (other.end, other.state_hash),
                (first.end.clone(), first.state_hash),
                "{name}"
            );
        }
    }
}

/// Fills 16 MiB less some pages with a byte, adds the bytes up, and reports the sum's low 31 bits.
fn filling() -> Vec<u8> {
    let assemble = || -> Result<Vec<u8>, IcedError> {
        let mut a = CodeAssembler::new(32)?;
        let mut add = a.create_label();
        a.mov(edi, 0x20_0000)?;
        a.mov(ecx, LENGTH)?;
        a.mov(al, 3)?;
        // Down from the end, byte by byte.
        a.add(edi, LENGTH as i32 - 1)?;
        a.std()?;
        a.rep().stosb()?;
        a.cld()?;
        a.mov(esi, 0x20_0000)?;
        a.mov(ecx, LENGTH)?;
        a.xor(ebx, ebx)?;
        a.xor(eax, eax)?;
        a.set_label(&mut add)?;
        a.lodsb()?;
        a.add(ebx, eax)?;
        a.dec(ecx)?;
        a.jne(add)?;
        a.mov(eax, ebx)?;
        a.out(0xf4, eax)?;
        a.hlt()?;
        a.assemble(CODE)
    };
    assemble().unwrap()
}

const LENGTH: u32 = 16 << 20;

/// A repeated string is one instruction, but not for who stops the machine in real time.
#[test]
fn a_machine_can_be_saved_inside_a_repeated_string() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let file = filling();
    let mut inside = 0;
    for milliseconds in [1, 2, 4, 8, 16, 32, 64] {
        let machine = Machine::new(spec(&file, &FLAT, 1, false), Capture::default().io()).unwrap();
        let handle = machine.handle();
        let guest = std::thread::spawn(move || machine.run().end);
        std::thread::sleep(Duration::from_millis(milliseconds));
        let saved = handle.save(&path);
        handle.quit();
        guest.join().unwrap();
        if saved.is_err() {
            // It had ended already.
            break;
        }
        // STD is the fifth and last one before the string.
        let retired = Snapshot::open(&path).unwrap().state().harts[0].retired();
        inside += u32::from(retired == 5);
        let resumed = resume(&path, PATIENCE);
        assert_eq!(resumed.end, End::Exit(3 * LENGTH), "saved after {milliseconds} ms");
    }
    assert!(inside > 0, "the machine was never stopped there");
}
