//! Guests whose engine changes while they run, and a translator with parts switched off or with little room.

mod console;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use console::{SHA256_OF_20000_NUMBERS, start_debian};
use mimic::harness::{self, Case, Settings, Source};
use mimic::machine::spec::{EngineKind, EngineSpec, Limits, SwitchAt};
use mimic_cpu::riscv::model::CpuModel;
use mimic_jit::memory::MIN_BYTES;
use mimic_jit::options::{JitOptions, SWITCHES};
use support::{BASE, LOOPS, ending, guest, mimic};

fn settings(engine: EngineSpec, deterministic: bool) -> Settings {
    Settings {
        memory: 32 << 20,
        cpu: CpuModel::default().into(),
        cpus: 1,
        deterministic,
        engine,
        limits: Limits { insns: None, time: Some(Duration::from_secs(300)) },
        signatures: None,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Runs ROMs; how often they changed engines, all together.
fn roms_pass(settings: &Settings, wanted: impl Fn(&str) -> bool) -> u64 {
    let mut cases = harness::builtin();
    cases.retain(|case| wanted(&case.name));
    assert!(!cases.is_empty());
    let outcomes = harness::run(&cases, settings, &|_| {});
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.passed())
        .map(|outcome| format!("{}: {}", outcome.name, outcome.reason()))
        .collect();
    let engine = &settings.engine;
    assert!(failed.is_empty(), "{engine:?}, {}:\n{}", settings.deterministic, failed.join("\n"));
    outcomes.iter().map(|outcome| outcome.stats.engine_switches).sum()
}

fn is_short(name: &str) -> bool {
    !name.contains("/bench-")
}

fn every(insns: u64) -> EngineSpec {
    EngineSpec {
        kind: EngineKind::Interp,
        // Blocks are translated at once: the translator shall have its share of the work.
        jit: JitOptions { threshold: 0, cache_bytes: 1 << 20, ..JitOptions::default() },
        switches: vec![SwitchAt::Every(insns)],
    }
}

#[test]
fn roms_do_not_notice_changes_of_engine() {
    for deterministic in [false, true] {
        // A prime number of instructions, so that changes fall everywhere in loops.
        let switches = roms_pass(&settings(every(101), deterministic), is_short);
        println!("deterministic {deterministic}: {switches} changes");
        assert!(switches > 10_000, "{switches}");
    }
    let switches = roms_pass(&settings(every(50_021), false), |name| name.contains("/bench-"));
    assert!(switches > 10_000, "{switches}");
}

#[test]
fn stress_guests_do_not_notice_changes_of_engine() {
    // Longer than in the other tests, and one after the other: they have more harts than most hosts have cores.
    let mut total = 0;
    for rom in mimic_test_roms::roms().iter().filter(|rom| rom.name.starts_with("rv64/stress-")) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stress.elf");
        std::fs::write(&path, rom.build_for(500)).unwrap();
        let case = Case { name: rom.name.into(), source: Source::File(path) };
        let settings =
            Settings { cpus: rom.harts as usize, jobs: 1, ..settings(every(1009), false) };
        let outcomes = harness::run(&[case], &settings, &|_| {});
        assert!(outcomes[0].passed(), "{}: {}", rom.name, outcomes[0].reason());
        println!("{}: {} changes", rom.name, outcomes[0].stats.engine_switches);
        total += outcomes[0].stats.engine_switches;
    }
    assert!(total > 10_000, "{total}");
}

#[test]
fn roms_pass_with_each_part_of_the_translator_switched_off_and_with_little_room() {
    let mut all: Vec<String> = SWITCHES.iter().map(|switch| format!("-{}", switch.name)).collect();
    all.push("-all".into());
    for list in all {
        let mut jit = JitOptions { threshold: 0, ..JitOptions::default() };
        jit.apply(&list).unwrap();
        let engine = EngineSpec { kind: EngineKind::Jit, jit, switches: Vec::new() };
        roms_pass(&settings(engine, false), is_short);
    }
    for (cache_bytes, samples) in [(MIN_BYTES, 24), (1 << 20, 24), (MIN_BYTES, 0), (64 << 20, 0)] {
        let jit = JitOptions { threshold: 0, cache_bytes, samples, ..JitOptions::default() };
        let engine = EngineSpec { kind: EngineKind::Jit, jit, switches: Vec::new() };
        roms_pass(&settings(engine, false), |_| true);
    }
}

