//! Lockstep: that the engines run alike, and that a translator which does not is found out.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod machine;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::path::Path;

use dynasmrt::riscv::RiscvRelocation;
use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use machine::plain;
use mimic::loader::{self, LoadOptions};
use mimic::machine::snapshot::Snapshot;
use mimic::machine::spec::{End, EngineKind, EngineSpec, Limits, MachineSpec, Resumption};
use mimic::machine::stepped::Stop;
use mimic::machine::{ConsoleIo, Machine, MachineError};
use mimic::verify::{Mismatch, Options, Outcome, Silent, Summary, What, verify};
use mimic_cpu::riscv::sem::Bin;
use mimic_jit::ir::{Block, Op};
use mimic_jit::options::{JitOptions, Tamper};
use support::{BASE, ECHOES, ending, guest, mimic};

const RAM: u64 = 0x8000_0000;

/// A machine for a flat guest at the start of RAM, or for an ELF file.
fn machine(image: &[u8], cpus: usize, io: ConsoleIo) -> Result<Machine, MachineError> {
    let load_addr = (!image.starts_with(b"\x7fELF")).then_some(RAM);
    let spec = MachineSpec {
        cpus,
        memory: 128 << 20,
        deterministic: true,
        limits: Limits::default(),
        ..plain(loader::parse(image, &LoadOptions { load_addr, bits: None }).unwrap())
    };
    Machine::new(spec, io)
}

#[test]
fn the_engines_run_every_rom_alike() {
    let mut insns = 0;
    for rom in mimic_test_roms::roms().iter().filter(|rom| rom.name.starts_with("rv64/")) {
        let image = rom.build_for(5);
        let options = Options { max_insns: Some(20_000_000), every: 5_000_000, ..Options::new() };
        let make = |io: ConsoleIo| machine(&image, rom.harts as usize, io);
        match verify(&make, &options, &mut Silent).unwrap() {
            Outcome::Equal(summary) => insns += summary.insns,
            Outcome::Different(_, mismatch) => panic!("{}: {}", rom.name, mismatch.text),
        }
    }
    assert!(insns > 100_000_000, "{insns} instructions");
}

#[test]
fn regions_run_every_rom_alike() {
    let jit = JitOptions { threshold: 0, samples: 0, ..JitOptions::default() };
    let mut insns = 0;
    for rom in mimic_test_roms::roms().iter().filter(|rom| rom.name.starts_with("rv64/")) {
        let image = rom.build_for(5);
        let options = Options {
            engines: [
                EngineKind::Interp.into(),
                EngineSpec { kind: EngineKind::Jit, jit: jit.clone(), ..EngineSpec::default() },
            ],
            max_insns: Some(2_000_000),
            every: 500_000,
            ..Options::new()
        };
        let make = |io: ConsoleIo| machine(&image, rom.harts as usize, io);
        match verify(&make, &options, &mut Silent).unwrap() {
            Outcome::Equal(summary) => insns += summary.insns,
            Outcome::Different(_, mismatch) => panic!("{}: {}", rom.name, mismatch.text),
        }
    }
    assert!(insns > 10_000_000, "{insns} instructions");
}

/// `sltiu a4, s3, 5`.
const COMPARES: u32 = 0x0059_b713;
/// `sd s3, 1024(s0)`.
const STORES: u32 = 0x4134_3023;

/// A guest of 4 million instructions: 20480 times an inner loop and then `suspect`, with 20480, 20479, ... 1 in s3 and
/// the address RAM + 64 KiB in s0. It powers the machine off.
#[rustfmt::skip] // assembly
fn around(suspect: u32) -> Vec<u8> {
    let mut ops = VecAssembler::<RiscvRelocation>::new(RAM as usize);
    dynasm!(ops
        ; .arch riscv64
        ; .feature i,m
        ; auipc s0, 0x10000
        ; lui s3, 0x5000
        ; outer:
        ; li.12 a1, 50
        ; inner:
        ; srli a2, a1, 1
        ; xori a3, a2, -1
        ; addi a1, a1, -1
        ; bne a1, x0, <inner
        ; .u32 suspect
        ; addi s3, s3, -1
        ; bne s3, x0, <outer
        ; lui t0, 0x100000
        ; lui t1, 0x5000
        ; addi t1, t1, 0x555
        ; sw t1, [t0]
        ; j >end
        ; end:
        ; j <end
    );
    ops.finalize().unwrap()
}

