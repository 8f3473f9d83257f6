//! The firmware on an outside machine, QEMU's `virt`, and the check guest on outside firmware,
//! OpenSBI. Ignored unless asked for, since a fresh machine has no QEMU:
//!
//! `cargo test -p mimic-firmware --test qemu -- --ignored`

use mimic_firmware::riscv::sbi::{IMPLEMENTATION_ID, SbiConfig, sbi};
use mimic_firmware::riscv::sbi_check::{SbiCheckConfig, sbi_check};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Harts as ours are: no hypervisor extension.
const CPU: &str = "rv64,h=false";
/// The guest's timer is M-mode's.
const CPU_WITHOUT_SSTC: &str = "rv64,h=false,sstc=false";
/// `rdtime` traps.
const CPU_WITHOUT_ZICNTR: &str = "rv64,h=false,zicntr=false";
/// Neither `menvcfg` nor `mcountinhibit`.
const OLD_CPU: &str = "rv64,h=false,priv_spec=v1.10.0";

fn check(harts: u32, implementation: Option<u32>) -> Vec<u8> {
    let config = SbiConfig::default();
    sbi_check(&SbiCheckConfig {
        base: config.next_addr,
        harts,
        firmware: config.base,
        nowhere: 0x1800_0000,
        timebase: 10_000_000,
        implementation,
    })
}

fn firmware(config: &SbiConfig) -> Vec<u8> {
    sbi(config).unwrap().bytes
}

/// Runs QEMU for a minute at most: exit status and console output. `bios` = None: QEMU's OpenSBI.
fn qemu(test: &str, cpu: &str, harts: u32, bios: Option<&[u8]>, kernel: &[u8]) -> (i32, String) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let output = folder.join("output");
    let mut command = Command::new("qemu-system-riscv64");
    command.args(["-M", "virt", "-m", "128", "-nographic", "-monitor", "none", "-no-reboot"]);
    command.args(["-cpu", cpu, "-smp", &harts.to_string()]);
    command.arg("-kernel").arg(file("kernel.bin", kernel));
    if let Some(bios) = bios {
        command.arg("-bios").arg(file("bios.bin", bios));
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&output).unwrap())
        .spawn()
        .expect("qemu-system-riscv64 must be installed for this test");
    let limit = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code().unwrap_or(-1);
        }
        if Instant::now() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            break -1;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    (status, String::from_utf8_lossy(&std::fs::read(output).unwrap()).into_owned())
}

#[test]
#[ignore = "needs qemu-system-riscv64"]
fn our_sbi_passes_every_check() {
    for (harts, cpu) in
        [(1, CPU), (2, CPU), (4, CPU), (2, CPU_WITHOUT_SSTC), (2, CPU_WITHOUT_ZICNTR), (2, OLD_CPU)]
    {
        let bios = firmware(&SbiConfig { harts, ..SbiConfig::default() });
        let kernel = check(harts, Some(IMPLEMENTATION_ID));
        let (status, output) = qemu("ours", cpu, harts, Some(&bios), &kernel);
        assert!(output.contains(", failed 0\n"), "{harts} harts, {cpu}: {status}\n{output}");
        assert_eq!(status, 0);
    }
}

/// The expectations against an implementation we did not write. The failures named here are
/// where OpenSBI departs from the specification's text; see `sbi_check`.
#[test]
#[ignore = "needs qemu-system-riscv64"]
fn opensbi_fails_only_where_it_departs_from_the_specification() {
    let known = [
        "FAIL ipi: no such hart: found 0,",
        "FAIL ipi: some hart beyond the last: found 0,",
        "FAIL fence.i: no such hart: found 0,",
        "FAIL sfence.vma: no such hart: found 0,",
        "FAIL console_write: upper address: found ffffffffffffffff,",
        "FAIL legacy clear_ipi: one was pending: found 0,",
        "FAIL console_read: upper address: found ffffffffffffffff,",
    ];
    for harts in [1, 2] {
        let (status, output) = qemu("opensbi", CPU, harts, None, &check(harts, None));
        assert!(output.contains("sbi-check: checks "), "{status}\n{output}");
        for line in output.lines().filter(|line| line.contains("FAIL")) {
            assert!(known.iter().any(|known| line.contains(known)), "{harts} harts: {line}");
        }
    }
}

/// A failed check ends as a system failure, which the finisher turns into the status.
#[test]
#[ignore = "needs qemu-system-riscv64"]
fn a_failed_check_is_reported() {
    let config = SbiConfig { failure_code: 77, ..SbiConfig::default() };
    let kernel = check(1, Some(IMPLEMENTATION_ID + 1));
    let (status, output) = qemu("failure", CPU, 1, Some(&firmware(&config)), &kernel);
    let line = "FAIL implementation id: found 4d494d43, expected 4d494d44\n";
    assert!(output.contains(line), "{output}");
    assert_eq!(status, 77);
}

/// Without a CLINT where the firmware looks for one its first store to it traps.
#[test]
#[ignore = "needs qemu-system-riscv64"]
fn a_trap_of_the_firmware_is_reported() {
    let config = SbiConfig { clint: 0x1800_0000, trap_code: 78, ..SbiConfig::default() };
    let bios = firmware(&config);
    let (status, output) = qemu("trap", CPU, 1, Some(&bios), &check(1, None));
    assert!(output.contains("trap in M-mode: mcause 0000000000000007"), "{output}");
    assert!(output.contains("mtval 0000000018000000, hart 0000000000000000\n"), "{output}");
    assert_eq!(status, 78);
}