/// The state hash of Debian's kernel after so many instructions, run with more options.
fn hash(more: &[&str], insns: &str) -> Option<String> {
    let args = ["boot", "debian-riscv64", "--deterministic", "--state-hash", "--max-insns", insns];
    let output = mimic(&args).args(more).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let hash = text.lines().find_map(|line| line.strip_prefix("mimic: state hash "));
    hash.map(str::to_owned)
}

#[test]
fn a_change_of_engine_leaves_no_trace() {
    if std::env::var_os("MIMIC_SKIP_DEBIAN").is_some() {
        return;
    }
    let plain = hash(&[], "60M").expect("a hash");
    for more in [
        &["--engine", "jit"][..],
        &["--engine", "jit", "--jit-cache", "512K", "--jit-opt", "-fold,-links,threshold=0"],
        &["--switch-at", "insns=12345678,jit", "--switch-at", "insns=50000001,interp"],
        &["--switch-at", "every=4001"],
        &["--switch-at", "every=999999", "--jit-opt", "-jumps,-facts,-dce"],
    ] {
        assert_eq!(hash(more, "60M").as_ref(), Some(&plain), "{more:?}");
    }
    let two = hash(&["--cpus", "2"], "60M").expect("a hash");
    assert_eq!(hash(&["--cpus", "2", "--switch-at", "every=4001"], "60M"), Some(two));
}