/// A mistake: no unsigned number is below another. It shows only when one is.
fn never_below(block: &mut Block) {
    for op in &mut block.ops {
        if let Op::Bin(Bin::Sltu, ..) = op {
            *op = Op::Const(0);
        }
    }
}

/// A mistake: what is stored is the address.
fn store_address(block: &mut Block) {
    if block.insns.iter().any(|insn| insn.word == STORES) {
        for op in &mut block.ops {
            if let Op::Store { addr, width, .. } = *op {
                *op = Op::Store { addr, width, value: addr };
            }
        }
    }
}

/// A translator with a mistake, against the interpreter.
fn mistaken(tamper: fn(&mut Block), reproducer: &Path) -> Options {
    let jit = JitOptions { tamper: Some(Tamper(tamper)), ..JitOptions::default() };
    Options {
        engines: [
            EngineKind::Interp.into(),
            EngineSpec { kind: EngineKind::Jit, jit, ..EngineSpec::default() },
        ],
        reproducer: Some(reproducer.into()),
        ..Options::new()
    }
}

fn different(outcome: Outcome) -> (Summary, Mismatch) {
    match outcome {
        Outcome::Different(summary, mismatch) => (summary, *mismatch),
        Outcome::Equal(summary) => panic!("nothing found: {summary:?}"),
    }
}

/// Whether the block that is shown has this instruction.
fn shows(mismatch: &Mismatch, word: u32) -> bool {
    let translation = mismatch.translation.as_ref().expect(&mismatch.text);
    translation.insns.iter().any(|(_, there)| *there == word)
}

/// Goes on from the reproducer's snapshot, with the options that its command line has.
fn reproduce(mismatch: &Mismatch, options: &Options) -> (Summary, Mismatch) {
    let path = mismatch.snapshot.as_ref().expect("there is a snapshot");
    let make = |io: ConsoleIo| {
        let limits = Limits::default();
        let how = Resumption { engine: EngineKind::Interp.into(), limits, disks: Vec::new() };
        Machine::resume(Snapshot::open(path)?, &how, io)
    };
    let words = &mismatch.replay;
    let after = |name: &str| words.iter().position(|word| word == name).map(|at| &words[at + 1]);
    let options = Options {
        max_rounds: Some(after("--max-rounds").unwrap().parse().unwrap()),
        isolate: words.iter().any(|word| word == "--isolate"),
        reproducer: None,
        ..options.clone()
    };
    different(verify(&make, &options, &mut Silent).unwrap())
}

#[test]
fn a_wrong_operation_is_found_and_shown_again() {
    let folder = tempfile::tempdir().unwrap();
    let image = around(COMPARES);
    let make = |io: ConsoleIo| machine(&image, 1, io);
    let right = verify(&make, &Options::new(), &mut Silent).unwrap();
    assert!(
        matches!(right, Outcome::Equal(Summary { stop: Stop::Ended(End::Pass), .. })),
        "{right:?}"
    );

    let options = mistaken(never_below, folder.path());
    let (summary, found) = different(verify(&make, &options, &mut Silent).unwrap());
    assert!(summary.insns > 4_000_000, "the last four of 20480 show it: {}", summary.insns);
    assert!(found.isolated && shows(&found, COMPARES), "{}", found.text);
    assert_eq!(found.at, found.equal + 1);
    assert!(found.steps.iter().any(|step| step.word == Some(COMPARES)), "{}", found.text);
    // a4 is what differs, and nothing else.
    let [right, mut wrong] = found.harts.clone().map(|harts| harts[0].clone());
    assert_eq!((right.x[14], wrong.x[14], right.x[19] <= 4), (1, 0, true), "{}", found.text);
    wrong.x[14] = 1;
    assert_eq!(right, wrong);
    for text in ["sltiu", "x14", "Host code", "* x14 a4"] {
        assert!(found.text.contains(text), "{text}: {}", found.text);
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("report.txt")).unwrap(), found.text);

    let (summary, again) = reproduce(&found, &options);
    assert!(summary.insns < 2_000, "{}", summary.insns);
    assert_eq!((again.at, again.hart, &again.harts), (found.at, found.hart, &found.harts));
    assert!(shows(&again, COMPARES));
}

