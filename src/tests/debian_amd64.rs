//! Debian's x86-64 kernel to a shell: fetched, booted by interpretation, talked to, powered off and reset.
//!
//! Needs apt and a mirror when the cache is empty, and fails without them: a skipped test would hide
//! that the boot is not tested. `MIMIC_SKIP_DEBIAN=1` leaves it out.

mod console;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use console::{Console, print_stats, start_guest};
use support::{Program, mimic};

/// The kernel said nothing that it takes for wrong.
fn content(console: &mut Console) {
    let words =
        "dmesg | grep -iE 'warning|bug:|error|unstable|call trace|lockup' | grep -v 'RAS: C'";
    let complaints = console.ask(words);
    assert_eq!(complaints.lines().filter(|line| line.starts_with('[')).count(), 0, "{complaints}");
}

#[test]
fn debian_boots_on_the_pc_and_powers_off() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let started = start_guest("debian-amd64", &["--report", report.to_str().unwrap()]);
    let Some((child, mut console)) = started else { return };
    assert!(console.ask("uname -m").contains("\nx86_64"));
    assert!(console.ask("tty").contains("/dev/ttyS0"), "the shell has a controlling terminal");
    content(&mut console);
    console.checks_a_sum();
    let clock = console.ask("cat /sys/devices/system/clocksource/clocksource0/current_clocksource");
    assert!(clock.contains("\ntsc"), "{clock}");
    // The host bridge, the ISA bridge and power management of boards.md.
    let functions = console.ask("cat /sys/bus/pci/devices/*/vendor /sys/bus/pci/devices/*/device");
    for id in ["0x8086", "0x1237", "0x7000", "0x7113"] {
        assert!(functions.contains(id), "{functions}");
    }
    console.checks_the_clock();
    // Suspended to memory, it is woken by its clock, and goes on.
    let alarm = "echo +3 >/sys/class/rtc/rtc0/wakealarm; echo mem >/sys/power/state";
    let before = Instant::now();
    console.ask(alarm);
    assert!(before.elapsed() >= Duration::from_secs(1), "it did not sleep");
    let log = console.ask("dmesg | grep -E 'PM: suspend (entry|exit)'");
    assert!(log.contains("PM: suspend entry (deep)") && log.contains("PM: suspend exit"), "{log}");
    content(&mut console);

    console.powers_off(child);
    print_stats(&report);
}

/// The board without PCI: its disk and console are found by ACPI alone, which switches it off, too.
#[test]
fn debian_boots_on_the_microvm_and_powers_off() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let arguments = ["--machine", "microvm", "--cpus", "2", "--disk", disk.to_str().unwrap()];
    let Some((child, mut console)) = start_guest("debian-amd64", &arguments) else { return };
    assert!(console.ask("grep -c ^processor /proc/cpuinfo").contains("\n2"));
    let devices = console.ask("ls /sys/bus/pci/devices /dev/vda /dev/hvc0 /dev/rtc0");
    assert!(devices.contains("/dev/hvc0  /dev/rtc0  /dev/vda"), "{devices}");
    assert!(devices.ends_with("/sys/bus/pci/devices:\r\nend"), "{devices}");
    console.ask("echo 'written by the guest' >/dev/vda; sync");
    console.powers_off(child);
    assert!(std::fs::read(disk).unwrap().starts_with(b"written by the guest\n"));
}

#[test]
fn debian_uses_two_processors_and_resets() {
    let arguments = ["--cpus", "2", "--no-reboot"];
    let Some((child, mut console)) = start_guest("debian-amd64", &arguments) else { return };
    assert!(console.ask("grep -c ^processor /proc/cpuinfo").contains("\n2"));
    content(&mut console);
    console.checks_four_sums_at_once();
    writeln!(console.stdin, "reboot").unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("reset"), "{stderr}");
}

#[test]
fn memtest86_tests_memory_on_the_serial_port() {
    if std::env::var_os("MIMIC_SKIP_DEBIAN").is_some() {
        return;
    }
    let fetched = mimic(&["boot", "memtest86", "--fetch-only"]).output().unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let mut command = mimic(&["boot", "memtest86"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Program(command.spawn().unwrap());
    let mut console = Console::of(&mut child);
    console.expect("Memtest86+ v", PATIENCE);
    // The tests before this one are done, and have found nothing. It shows where it is every two seconds: this test lasts
    // many times as long, so that it cannot be missed.
    console.expect("#6  [Moving inversions, 64 bit pattern]", PATIENCE);
    console.expect("[60MB of 6", PATIENCE);
    console.expect("Errors: 0", PATIENCE);
}

const PATIENCE: Duration = Duration::from_secs(120);