fn report(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Boots Debian with two harts and a disk, has it compute, sleep and use the disk, and returns its counters.
fn debian_works(more: &[&str]) -> Option<serde_json::Value> {
    let folder = tempfile::tempdir().unwrap();
    let (disk, path) = (folder.path().join("disk.img"), folder.path().join("report.json"));
    std::fs::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    let (disk, path) = (disk.to_str().unwrap(), path.to_str().unwrap());
    let args = [more, &["--cpus", "2", "--disk", disk, "--report", path]].concat();
    let (child, mut console) = start_debian(&args)?;
    let sums = console.ask("for i in 1 2 3; do (seq 1 20000 | sha256sum) & done; wait");
    assert_eq!(sums.matches(SHA256_OF_20000_NUMBERS).count(), 3, "{sums}");
    let sum = console.ask("awk 'BEGIN{for(i=1;i<=20000;i++)s+=1/i; printf \"%.15g\\n\", s}'");
    assert!(sum.contains(HARMONIC_20000), "{sum}");
    assert!(console.ask("sleep 0.3 && echo slept").contains("\nslept"));
    console.ask("seq 1 50000 >/dev/vda; sync; echo 3 >/proc/sys/vm/drop_caches");
    let sum = console.ask("head -c 288894 /dev/vda | sha256sum");
    assert!(sum.contains(SHA256_OF_50000_NUMBERS), "{sum}");
    console.powers_off(child);
    let stats = report(Path::new(path))["stats"].clone();
    println!("{more:?}: {stats}");
    Some(stats)
}

/// `seq 1 N | sha256sum`, by coreutils on another machine.
const SHA256_OF_50000_NUMBERS: &str =
    "44969d026ed4164dbe77d48d4d359e98ac4057008cafd61723be72bff83e5fd4";
/// 1 + 1/2 + ... + 1/20000, by Python on another machine.
const HARMONIC_20000: &str = "10.4807282172293";

#[test]
fn debian_works_with_changes_every_million_instructions_and_little_room() {
    let more = ["--switch-at", "every=1M", "--jit-cache", "1M"];
    let Some(stats) = debian_works(&more) else { return };
    assert!(stats["engine_switches"].as_u64().unwrap() > 2_000, "{stats}");
    assert!(stats["jit"]["blocks"].as_u64().unwrap() > 10_000, "{stats}");
    assert!(stats["jit"]["segments_recycled"].as_u64().unwrap() > 0, "{stats}");
}

#[test]
fn debian_survives_ten_thousand_changes() {
    let Some(stats) = debian_works(&["--switch-at", "every=150k"]) else { return };
    assert!(stats["engine_switches"].as_u64().unwrap() > 10_000, "{stats}");
}

#[test]
fn the_report_counts_what_the_translator_did() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let image = guest(folder.path(), LOOPS);
    let run = |more: &[&str]| {
        let args = ["run", image.to_str().unwrap(), "--load-addr", BASE, "--max-insns", "1M"];
        let more = [more, &["--stats", "--report", path.to_str().unwrap()]].concat();
        mimic(&args).args(more).output().unwrap()
    };
    let output = run(&["--engine", "jit"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("blocks translated") && !text.contains("engine switches"), "{text}");
    let stats = &report(&path)["stats"];
    // One instruction, which jumps to itself.
    assert_eq!((&stats["jit"]["blocks"], &stats["jit"]["instructions"]), (&1.into(), &1.into()));
    assert!(stats["jit"]["exits"]["slice"].as_u64().unwrap() > 50, "{stats}");
    let text = String::from_utf8_lossy(&run(&["--engine", "interp"]).stderr).into_owned();
    assert!(!text.contains("blocks translated"), "{text}");
    assert!(report(&path)["stats"]["jit"].is_null());
    run(&["--switch-at", "every=10k"]);
    // The last one would be due where the run ends.
    assert_eq!(report(&path)["stats"]["engine_switches"], 99);
}

#[test]
fn perf_finds_names_of_translated_code() {
    let folder = tempfile::tempdir().unwrap();
    let image = guest(folder.path(), LOOPS);
    let args = ["run", image.to_str().unwrap(), "--load-addr", BASE, "--max-insns", "1M"];
    let run = |more: &[&str]| {
        let child = mimic(&args).args(more).stderr(Stdio::piped()).spawn().unwrap();
        let map = format!("/tmp/perf-{}.map", child.id());
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(124));
        let text = std::fs::read_to_string(&map);
        let _ = std::fs::remove_file(map);
        text
    };
    let text = run(&["--engine", "jit", "--perf-map"]).unwrap();
    let line = text.lines().find(|line| line.contains("guest pc 0x80000000 physical 0x80000000"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    let words: Vec<&str> = line.splitn(3, ' ').collect();
    assert!(usize::from_str_radix(words[0], 16).unwrap() > 0);
    assert!(usize::from_str_radix(words[1], 16).unwrap() > 8);
    assert!(run(&["--engine", "jit"]).is_err(), "only when asked for");
}

#[test]
fn a_host_without_memory_for_code_is_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let image = guest(folder.path(), LOOPS);
    // Address space for everything but code: it is seen twice.
    let run = |more: &str| {
        let program = env!("CARGO_BIN_EXE_mimic");
        let image = image.to_str().unwrap();
        let script = format!(
            "ulimit -v 1500000; exec {program} run {image} --load-addr {BASE} --mem 1M --max-insns 1M {more}"
        );
        std::process::Command::new("sh").args(["-c", &script]).output().unwrap()
    };
    assert_eq!(ending(&run("")).0, Some(124));
    let (status, text) = ending(&run("--engine jit --jit-cache 1G"));
    assert_eq!(status, Some(125), "{text}");
    assert!(text.contains("1048576 KiB") && text.contains("--engine interp"), "{text}");
    let (status, text) = ending(&run("--switch-at insns=1000,jit --jit-cache 1G"));
    assert_eq!(status, Some(125), "{text}");
    assert!(text.contains("--engine interp"), "{text}");
}

#[test]
fn wrong_options_are_answered_with_what_there_is() {
    for (args, part) in [
        (&["--jit-opt", "-warp"][..], "links"),
        (&["--jit-opt=-fold,threshold=x"], "threshold=N"),
        (&["--jit-cache", "100K"], "512K"),
        (&["--switch-at", "5M"], "every=1M"),
        (&["--switch-at", "insns=5M,warp"], "mimic engines"),
    ] {
        let output = mimic(&["run", "x"]).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(126), "{text}");
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let output = mimic(&["engines"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("interp") && text.contains("jit"), "{text}");
    assert!(SWITCHES.iter().all(|switch| text.contains(switch.name)), "{text}");
}