#[test]
fn a_wrong_store_is_found_though_nobody_loads_it() {
    let folder = tempfile::tempdir().unwrap();
    let image = around(STORES);
    let make = |io: ConsoleIo| machine(&image, 1, io);
    let options = Options { every: 1_000_000, ..mistaken(store_address, folder.path()) };
    let (_, found) = different(verify(&make, &options, &mut Silent).unwrap());
    assert!(found.isolated && shows(&found, STORES), "{}", found.text);
    assert_eq!(found.at, found.equal + 1);
    let What::Memory(words) = &found.what else { panic!("{}", found.text) };
    let [(gpa, right, wrong)] = words[..] else { panic!("{words:x?}") };
    assert_eq!((gpa, wrong), (RAM + 0x1_0400, RAM + 0x1_0400));
    assert!((1..=0x5000).contains(&right), "{right:#x}");
    let (_, again) = reproduce(&found, &options);
    assert_eq!((again.at, &again.what), (found.at, &found.what));
}

#[test]
fn the_command_tells_by_its_status() {
    let folder = tempfile::tempdir().unwrap();
    // li a0, 3; j -4
    let path = guest(folder.path(), &[0x0030_0513, 0xffdf_f06f]);
    let snapshot = folder.path().join("snapshot");
    let (path, snapshot) = (path.to_str().unwrap(), snapshot.to_str().unwrap());
    let image = [path, "--load-addr", BASE];
    let verify = |args: &[&str]| mimic(&["verify"]).args(args).output().unwrap();
    let output = verify(&[&image[..], &["--max-insns", "1M"]].concat());
    let (status, line) = ending(&output);
    assert_eq!(status, Some(0), "{line}");
    assert!(line.starts_with("mimic: equal: 1 000 000 instructions and 1 000 rounds"), "{line}");
    // A machine that runs by the host's time cannot be run twice.
    let save = ["snapshot", "save", snapshot, "--at", "insns=5000"];
    assert!(mimic(&[&save, &image[..]].concat()).output().unwrap().status.success());
    let (status, line) = ending(&verify(&["--snapshot", snapshot, "--max-insns", "1M"]));
    assert_eq!(status, Some(126), "{line}");
    assert!(line.contains("not deterministic"), "{line}");
}

#[test]
fn both_machines_are_typed_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = guest(folder.path(), ECHOES);
    let image = [path.to_str().unwrap(), "--load-addr", BASE];
    let rounds = ["--max-rounds", "8000", "--every", "1M"];
    // `?` is printed back, which is when the line follows.
    let typed = ["--type-at", r"3=a\tb?", "--prompt", "?", "--type", "line"];
    let output = mimic(&["verify"]).args(image).args(rounds).args(typed).output().unwrap();
    let (status, line) = ending(&output);
    assert_eq!(status, Some(0), "{line}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a\tb?line\n");
}

#[test]
fn the_engines_boot_debian_alike() {
    if std::env::var_os("MIMIC_SKIP_DEBIAN").is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let reproducer = folder.path().join("reproducer");
    let limits = ["--max-insns", "50M", "--every", "10M", "--quiet", "--reproducer"];
    let output =
        mimic(&["verify", "debian-riscv64"]).args(limits).arg(&reproducer).output().unwrap();
    let (status, line) = ending(&output);
    assert_eq!(status, Some(0), "{line}\n{}", String::from_utf8_lossy(&output.stdout));
    assert!(line.starts_with("mimic: equal: 50 000 000 instructions"), "{line}");
}
