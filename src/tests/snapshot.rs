//! Deterministic runs, and machines that are saved and go on in another process.
//!
//! `MIMIC_SNAPSHOT_POINTS` says at how many random points each guest is stopped (10 unless told otherwise).

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;
mod unfenced;

use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use mimic::board::virt;
use mimic_cpu::riscv::TIMEBASE_HZ;
use mimic_firmware::riscv::sbi;
use mimic_firmware::riscv::sbi_check::{SbiCheckConfig, sbi_check};
use support::{BASE, ECHOES, LOOPS, ending, guest, mimic};

/// A guest, and the instructions after which its runs are compared.
struct Guest {
    args: Vec<String>,
    insns: u64,
}

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|&arg| arg.to_owned()).collect()
}

/// The SBI's test on `harts` harts: timers, interrupts between harts, harts that start and stop.
fn sbi_guest(folder: &Path, harts: u32) -> Guest {
    let base = virt::RAM_BASE + (2 << 20);
    let bytes = sbi_check(&SbiCheckConfig {
        base,
        harts,
        firmware: virt::RAM_BASE,
        nowhere: 0x7000_0000,
        timebase: TIMEBASE_HZ,
        implementation: Some(sbi::IMPLEMENTATION_ID),
    });
    let path = folder.join(format!("sbi-{harts}.bin"));
    std::fs::write(&path, bytes).unwrap();
    let (path, base, harts) = (path.to_str().unwrap(), format!("{base:#x}"), harts.to_string());
    let args = ["run", path, "--load-addr", &base, "--firmware", "builtin", "--cpus", &harts];
    Guest { args: strings(&args), insns: SBI_INSNS }
}

/// Shortly before the test powers the machine off.
const SBI_INSNS: u64 = 400_000;

/// A ROM, stopped before its end.
fn rom_guest(folder: &Path, name: &str, insns: u64) -> Guest {
    let path = folder.join(name.replace('/', "-"));
    std::fs::write(&path, mimic_test_roms::find(name).unwrap().build()).unwrap();
    Guest { args: strings(&["run", path.to_str().unwrap()]), insns }
}

/// A guest whose harts keep neither translations nor code longer than they are right, because it has no
/// fences.
fn unfenced_guest(folder: &Path, harts: u32) -> Guest {
    let path = folder.join("unfenced.bin");
    std::fs::write(&path, unfenced::unfenced()).unwrap();
    let (path, base, harts) =
        (path.to_str().unwrap(), unfenced::BASE.to_string(), harts.to_string());
    let args = ["run", path, "--load-addr", &base, "--firmware", "none", "--cpus", &harts];
    Guest { args: strings(&args), insns: 50_000 }
}

fn small_guests(folder: &Path) -> Vec<Guest> {
    vec![
        sbi_guest(folder, 1),
        sbi_guest(folder, 2),
        rom_guest(folder, "rv64/interrupts", 2_000),
        rom_guest(folder, "rv64/paging", 5_000),
        unfenced_guest(folder, 1),
        unfenced_guest(folder, 2),
    ]
}

/// Debian's kernel on 1 and 2 harts, if it is there already.
fn debian(insns: u64) -> Vec<Guest> {
    let fetched = mimic(&["boot"]).output().unwrap();
    let text = String::from_utf8_lossy(&fetched.stdout).into_owned();
    let ready =
        text.lines().any(|line| line.contains("debian-riscv64 ") && line.contains("(fetched)"));
    if !ready {
        return Vec::new();
    }
    let boot = |harts| strings(&["boot", "debian-riscv64", "--cpus", harts]);
    ["1", "2"].map(|harts| Guest { args: boot(harts), insns }).into()
}

fn output(args: &[String], more: &[&str]) -> Output {
    mimic(&[]).args(args).args(more).stdin(Stdio::null()).output().unwrap()
}

/// The hash that a run printed.
fn hash(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let hash = stderr.lines().find_map(|line| line.strip_prefix("mimic: state hash "));
    hash.unwrap_or_else(|| panic!("no hash: {stderr}")).to_owned()
}

/// The hash of a guest after so many instructions.
fn hash_at(guest: &Guest, insns: u64) -> String {
    let insns = insns.to_string();
    let output = output(&guest.args, &["--deterministic", "--state-hash", "--max-insns", &insns]);
    assert_eq!(output.status.code(), Some(124), "{:?} did not reach {insns}", guest.args);
    hash(&output)
}

