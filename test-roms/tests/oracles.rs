//! Runs the ROMs on simulators that are not ours. Ignored by default, since it needs them in PATH:
//! `cargo test -p mimic-test-roms -- --ignored`. A simulator that is absent is skipped by name.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mimic_test_roms::{Kind, Oracle, Rom, roms};

const SPIKE_ISA: &str = "--isa=rv64gc_zicclsm_zba_zbb_zbc_zbs_zcb_zicond_zicbom_zicboz_zicbop_zawrs\
    _zfa_zfhmin_svinval_svnapot_svpbmt_sstc_zicntr_zihpm_svadu";
const QEMU_CPU: &str = "rv64,h=off,zba=on,zbb=on,zbc=on,zbs=on,zcb=on,zicond=on,zicbom=on,zicboz=on,\
    zicbop=on,zawrs=on,zfa=on,zfhmin=on,svinval=on,svnapot=on,svpbmt=on,sstc=on,svadu=on,sv57=on,\
    zicntr=on,zihpm=on,pmp=on";

/// The PC: its status is `(n << 1) | 1` for a word n at isa-debug-exit, of which 0 means pass.
fn pc(harts: u32, elf: &Path) -> Command {
    let mut c = Command::new("qemu-system-x86_64");
    c.args(["-accel", "tcg", "-cpu", "max", "-display", "none", "-monitor", "none", "-no-reboot"]);
    c.args(["-serial", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    c.args(["-device", "pc-testdev", "-smp", &harts.to_string(), "-kernel"]).arg(elf);
    c
}

fn command(oracle: Oracle, name: &str, harts: u32, elf: &Path) -> Command {
    match oracle {
        Oracle::Qemu if name.starts_with("x86/") => pc(harts, elf),
        Oracle::Spike => {
            let mut c = Command::new("spike");
            c.args([&format!("-p{harts}"), SPIKE_ISA]).arg(elf);
            c
        }
        Oracle::Qemu => {
            let mut c = Command::new("qemu-system-riscv64");
            c.args(["-M", "virt", "-bios", "none", "-nographic", "-monitor", "none"]);
            c.args(["-serial", "none", "-cpu", QEMU_CPU, "-smp", &harts.to_string(), "-kernel"]);
            c.arg(elf);
            c
        }
    }
}

fn present(oracle: Oracle) -> bool {
    let flag = if oracle == Oracle::Qemu { "--version" } else { "--help" };
    let mut c = command(oracle, "rv64/i", 1, Path::new("none"));
    let found = Command::new(c.get_program())
        .arg(flag)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    c.stdin(Stdio::null());
    if !found {
        eprintln!("{oracle:?} is not in PATH: skipped");
    }
    found
}

/// Runs an ELF file; the exit status, or none after `limit`.
fn run(oracle: Oracle, rom: &Rom, elf: &[u8], limit: Duration) -> Option<i32> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("rom.elf");
    std::fs::write(&path, elf).expect("the ROM can be written");
    let mut child = command(oracle, rom.name, rom.harts, &path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the simulator starts");
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait().expect("the simulator can be waited for") {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("the simulator can be stopped");
    child.wait().expect("the simulator can be waited for");
    None
}

fn verify(oracle: Oracle, wanted: impl Fn(&Rom) -> bool) {
    if !present(oracle) {
        return;
    }
    let mut failed = Vec::new();
    for rom in roms().iter().filter(|r| wanted(r) && r.verified.contains(&oracle)) {
        let status = run(oracle, rom, &rom.build(), Duration::from_secs(300));
        println!("{oracle:?} {}: {status:?}", rom.name);
        let pass = if rom.name.starts_with("x86/") { 1 } else { 0 };
        if status != Some(pass) {
            failed.push((rom.name, status));
        }
    }
    assert!(failed.is_empty(), "{oracle:?}: {failed:?}");
}

#[test]
#[ignore = "needs spike in PATH"]
fn conformance_roms_pass_on_spike() {
    verify(Oracle::Spike, |r| r.kind == Kind::Conformance);
}

#[test]
#[ignore = "needs qemu-system-riscv64 in PATH"]
fn conformance_roms_pass_on_qemu() {
    verify(Oracle::Qemu, |r| r.kind == Kind::Conformance);
}

#[test]
#[ignore = "needs qemu-system-riscv64 in PATH; takes a minute"]
fn benchmarks_pass_on_qemu() {
    verify(Oracle::Qemu, |r| r.kind == Kind::Benchmark);
}

#[test]
#[ignore = "needs spike in PATH; takes minutes"]
fn benchmarks_pass_on_spike() {
    verify(Oracle::Spike, |r| r.kind == Kind::Benchmark);
}

/// A wrong expectation must be seen: the report path itself is under test here.
#[test]
#[ignore = "needs a simulator in PATH"]
fn a_wrong_expectation_fails_with_its_case_number() {
    let rom = mimic_test_roms::find("rv64/m").expect("rv64/m exists");
    let mut elf = rom.build();
    let (data, row) = {
        let parsed = goblin::elf::Elf::parse(&elf).expect("a ROM is an ELF file");
        let data = parsed.program_headers.iter().find(|p| p.p_vaddr == 0x8020_0000);
        // Operand tables start 0x200 into the data; rows are [a, b, result]. Row 4 = case 5.
        (data.expect("a ROM has data").p_offset as usize, 4)
    };
    elf[data + 0x200 + row * 24 + 16] ^= 1;
    for oracle in [Oracle::Spike, Oracle::Qemu] {
        if present(oracle) {
            let status = run(oracle, rom, &elf, Duration::from_secs(20));
            assert_eq!(status, Some(5), "{oracle:?}");
        }
    }
}
