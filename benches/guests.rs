//! Whole guests on each engine: the benchmark ROMs, and Debian's boot to its shell if it has been fetched
//! (`mimic boot debian-riscv64 --fetch-only`).
//!
//! `cargo bench --bench guests`

#[path = "support/cpu_time.rs"]
mod cpu_time;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use mimic::harness::{Case, Outcome, Settings, Source, run};
use mimic::machine::spec::{EngineKind, Limits};
use mimic_cpu::riscv::model::CpuModel;
use mimic_test_roms::{Kind, roms};

use cpu_time::{CpuTime, criterion, instructions};

fn bench_roms(c: &mut Criterion<CpuTime>) {
    let settings = Settings {
        memory: 128 << 20,
        cpu: CpuModel::default().into(),
        cpus: 1,
        deterministic: false,
        engine: EngineKind::Interp.into(),
        limits: Limits::default(),
        signatures: None,
        jobs: 1,
    };
    let mut group = c.benchmark_group("interp");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for rom in roms().iter().filter(|rom| rom.kind == Kind::Benchmark && rom.harts == 1) {
        let case = [Case { name: rom.name.into(), source: Source::Rom(rom) }];
        group.throughput(instructions(rom.insns_estimate));
        group.bench_function(rom.name, |b| {
            b.iter(|| {
                let outcomes = run(&case, &settings, &|_| {});
                assert!(outcomes.iter().all(Outcome::passed), "{} failed", rom.name);
            });
        });
    }
    group.finish();
}

/// Boots Debian to its shell, powers it off, and returns whether that worked. The CPU time is a child's,
/// so this one is wall time.
fn boot() -> bool {
    let child = Command::new(env!("CARGO_BIN_EXE_mimic"))
        .args(["boot", "debian-riscv64"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return false;
    };
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    let mut asked = false;
    while let Ok(len @ 1..) = stdout.read(&mut chunk) {
        seen.extend_from_slice(&chunk[..len]);
        if !asked && seen.windows(12).any(|window| window == b"root@mimic:~") {
            asked = stdin.write_all(b"poweroff\n").is_ok();
        }
    }
    child.wait().is_ok_and(|status| status.success()) && asked
}

fn bench_boot(c: &mut Criterion<criterion::measurement::WallTime>) {
    if std::env::var_os("MIMIC_SKIP_DEBIAN").is_some() || !boot() {
        eprintln!(
            "boot/debian-riscv64: left out, fetch the guest first: mimic boot debian-riscv64 --fetch-only"
        );
        return;
    }
    let mut group = c.benchmark_group("boot");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("debian-riscv64 to the shell and off", |b| b.iter(boot));
    group.finish();
}

criterion_group! { name = benches; config = criterion(); targets = bench_roms }
criterion_group!(boots, bench_boot);
criterion_main!(benches, boots);
