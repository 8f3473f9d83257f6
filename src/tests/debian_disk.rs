//! A disk survives the emulator being killed: what the guest has flushed is there afterwards, and the file
//! system is sound.
//!
//! `MIMIC_DISK_ROUNDS` sets how often the emulator is killed, 20 times unless told otherwise (4 on the PC).
//! `MIMIC_SKIP_DEBIAN=1` leaves the test out, as in `debian_boot`. Needs `mke2fs` and `e2fsck`
//! (Debian's package `e2fsprogs`).

mod console;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use console::start_guest;

const ROUNDS: u32 = 20;
/// Fewer where only the way to the same disk is another, and booting takes its time.
const ROUNDS_ON_PC: u32 = 4;

/// Runs a program of e2fsprogs, which may lie outside the PATH of plain users.
fn e2fs(program: &str, arguments: &[&str]) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output =
        Command::new(program).args(arguments).env("PATH", path).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install e2fsprogs"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Numbers between 0 and `below`, the same in every run (a linear congruential generator).
fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

#[test]
fn what_is_flushed_survives_kills() {
    survive_kills("debian-riscv64", ROUNDS, &["pci", "mmio"]);
}

#[test]
fn what_is_flushed_survives_kills_on_the_pc() {
    survive_kills("debian-amd64", ROUNDS_ON_PC, &["pci"]);
}

/// `buses`: the ways to the disk, which take turns.
fn survive_kills(guest: &str, rounds: u32, buses: &[&str]) {
    let rounds = std::env::var("MIMIC_DISK_ROUNDS").map_or(rounds, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    let image = image.to_str().unwrap();
    std::fs::File::create(image).unwrap().set_len(128 << 20).unwrap();
    e2fs("mke2fs", &["-q", "-t", "ext4", image]);

    let mut seed = 1;
    for round in 0..rounds {
        // One processor and two take turns, too.
        let (cpus, bus) = (["1", "2"][round as usize / 2 % 2], buses[round as usize % buses.len()]);
        let arguments = ["--disk", image, "--cpus", cpus, "--virtio", bus];
        let Some((mut child, mut console)) = start_guest(guest, &arguments) else { return };
        let mounted = console.ask("mount /dev/vda /mnt && echo mounted");
        assert!(mounted.contains("\nmounted"), "round {round}: {mounted}");
        // Whatever was flushed before is there, unharmed.
        if round > 0 {
            let checked =
                console.ask("cd /mnt && sha256sum -c sums >/tmp/out && wc -l <sums; cd /");
            assert!(checked.contains(&format!("\n{round}")), "round {round}: {checked}");
        }
        let file =
            format!("head -c {} /dev/urandom >/mnt/f{round}", 20_000 + random(&mut seed, 900_000));
        let written = console.ask(&format!(
            "cd /mnt && {file} && sync && sha256sum f{round} >>sums && sync && echo flushed; cd /"
        ));
        assert!(written.contains("\nflushed"), "round {round}: {written}");
        // More writes are under way when the emulator dies.
        writeln!(console.stdin, "while :; do head -c 300000 /dev/urandom >/mnt/noise; sync; done")
            .unwrap();
        std::thread::sleep(Duration::from_millis(random(&mut seed, 700)));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    let Some((child, mut console)) = start_guest(guest, &["--disk", image]) else { return };
    console.ask("mount /dev/vda /mnt");
    let checked = console.ask("cd /mnt && sha256sum -c sums && echo all good; cd /; umount /mnt");
    assert!(checked.contains("\nall good"), "{checked}");
    writeln!(console.stdin, "poweroff").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    e2fs("e2fsck", &["-f", "-n", image]);
}