/// Runs `f` while every core of the host is busy, twice over.
fn on_a_busy_host<R>(f: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..2 * cores {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = f();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn deterministic_runs_are_equal_on_a_busy_host_too() {
    let folder = tempfile::tempdir().unwrap();
    for guest in small_guests(folder.path()).iter().chain(&debian(100_000_000)) {
        let first = hash_at(guest, guest.insns);
        assert_eq!(hash_at(guest, guest.insns), first, "{:?}", guest.args);
        let busy = on_a_busy_host(|| hash_at(guest, guest.insns));
        assert_eq!(busy, first, "{:?} on a busy host", guest.args);
        assert_ne!(hash_at(guest, guest.insns - 1), first, "one instruction less is another state");
    }
}

/// Numbers that differ from run to run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }
}

#[test]
fn a_saved_machine_goes_on_as_if_it_had_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let points = std::env::var("MIMIC_SNAPSHOT_POINTS").map_or(10, |n| n.parse().unwrap());
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut random = Random(seed);
    let file = folder.path().join("snapshot");
    let file = file.to_str().unwrap();
    for guest in small_guests(folder.path()).iter().chain(&debian(50_000_000)) {
        let expected = hash_at(guest, guest.insns);
        for _ in 0..points {
            let at = 1 + random.below(guest.insns - 1);
            let save = ["--deterministic", "--save-at-limit", file, "--max-insns", &at.to_string()];
            let saved = output(&guest.args, &save);
            assert_eq!(saved.status.code(), Some(124), "{}", ending(&saved).1);
            let rest = (guest.insns - at).to_string();
            let load = ["snapshot", "load", file, "--state-hash", "--max-insns", &rest];
            let went_on = hash(&output(&strings(&load), &[]));
            assert_eq!(went_on, expected, "{:?} stopped at {at} (seed {seed})", guest.args);
        }
    }
}

#[test]
fn snapshots_are_saved_described_and_loaded_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let image = guest(folder.path(), LOOPS);
    let file = folder.path().join("loops.snapshot");
    let (image, file) = (image.to_str().unwrap(), file.to_str().unwrap());
    let guest = [image, "--load-addr", BASE, "--mem", "1M"];
    let save =
        |more: &[&str]| output(&strings(&["snapshot", "save", file]), &[&guest, more].concat());
    let saved = save(&["--deterministic", "--at", "insns=12345"]);
    assert_eq!(saved.status.code(), Some(0), "{}", ending(&saved).1);
    let info = output(&strings(&["snapshot", "info", file]), &[]);
    let text = String::from_utf8_lossy(&info.stdout).into_owned();
    for part in [
        "board virt",
        "1M of memory",
        "1 hart (rv64)",
        "12 345 instructions",
        "M-mode at 0x80000000",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let load = ["snapshot", "load", file, "--max-insns", "1", "--stats"];
    let loaded = output(&strings(&load), &[]);
    assert_eq!(loaded.status.code(), Some(124), "{}", ending(&loaded).1);

    // A snapshot that cannot be written leaves what was there, and nothing else.
    let taken = folder.path().join("folder");
    std::fs::create_dir(&taken).unwrap();
    let taken = taken.to_str().unwrap();
    let failed = output(&strings(&["snapshot", "save", taken, "--at", "insns=99"]), &guest);
    assert_eq!(failed.status.code(), Some(125), "{}", ending(&failed).1);
    assert!(ending(&failed).1.contains(taken), "{}", ending(&failed).1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "no other file is left");
}

#[test]
fn files_that_are_no_whole_snapshot_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let image = guest(folder.path(), ECHOES);
    let file = folder.path().join("snapshot");
    let (image, name) = (image.to_str().unwrap(), file.to_str().unwrap());
    let save = ["snapshot", "save", name, "--at", "insns=100", image, "--load-addr", BASE];
    assert_eq!(output(&strings(&save), &[]).status.code(), Some(0));
    let whole = std::fs::read(&file).unwrap();
    let refuse = |bytes: &[u8], reason: &str| {
        std::fs::write(&file, bytes).unwrap();
        for command in ["load", "info"] {
            let refused = output(&strings(&["snapshot", command, name]), &[]);
            let (status, last) = ending(&refused);
            assert_eq!(status, Some(126), "{command}: {last}");
            assert!(last.contains(reason), "{command}: {last}");
        }
    };
    refuse(b"", "not a snapshot");
    refuse(b"\x7fELF and so on", "not a snapshot");
    refuse(&whole[..20], "cut off");
    refuse(&whole[..whole.len() - 1], "cut off");
    refuse(&[&whole[..], b"x"].concat(), "damaged");
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    refuse(&changed(8), "format 20, this version of mimic reads format 4");
    refuse(&changed(whole.len() / 2), "damaged");
    let missing = output(&strings(&["snapshot", "load", "/no/such/file"]), &[]);
    assert_eq!(missing.status.code(), Some(125));
    assert!(ending(&missing).1.contains("/no/such/file"));
}
