//! Suspend to RAM on the board `pc`: ACPI specification 6.5, sections 4.8.3 (PM1 registers), 5.2.10 (waking vectors of
//! the FACS) and 16.3.2 (waking).

#[allow(dead_code, reason = "each test program uses a part of it")]
mod machine;

use std::time::Duration;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{Capture, PATIENCE, plain, run};
use mimic::loader::{self, Bits, LoadOptions};
use mimic::machine::Machine;
use mimic::machine::snapshot::Snapshot;
use mimic::machine::spec::{End, EngineKind, MachineSpec, Report, Resumption};

/// Where the guest's code lies, and the code that it wants to be woken at.
const CODE: u64 = 0x10_0000;
const WAKING: u64 = 0x1_2345;
/// What memory holds before the sleep, and after.
const KEPT: u64 = 0x1_1000;
/// Power management's ports: status, enable, control.
const STATUS: i32 = 0x600;
const CONTROL: i32 = 0x604;

/// How a guest wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vector {
    /// In real mode.
    Real,
    /// By the wide vector, in protected mode.
    Protected,
    /// By the wide vector, in 64-bit mode.
    Long,
    /// Nowhere.
    None,
}

fn out16(a: &mut CodeAssembler, port: i32, value: u32) -> Result<(), IcedError> {
    a.mov(dx, port)?;
    a.mov(ax, value as i32)?;
    a.out(dx, ax)
}

fn print(a: &mut CodeAssembler, byte: u8) -> Result<(), IcedError> {
    a.mov(al, u32::from(byte))?;
    a.out(0xe9, al)
}

/// A guest in 32-bit mode that finds the FACS by ACPI's tables, wants to be woken, by the clock too if `alarm`, and falls
/// asleep; then a guest that says what it finds.
fn guest(vector: Vector, alarm: bool) -> Result<Vec<u8>, IcedError> {
    let bitness = match vector {
        Vector::Long => 64,
        Vector::Protected => 32,
        _ => 16,
    };
    let mut woken = CodeAssembler::new(bitness)?;
    print(&mut woken, b'w')?;
    woken.mov(dx, STATUS)?;
    woken.in_(ax, dx)?;
    woken.shl(eax, 16)?;
    match vector {
        Vector::Long => {
            // Only long mode has this register, and these bits.
            woken.mov(r9, KEPT << 32)?;
            woken.shr(r9, 32)?;
            woken.mov(ax, word_ptr(r9))?;
        }
        Vector::Protected => woken.mov(ax, word_ptr(KEPT))?,
        _ => {
            // The code segment begins with the code's paragraph.
            woken.mov(bx, (KEPT >> 4) as i32)?;
            woken.mov(ds, bx)?;
            woken.mov(ax, word_ptr(0))?;
        }
    }
    woken.out(0xf4, eax)?;
    woken.hlt()?;
    let woken = woken.assemble(WAKING)?;

    let mut a = CodeAssembler::new(32)?;
    let mut asleep = a.create_label();
    for (at, byte) in woken.iter().enumerate() {
        a.mov(byte_ptr(WAKING + at as u64), u32::from(*byte))?;
    }
    a.mov(dword_ptr(KEPT), 0xbeef)?;
    // RSDP -> RSDT -> FADT, the first table -> FACS.
    a.mov(ebx, dword_ptr(0xe_0010))?;
    a.mov(ebx, dword_ptr(ebx + 36))?;
    a.mov(ebx, dword_ptr(ebx + 36))?;
    match vector {
        Vector::Real => a.mov(dword_ptr(ebx + 12), WAKING as i32)?,
        Vector::Protected | Vector::Long => {
            // The wide vector goes before the other.
            a.mov(dword_ptr(ebx + 12), 0x5000)?;
            a.mov(dword_ptr(ebx + 24), WAKING as i32)?;
            a.mov(dword_ptr(ebx + 36), i32::from(vector == Vector::Long))?;
        }
        Vector::None => {}
    }
    if alarm {
        // Every second (MC146818: bytes 1, 3, 5; AIE in register B), and RTC_EN.
        for (register, value) in [(1u32, 0xffu32), (3, 0xff), (5, 0xff), (0xb, 0x22)] {
            a.mov(al, register)?;
            a.out(0x70, al)?;
            a.mov(al, value)?;
            a.out(0x71, al)?;
        }
        out16(&mut a, STATUS + 2, 0x400)?;
    }
    print(&mut a, b's')?;
    out16(&mut a, CONTROL, 0x2400)?;
    // Nothing of this is executed.
    print(&mut a, b'!')?;
    a.mov(dword_ptr(KEPT), 0)?;
    a.set_label(&mut asleep)?;
    a.jmp(asleep)?;
    a.assemble(CODE)
}

