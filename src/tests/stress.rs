//! The stress ROMs on every engine, two seconds each; `MIMIC_STRESS_SECONDS` lengthens that. Run with one test thread to
//! have them one at a time: each has more harts than most hosts have cores.

use std::path::Path;
use std::time::Duration;

use mimic::harness::{self, Case, Outcome, Settings, Source};
use mimic::machine::spec::{End, EngineKind, Limits};
use mimic_cpu::riscv::model::CpuModel;
use mimic_test_roms::{Rom, roms};

fn seconds() -> u64 {
    let given = std::env::var("MIMIC_STRESS_SECONDS");
    given.map_or(2, |text| text.parse().expect("MIMIC_STRESS_SECONDS is a number of seconds"))
}

/// Rounds that the guest went through, and what else it counted: in the signature of an RV64 guest; an x86 guest prints
/// it.
fn counts(outcome: &Outcome, folder: &Path) -> Vec<u64> {
    let signature = std::fs::read_to_string(folder.join("stress.signature"));
    let text = signature.unwrap_or_else(|_| String::from_utf8_lossy(&outcome.console).into_owned());
    text.lines().map(|line| u64::from_str_radix(line, 16).unwrap()).collect()
}

fn run(rom: &Rom, engine: EngineKind, seconds: u64) -> Result<Vec<u64>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stress.elf");
    std::fs::write(&path, rom.build_for(1_000 * seconds)).unwrap();
    let settings = Settings {
        memory: 32 << 20,
        cpu: CpuModel::default().into(),
        cpus: rom.harts as usize,
        deterministic: false,
        engine: engine.into(),
        // A hang ends here. Guests look at the clock between rounds only.
        limits: Limits { insns: None, time: Some(Duration::from_secs(2 * seconds + 60)) },
        signatures: Some((folder.path().into(), 8)),
        jobs: 1,
    };
    let case = Case { name: "stress".into(), source: Source::File(path) };
    let outcomes = harness::run(&[case], &settings, &|_| {});
    let [outcome] = outcomes.as_slice() else { return Err("it was not run".into()) };
    if !outcome.passed() {
        let code = match outcome.result {
            Ok(End::Fail(code)) => u32::try_from(code).ok(),
            Ok(End::Exit(code)) => Some(code),
            _ => None,
        };
        let name = code.and_then(|code| rom.case_name(code));
        return Err(format!("{} {}", outcome.reason(), name.unwrap_or_default()));
    }
    Ok(counts(outcome, folder.path()))
}

/// Runs the stress ROMs whose names begin so.
fn run_all(names: &str, engine: EngineKind) {
    let seconds = seconds();
    let mut failed = Vec::new();
    for rom in roms().iter().filter(|rom| rom.name.starts_with(names)) {
        match run(rom, engine, seconds) {
            Ok(counts) => {
                println!("{engine:?} {}: rounds and counts {counts:?}", rom.name);
                assert!(counts[0] > 0, "{} did something", rom.name);
            }
            Err(why) => failed.push(format!("{engine:?} {}: {why}", rom.name)),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn harts_do_not_disturb_each_other() {
    for engine in [EngineKind::Interp, EngineKind::Jit] {
        run_all("rv64/stress-", engine);
    }
}

#[test]
fn processors_do_not_disturb_each_other() {
    run_all("x86/stress-", EngineKind::Interp);
}
