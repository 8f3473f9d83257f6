//! KVM: small guests on it, on the interpreter, and on both in turn. Without /dev/kvm these tests say so and pass.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod machine;
mod processors;

use std::io::Write as _;
use std::time::Duration;

use iced_x86::code_asm::*;
use machine::{Capture, PATIENCE, plain, run};
use mimic::engine::kvm::KvmError;
use mimic::engine::kvm::probe::{self, KvmKind};
use mimic::loader::{self, Bits, LoadOptions, LoadedImage};
use mimic::machine::Machine;
use mimic::machine::snapshot::Snapshot;
use mimic::machine::spec::{End, EngineKind, EngineSpec, MachineSpec, Resumption, SwitchAt};
use mimic_test_roms::roms;
use mimic_test_roms::x86::kvm::{self, Guest};
use processors::count_together;

/// Whether there is a KVM here. Says so if there is none.
fn kvm_is_here() -> bool {
    match probe::open() {
        Ok(()) => true,
        Err(error @ KvmError::Open(_)) => {
            // Not captured: whoever reads the tests' output shall know.
            let _ = writeln!(std::io::stderr(), "SKIPPED, since KVM cannot be used here: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn spec(code: &[u8], address: u64, bits: Bits, engine: impl Into<EngineSpec>) -> MachineSpec {
    let options = LoadOptions { load_addr: Some(address), bits: Some(bits) };
    of_image(loader::parse(code, &options).unwrap(), engine)
}

fn of_image(image: LoadedImage, engine: impl Into<EngineSpec>) -> MachineSpec {
    MachineSpec { engine: engine.into(), pass_exit: Some(0), ..plain(image) }
}

fn of_guest(guest: &Guest, engine: impl Into<EngineSpec>) -> MachineSpec {
    let bits = if guest.bits == 16 { Bits::B16 } else { Bits::B64 };
    spec(&guest.build(), guest.address, bits, engine)
}

#[test]
fn guests_pass_on_the_interpreter() {
    for guest in kvm::GUESTS {
        let (report, text) = run(of_guest(guest, EngineKind::Interp));
        assert_eq!(report.end, End::Pass, "{}", guest.name);
        assert_eq!(text.trim(), guest.name);
    }
}

#[test]
fn guests_pass_on_kvm() {
    if !kvm_is_here() {
        return;
    }
    for guest in kvm::GUESTS {
        let (report, text) = run(of_guest(guest, EngineKind::Kvm));
        let counters = report.stats.kvm.unwrap();
        assert_eq!(report.end, End::Pass, "{}: {counters:?}", guest.name);
        assert_eq!(text.trim(), guest.name);
        assert!(counters.entries > 5, "{}: {counters:?}", guest.name);
    }
}

/// Starts on the interpreter and changes all the time.
fn to_and_fro(every: u64) -> EngineSpec {
    EngineSpec {
        kind: EngineKind::Interp,
        switches: vec![SwitchAt::Every(every)],
        ..EngineSpec::default()
    }
}

#[test]
fn a_state_survives_many_changes_of_the_engine() {
    if !kvm_is_here() {
        return;
    }
    // A guest of 120 million instructions: at prime numbers of them, so that changes fall everywhere, also behind an
    // INT3 that KVM has executed and not delivered.
    let least = if probe::kind().unwrap() == KvmKind::Software { 1000 } else { 100 };
    for every in [20_011, 100_003] {
        let (report, _) = run(of_guest(kvm::find("survive").unwrap(), to_and_fro(every)));
        let (switches, counters) = (report.stats.engine_switches, report.stats.kvm.unwrap());
        assert_eq!(report.end, End::Pass, "every {every}: {switches} changes, {counters:?}");
        assert!(switches.min(counters.entries) >= least, "{switches} changes, {counters:?}");
    }
    for name in ["long", "user", "privileged", "vector"] {
        let (report, _) = run(of_guest(kvm::find(name).unwrap(), to_and_fro(97)));
        assert_eq!(report.end, End::Pass, "{name}: {} changes", report.stats.engine_switches);
    }
}

#[test]
fn engines_are_changed_from_outside_and_a_machine_on_kvm_is_saved() {
    if !kvm_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let machine = Machine::new(
        of_guest(kvm::find("survive").unwrap(), EngineKind::Kvm),
        Capture::default().io(),
    )
    .unwrap();
    let handle = machine.handle();
    let running = std::thread::spawn(move || machine.run());
    std::thread::sleep(Duration::from_millis(100));
    for round in 0..20 {
        let expected = if round % 2 == 0 { EngineKind::Interp } else { EngineKind::Kvm };
        match handle.switch_engine().unwrap() {
            Some(kind) => assert_eq!(kind, expected),
            // It is through already: this host is fast.
            None => break,
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let saved = handle.save(&path);
    assert_eq!(running.join().unwrap().end, End::Pass);
    if saved.is_err() {
        eprintln!("SKIPPED: the guest had ended before it could be saved");
        return;
    }
    let how = Resumption { engine: EngineKind::Interp.into(), limits: PATIENCE, disks: Vec::new() };
    let snapshot = Snapshot::open(&path).unwrap();
    let resumed = Machine::resume(snapshot, &how, Capture::default().io()).unwrap().run();
    assert_eq!(resumed.end, End::Pass);
    let how = Resumption { engine: EngineKind::Kvm.into(), ..how };
    let snapshot = Snapshot::open(&path).unwrap();
    let resumed = Machine::resume(snapshot, &how, Capture::default().io()).unwrap().run();
    assert_eq!(resumed.end, End::Pass);
}

/// Two processors of which the other counts; reports how far from right the count is.
fn two_processors() -> Vec<u8> {
    const ROUNDS: u32 = 2_000;
    let mut a = CodeAssembler::new(32).unwrap();
    count_together(&mut a, 1, ROUNDS);
    a.sub(eax, ROUNDS as i32).unwrap();
    a.out(0xf4, eax).unwrap();
    a.cli().unwrap();
    a.hlt().unwrap();
    a.assemble(0x10_0000).unwrap()
}

#[test]
fn processors_start_each_other() {
    if !kvm_is_here() {
        return;
    }
    let code = two_processors();
    for engine in [EngineKind::Interp.into(), EngineKind::Kvm.into(), to_and_fro(1_009)] {
        let spec = MachineSpec { cpus: 2, ..spec(&code, 0x10_0000, Bits::B32, engine) };
        assert_eq!(run(spec).0.end, End::Pass);
    }
}

#[test]
fn processors_do_not_disturb_each_other() {
    if !kvm_is_here() {
        return;
    }
    // KVM's instruction emulator, which performs all of a supervisor's code on a software KVM, does not perform every form
    // with LOCK as one access (Linux, arch/x86/kvm/x86.c, emulator_cmpxchg_emulated).
    let software = probe::kind().unwrap() == KvmKind::Software;
    let beyond = |name: &str| software && name.starts_with("x86/stress-lock-");
    let stress = |name: &str| name.starts_with("x86/stress-") && !beyond(name);
    let mut failed = Vec::new();
    for rom in roms().iter().filter(|rom| stress(rom.name)) {
        for engine in [EngineKind::Kvm.into(), to_and_fro(100_003)] {
            let image = loader::parse(&rom.build_for(200), &LoadOptions::default()).unwrap();
            let (report, _) =
                run(MachineSpec { cpus: rom.harts as usize, ..of_image(image, engine.clone()) });
            if report.end != End::Pass {
                failed.push(format!("{} from {:?}: {:?}", rom.name, engine.kind, report.end));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn what_needs_a_count_of_instructions_is_refused() {
    if !kvm_is_here() {
        return;
    }
    let guest = kvm::find("user").unwrap();
    let deterministic = MachineSpec { deterministic: true, ..of_guest(guest, EngineKind::Kvm) };
    let error = Machine::new(deterministic, Capture::default().io()).err().unwrap().to_string();
    assert!(error.contains("counts instructions"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.bin");
    std::fs::write(&path, guest.build()).unwrap();
    for more in [&["--deterministic"][..], &["--max-insns", "5"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mimic"))
            .args(["run", "--engine", "kvm", "--load-addr", "0x100000", "--bits", "64"])
            .args(more)
            .arg(&path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(126), "{text}");
        assert!(text.contains(more[0]), "{text}");
    }
}

#[test]
fn the_kind_of_kvm_is_told_in_full() {
    if !kvm_is_here() {
        return;
    }
    let found = probe::probe().unwrap();
    eprintln!("{found:?}");
    if found.kind == KvmKind::Hardware {
        assert!(found.syscall && found.cmpxchg16b && found.legacy_paging, "{found:?}");
    }
}
