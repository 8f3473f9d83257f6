//! The stress ROMs on every engine, two seconds each; `MIMIC_STRESS_SECONDS` lengthens that. One at a time:
//! each has more harts than most hosts have cores.

use std::time::Duration;

use mimic::harness::{self, Case, Settings, Source};
use mimic::machine::spec::{EngineKind, Limits};
use mimic_cpu::riscv::model::CpuModel;
use mimic_test_roms::{Rom, roms};

const ENGINES: [EngineKind; 2] = [EngineKind::Interp, EngineKind::Jit];

fn seconds() -> u64 {
    let given = std::env::var("MIMIC_STRESS_SECONDS");
    given.map_or(2, |text| text.parse().expect("MIMIC_STRESS_SECONDS is a number of seconds"))
}

/// Whether the guest went through rounds, and what else it counted.
fn counts(signature: &str) -> Vec<u64> {
    signature.lines().map(|line| u64::from_str_radix(line, 16).unwrap()).collect()
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
        let name = match outcome.result {
            Ok(mimic::machine::spec::End::Fail(code)) => {
                u32::try_from(code).ok().and_then(|code| rom.case_name(code))
            }
            _ => None,
        };
        return Err(format!("{} {}", outcome.reason(), name.unwrap_or_default()));
    }
    let signature = std::fs::read_to_string(folder.path().join("stress.signature"));
    Ok(counts(&signature.map_err(|error| error.to_string())?))
}

#[test]
fn harts_do_not_disturb_each_other() {
    let seconds = seconds();
    let mut failed = Vec::new();
    for engine in ENGINES {
        for rom in roms().iter().filter(|rom| rom.name.starts_with("rv64/stress-")) {
            match run(rom, engine, seconds) {
                Ok(counts) => {
                    println!("{engine:?} {}: rounds and counts {counts:?}", rom.name);
                    assert!(counts[0] > 0, "{} did something", rom.name);
                }
                Err(why) => failed.push(format!("{engine:?} {}: {why}", rom.name)),
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
