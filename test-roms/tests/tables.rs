//! The tables of x86 protection against QEMU: ignored by default, since it needs `qemu-system-x86_64` in PATH.
//! Each cell is listed and compared with what is expected; cells where QEMU is known to differ are counted.

use std::process::{Command, Stdio};

use mimic_test_roms::{Rom, roms};

/// Cells in which QEMU 10.0.2 differs from the manual: the heads of `src/x86/tables/expected/NAME.txt` say how.
const KNOWN: &[(&str, usize)] = &[
    ("x86/transfers-32", 360),
    ("x86/selectors-32", 20),
    ("x86/looks-64", 392),
    ("x86/jumps-64", 1400),
    ("x86/returns-64", 1120),
    ("x86/selectors-64", 65),
    ("x86/halves-64", 331),
    ("x86/transfers-compatibility", 2520),
    ("x86/selectors-compatibility", 20),
    ("x86/calls-32", 640),
    ("x86/calls-64", 320),
    ("x86/interrupts-32", 7040),
    ("x86/interrupts-64", 7584),
    ("x86/stacks-32", 24),
    ("x86/switches-32", 400),
    ("x86/tasks-32", 12124),
    ("x86/rights-32", 1546),
    ("x86/rights-pae", 5512),
    ("x86/rights-64", 7432),
    ("x86/levels-32", 732),
    ("x86/levels-pae", 1500),
    ("x86/levels-64", 2674),
    ("x86/v86-instructions", 581),
    ("x86/v86-interrupts", 4040),
    ("x86/v86-entries", 493),
    ("x86/iopl-32", 2454),
    ("x86/iopl-64", 2454),
    ("x86/ports-32", 144),
    ("x86/ports-v86", 144),
    ("x86/ports-64", 144),
    ("x86/switches-16", 972),
    ("x86/tasks-16", 4352),
    ("x86/stacks-16", 28),
    ("x86/fast-32", 5),
    ("x86/fast-compatibility", 5),
    ("x86/fast-64", 754),
    ("x86/fast-32-amd", 77),
    ("x86/fast-compatibility-amd", 192),
    ("x86/fast-64-amd", 672),
    ("x86/rights-57", 5512),
    ("x86/levels-57", 3056),
    ("x86/addresses-32", 2),
    ("x86/addresses-pae", 118),
    ("x86/addresses-64", 194),
    ("x86/addresses-57", 218),
    ("x86/addresses-32-36", 10),
    ("x86/addresses-pae-36", 146),
    ("x86/addresses-64-36", 242),
    ("x86/addresses-64-52", 50),
    ("x86/canonical-48", 319),
    ("x86/canonical-57", 133),
];

/// The processor of a ROM, as QEMU names it.
fn cpu(rom: &Rom) -> String {
    let text = rom.cpu.unwrap_or("x86-64-v3").replace("x86-64-v3", "max");
    text.replace("vendor=intel", "vendor=GenuineIntel").replace("vendor=amd", "vendor=AuthenticAMD")
}

#[test]
#[ignore = "needs qemu-system-x86_64 in PATH"]
fn qemu_lists_what_is_expected() {
    for rom in roms().iter().filter(|rom| rom.is_table()) {
        let folder = tempfile::tempdir().unwrap();
        let (file, listing) = (folder.path().join("rom.elf"), folder.path().join("listing"));
        std::fs::write(&file, rom.build()).unwrap();
        let run = Command::new("qemu-system-x86_64")
            .args([
                "-accel",
                "tcg",
                "-cpu",
                &cpu(rom),
                "-m",
                "64",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-device", "isa-debug-exit,iobase=0xf4", "-append", "list", "-debugcon"])
            .arg(format!("file:{}", listing.display()))
            .arg("-kernel")
            .arg(&file)
            .stdin(Stdio::null())
            .output();
        let Ok(_) = run else {
            eprintln!("qemu-system-x86_64 is not in PATH: skipped");
            return;
        };
        let text = std::fs::read_to_string(&listing).unwrap();
        let differences =
            rom.differences(&text).unwrap_or_else(|why| panic!("{}: {why}", rom.name));
        let known = KNOWN.iter().find(|(name, _)| *name == rom.name).map_or(0, |(_, count)| *count);
        let first: Vec<_> = differences.iter().take(3).collect();
        assert_eq!(differences.len(), known, "{}: {first:?}", rom.name);
    }
}