fn spec(code: &[u8], cpus: usize, deterministic: bool) -> MachineSpec {
    let flat = LoadOptions { load_addr: Some(CODE), bits: Some(Bits::B32) };
    MachineSpec {
        cpus,
        memory: 16 << 20,
        deterministic,
        ..plain(loader::parse(code, &flat).unwrap())
    }
}

/// WAK_STS and RTC_STS, and what memory kept.
const WOKEN_BY_ALARM: End = End::Exit(0x8400_beef);

#[test]
fn the_alarm_wakes_where_the_facs_says() {
    let sleep = |vector, cpus, deterministic| {
        let (report, text) = run(spec(&guest(vector, true).unwrap(), cpus, deterministic));
        assert_eq!((report.end, text.as_str()), (WOKEN_BY_ALARM, "sw"), "{vector:?}");
        assert!(report.stats.hart_time < Duration::from_millis(500), "nobody works in its sleep");
        report.state_hash
    };
    let first = sleep(Vector::Real, 3, true);
    assert!(first.is_some() && first == sleep(Vector::Real, 3, true));
    sleep(Vector::Real, 2, false);
    sleep(Vector::Protected, 1, false);
    sleep(Vector::Long, 1, true);
}

#[test]
fn who_wants_to_be_woken_nowhere_is_reset() {
    for deterministic in [false, true] {
        let (report, text) = run(spec(&guest(Vector::None, true).unwrap(), 1, deterministic));
        assert_eq!((report.end, text.as_str()), (End::Reset, "s"));
    }
}

/// Starts a machine that falls asleep, and gives its outside to `f`, which ends it.
fn asleep(
    code: &[u8],
    deterministic: bool,
    f: impl FnOnce(&mimic::machine::MachineHandle),
) -> Report {
    let console = Capture::default();
    let machine = Machine::new(spec(code, 2, deterministic), console.io()).unwrap();
    let handle = machine.handle();
    std::thread::scope(|scope| {
        let running = scope.spawn(move || machine.run());
        while console.text().is_empty() {
            assert!(!running.is_finished(), "it has ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        f(&handle);
        running.join().unwrap()
    })
}

#[test]
fn a_machine_asleep_can_be_looked_at_and_ended() {
    let code = guest(Vector::Real, false).unwrap();
    for deterministic in [false, true] {
        let report = asleep(&code, deterministic, |handle| {
            let insns = handle.stats().insns;
            handle.pause();
            handle.resume();
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(handle.stats().insns, insns);
            handle.quit();
        });
        assert_eq!(report.end, End::Quit);
        assert!(report.stats.hart_time < Duration::from_millis(200), "{:?}", report.stats);
    }
}

#[test]
fn the_power_button_wakes() {
    let code = guest(Vector::Real, false).unwrap();
    for deterministic in [false, true] {
        let report = asleep(&code, deterministic, |handle| assert!(handle.press_power_button()));
        // WAK_STS and PWRBTN_STS.
        assert_eq!(report.end, End::Exit(0x8100_beef));
    }
}

#[test]
fn a_machine_saved_asleep_wakes_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let code = guest(Vector::Protected, true).unwrap();
    // The alarm may ring before the machine is saved, which then has ended.
    for _ in 0..10 {
        let mut saved = false;
        asleep(&code, false, |handle| {
            saved = handle.save(&path).is_ok();
            handle.quit();
        });
        if saved {
            break;
        }
    }
    let how = Resumption { engine: EngineKind::Interp.into(), limits: PATIENCE, disks: Vec::new() };
    let console = Capture::default();
    let machine = Machine::resume(Snapshot::open(&path).unwrap(), &how, console.io()).unwrap();
    assert_eq!(machine.run().end, WOKEN_BY_ALARM);
    assert_eq!(console.text(), "w");
}
