//! Debian's kernel to a shell: fetched, booted, talked to, powered off.
//!
//! Needs apt and a mirror when the cache is empty, and fails without them: a skipped test would hide
//! that the boot is not tested. `MIMIC_SKIP_DEBIAN=1` leaves it out.

mod console;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use console::start_debian;

#[test]
fn debian_boots_to_a_shell_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let start = Instant::now();
    let Some((child, mut console)) = start_debian(&["--report", report.to_str().unwrap()]) else {
        return;
    };
    println!("shell after {:.1} s", start.elapsed().as_secs_f64());
    assert!(console.ask("uname -m").contains("\nriscv64"));
    assert!(console.ask("cat /proc/cpuinfo").contains("rv64imafdc"));
    assert!(console.ask("tty").contains("/dev/ttyS0"), "the shell has a controlling terminal");
    assert!(console.ask("echo $((6 * 7))").contains("\n42"));
    // Computed by coreutils on another machine: printf 'mimic\n' | sha256sum
    let sum = console.ask("echo mimic | sha256sum");
    assert!(sum.contains(SHA256_OF_MIMIC), "{sum}");
    // Time passes, and passes at the right speed.
    let before = Instant::now();
    console.ask("sleep 1");
    let slept = before.elapsed();
    assert!(slept >= Duration::from_millis(900) && slept < Duration::from_secs(10), "{slept:?}");
    // Ctrl-C interrupts what runs in the foreground.
    writeln!(console.stdin, "sleep 1000").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    console.stdin.write_all(b"\x03").unwrap();
    assert!(console.ask("echo status $?").contains("status 130"));

    writeln!(console.stdin, "poweroff").unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.trim_end().ends_with("mimic: the guest powered off"), "{stderr}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    println!("whole run: {}", report["stats"]);
}

#[test]
fn debian_uses_four_harts() {
    let Some((child, mut console)) = start_debian(&["--cpus", "4"]) else { return };
    assert!(console.ask("grep -c ^processor /proc/cpuinfo").contains("\n4"));
    // Work on all of them at once, and the answers come together.
    let sums = console.ask("for i in 1 2 3 4; do (seq 1 20000 | sha256sum) & done; wait");
    // seq 1 20000 | sha256sum, by coreutils on another machine.
    assert_eq!(sums.matches(SHA256_OF_20000_NUMBERS).count(), 4, "{sums}");
    writeln!(console.stdin, "poweroff").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn debian_finds_its_devices_on_pci() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    std::fs::write(&image, vec![b'm'; 1 << 20]).unwrap();
    let arguments = ["--disk", image.to_str().unwrap()];
    let Some((child, mut console)) = start_debian(&arguments) else { return };
    // VIRTIO 1.2, section 4.1.2: 0x1040 + 4 (entropy), 3 (console), 2 (block).
    let functions = console.ask("cat /sys/bus/pci/devices/*/device");
    assert!(functions.contains("0x1044\r\n0x1043\r\n0x1042"), "{functions}");
    assert!(console.ask("head -c 3 /dev/vda; echo").contains("mmm"));
    let sum = console.ask(
        "printf 'mimic\\n' | dd of=/dev/vda 2>/dev/null; sync; head -c 6 /dev/vda | sha256sum",
    );
    assert!(sum.contains(SHA256_OF_MIMIC), "{sum}");
    writeln!(console.stdin, "poweroff").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(&image).unwrap().starts_with(b"mimic\nmm"));
}

const SHA256_OF_20000_NUMBERS: &str =
    "f6351f5ead9a700e34275480b3856ea738122a7c57bdeb744a631251c069587a";
const SHA256_OF_MIMIC: &str = "cad3272dfaab779ffb997c2698e00f861ed76a02fc951c4039efe4136ba27d9f";
