//! Our own guests on every engine: the conformance and benchmark ROMs, whose expectations hold on Spike and
//! QEMU (see their manifest), and the guest that checks the SBI from below.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod machine;

use std::time::Duration;

use machine::{plain, run};
use mimic::board::virt;
use mimic::harness::{self, Settings};
use mimic::loader::{self, LoadOptions};
use mimic::machine::spec::{End, EngineKind, Firmware, Limits, MachineSpec};
use mimic_cpu::riscv::TIMEBASE_HZ;
use mimic_cpu::riscv::model::CpuModel;
use mimic_firmware::riscv::sbi;
use mimic_firmware::riscv::sbi_check::{SbiCheckConfig, sbi_check};

const ENGINES: [EngineKind; 2] = [EngineKind::Interp, EngineKind::Jit];

/// A guest that hangs ends here, not the test run. No limit of instructions: harts that wait for each other
/// spin for as long as the host keeps one of them from running.
const PATIENCE: Limits = Limits { insns: None, time: Some(Duration::from_secs(300)) };

#[test]
fn roms_pass_on_every_engine() {
    for (engine, deterministic) in ENGINES.into_iter().flat_map(|e| [(e, false), (e, true)]) {
        let settings = Settings {
            memory: 128 << 20,
            cpu: CpuModel::default().into(),
            cpus: 1,
            deterministic,
            engine: engine.into(),
            limits: PATIENCE,
            signatures: None,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
        };
        let outcomes = harness::run(&harness::builtin(), &settings, &|_| {});
        assert!(outcomes.len() > 30, "the ROMs are found");
        let failed: Vec<String> = outcomes
            .iter()
            .filter(|outcome| !outcome.passed())
            .map(|outcome| format!("{}: {}", outcome.name, outcome.reason()))
            .collect();
        assert!(
            failed.is_empty(),
            "on {engine:?}, deterministic {deterministic}:\n{}",
            failed.join("\n")
        );
    }
}

/// Runs a flat S-mode guest on the built-in firmware; how it ended, and what it printed.
fn run_on_firmware(
    guest: &[u8],
    base: u64,
    cpu: CpuModel,
    harts: usize,
    engine: EngineKind,
) -> (End, String) {
    let options = LoadOptions { load_addr: Some(base), bits: None };
    let spec = MachineSpec {
        cpu: cpu.into(),
        cpus: harts,
        engine: engine.into(),
        firmware: Firmware::Builtin,
        limits: PATIENCE,
        ..plain(loader::parse(guest, &options).unwrap())
    };
    let (report, text) = run(spec);
    (report.end, text)
}

#[test]
fn the_sbi_does_what_its_specification_says() {
    let whole = CpuModel::default();
    // Here the firmware lends its own timer.
    let without_sstc = CpuModel { sstc: false, ..whole };
    let machines = [(whole, 1), (whole, 2), (whole, 4), (without_sstc, 2)];
    for (engine, (cpu, harts)) in ENGINES.into_iter().flat_map(|e| machines.map(|m| (e, m))) {
        let base = virt::RAM_BASE + (2 << 20);
        let guest = sbi_check(&SbiCheckConfig {
            base,
            harts: u32::try_from(harts).unwrap(),
            firmware: virt::RAM_BASE,
            nowhere: 0x7000_0000,
            timebase: TIMEBASE_HZ,
            implementation: Some(sbi::IMPLEMENTATION_ID),
        });
        let (end, text) = run_on_firmware(&guest, base, cpu, harts, engine);
        assert_eq!(end, End::PowerOff, "on {engine:?}, {harts} harts, {cpu}: {text}");
        assert!(text.contains("failed 0"), "on {engine:?}, {harts} harts, {cpu}: {text}");
    }
}
