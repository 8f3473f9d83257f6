//! KVM: small guests on it, on the interpreter, and on both in turn. Without /dev/kvm these tests say so and pass.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use iced_x86::code_asm::*;
use mimic::engine::kvm::KvmError;
use mimic::loader::{self, Bits, LoadOptions};
use mimic::machine::snapshot::Snapshot;
use mimic::machine::spec::{
    BoardKind, ConsoleKind, CpuSpec, End, EngineKind, EngineSpec, Firmware, Limits, MachineSpec,
    Report, Resumption, SwitchAt,
};
use mimic::machine::{ConsoleIo, Machine};
use mimic_devices::serial::SerialOutput;
use mimic_test_roms::x86::kvm::{self, Guest};

/// A guest that hangs ends here, not the test run.
const PATIENCE: Limits = Limits { insns: None, time: Some(Duration::from_secs(120)) };

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl SerialOutput for Capture {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

impl Capture {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn io(&self) -> ConsoleIo {
        ConsoleIo { output: Box::new(self.clone()), input: None }
    }
}

/// Whether there is a KVM here. Says so if there is none.
fn kvm_is_here() -> bool {
    match mimic::engine::kvm::probe::open() {
        Ok(()) => true,
        Err(error @ KvmError::Open(_)) => {
            eprintln!("SKIPPED, since KVM cannot be used here: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn spec(code: &[u8], address: u64, bits: Bits, engine: impl Into<EngineSpec>) -> MachineSpec {
    let options = LoadOptions { load_addr: Some(address), bits: Some(bits) };
    let image = loader::parse(code, &options).unwrap();
    MachineSpec {
        board: BoardKind::Pc,
        cpu: CpuSpec::default_for(image.isa),
        cpus: 1,
        memory: 64 << 20,
        deterministic: false,
        engine: engine.into(),
        firmware: Firmware::Auto,
        image,
        initrd: None,
        cmdline: String::new(),
        console: ConsoleKind::Uart,
        limits: PATIENCE,
        disks: Vec::new(),
        flash: None,
        signature: None,
        pass_exit: Some(0),
    }
}

fn of_guest(guest: &Guest, engine: impl Into<EngineSpec>) -> MachineSpec {
    let bits = if guest.bits == 16 { Bits::B16 } else { Bits::B64 };
    spec(&guest.build(), guest.address, bits, engine)
}

/// Runs a guest; how it ended, and what it printed.
fn run(spec: MachineSpec) -> (Report, String) {
    let console = Capture::default();
    let report = Machine::new(spec, console.io()).unwrap().run();
    (report, console.text())
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
        let kvm = report.stats.kvm.unwrap();
        eprintln!(
            "{:<12} {:?} {kvm:?} {} accesses, {:?}",
            guest.name, report.end, report.stats.device_accesses, report.stats.wall_time
        );
        assert_eq!(report.end, End::Pass, "{}: {kvm:?}", guest.name);
        assert_eq!(text.trim(), guest.name);
        assert!(kvm.entries > 10, "{}: {kvm:?}", guest.name);
    }
}
