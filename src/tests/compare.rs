//! `mimic compare`: marks, failures, limits, files. Ratios of a busy host are no test.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use support::{BASE, ending, mimic};

/// Prints the text behind it to the serial port and powers off by the test finisher.
const PRINTS: [u32; 13] = [
    0x1000_02b7, // lui   t0, 0x10000
    0x0000_0517, // auipc a0, 0
    0x0305_0513, // addi  a0, a0, 48
    0x0005_4303, // lbu   t1, 0(a0)
    0x0003_0863, // beqz  t1, +16
    0x0062_8023, // sb    t1, 0(t0)
    0x0015_0513, // addi  a0, a0, 1
    0xff1f_f06f, // j     -16
    0x0010_02b7, // lui   t0, 0x100
    0x0000_5337, // lui   t1, 0x5
    0x5553_0313, // addi  t1, t1, 0x555
    0x0062_a023, // sw    t1, 0(t0)
    0x0000_006f, // j     .
];

/// An ELF guest that prints `text`. (ELF-64 object file format 1.5: a header, one segment to load.)
fn prints(folder: &Path, text: &str) -> PathBuf {
    const HEADERS: u64 = 64 + 56;
    let base = u64::from_str_radix(BASE.trim_start_matches("0x"), 16).unwrap();
    let mut code: Vec<u8> = PRINTS.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.extend(text.as_bytes());
    code.push(0);
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2u16, 243].map(u16::to_le_bytes).concat()); // executable, RISC-V
    elf.extend(1u32.to_le_bytes());
    elf.extend([base, 64, 0].map(u64::to_le_bytes).concat()); // entry, program headers, no sections
    elf.extend(0u32.to_le_bytes());
    elf.extend([64u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    elf.extend([1u32, 7].map(u32::to_le_bytes).concat()); // PT_LOAD, RWX
    let size = code.len() as u64;
    elf.extend([HEADERS, base, base, size, size, 8].map(u64::to_le_bytes).concat());
    elf.extend(code);
    let path = folder.join("guest.elf");
    std::fs::write(&path, elf).unwrap();
    path
}

fn compare(guest: &str, args: &[&str]) -> Output {
    mimic(&[&["compare", guest, "--mem", "128M"], args].concat())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn phases_of_two_columns_in_two_rounds() {
    let folder = tempfile::tempdir().unwrap();
    let guest = prints(
        folder.path(),
        "hello\nBOOTED\nSTART int-a\nBENCH int-a\nSTART fp-b\nsome text\nBENCH fp-b\n",
    );
    let (json, svg) = (folder.path().join("out.json"), folder.path().join("out.svg"));
    let files = ["--json", json.to_str().unwrap(), "--svg", svg.to_str().unwrap()];
    let args = [&["--engines", "interp,interp", "--rounds", "2"], &files[..]].concat();
    let output = compare(guest.to_str().unwrap(), &args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("interp#2"), "{text}");
    let json = read_json(&json);
    for column in 0..2 {
        let runs = json["columns"][column]["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2);
        for run in runs {
            let names: Vec<&str> = (run["phases"].as_array().unwrap().iter())
                .map(|phase| phase["name"].as_str().unwrap())
                .collect();
            assert_eq!(names, ["boot", "int-a", "fp-b"]);
            let sum: f64 = (run["phases"].as_array().unwrap().iter())
                .map(|phase| phase["seconds"].as_f64().unwrap())
                .sum();
            let whole = run["whole_run"].as_f64().unwrap();
            assert!(sum > 0.0 && sum <= whole, "{sum} s of {whole} s");
            assert_eq!(run["report"]["end"], "pass");
            // What the process says of itself, and what is seen from outside; it starts before its machine.
            let said = run["report"]["stats"]["cpu_seconds"].as_f64().unwrap();
            assert!(said <= whole && whole < said + 1.0, "{said} s, {whole} s");
        }
    }
    assert_eq!(json["problems"].as_array().unwrap().len(), 0);
    assert!(std::fs::read_to_string(svg).unwrap().contains("fp-b</text>"));
}

#[test]
fn only_some_phases() {
    let folder = tempfile::tempdir().unwrap();
    let guest = prints(
        folder.path(),
        "START int-a\nBENCH int-a\nSTART fp-b\nBENCH fp-b\nSTART c\nBENCH c\n",
    );
    let output = compare(guest.to_str().unwrap(), &["--rounds", "1", "--only", "fp,c"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" fp-b ") && text.contains(" c ") && !text.contains("int-a"), "{text}");
}

#[test]
fn what_fails_is_named_and_the_status_is_1() {
    let folder = tempfile::tempdir().unwrap();
    let guest = prints(
        folder.path(),
        "START a\nFAIL a status 127: no such program\nSTART b\nBENCH b\nSTART c\n",
    );
    let output = compare(guest.to_str().unwrap(), &["--engines", "interp", "--rounds", "1"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for problem in [
        "interp, round 1: a: status 127: no such program",
        "interp, round 1: c: it has begun and not ended",
    ] {
        assert!(text.contains(problem), "{text}");
    }
}

#[test]
fn a_guest_that_fails_or_never_ends_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let guest = prints(folder.path(), "START a\nBENCH a\n");
    let path = guest.to_str().unwrap();
    let mut elf = std::fs::read(&guest).unwrap();
    // Instead of storing to the finisher, it goes on for ever.
    let store = 64 + 56 + 11 * 4;
    elf[store..store + 4].copy_from_slice(&0x0000_006f_u32.to_le_bytes());
    std::fs::write(&guest, &elf).unwrap();
    let args = ["--engines", "interp", "--rounds", "1", "--timeout"];
    let output = compare(path, &[&args[..], &["1s"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("interp, round 1: the run was ended after 1.0 s"), "{text}");

    // An illegal instruction without a handler.
    elf[store..store + 4].fill(0);
    std::fs::write(&guest, &elf).unwrap();
    let output = compare(path, &[&args[..], &["60s"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the guest died"), "{text}");
    assert!(text.lines().any(|line| line.starts_with(" a ")), "what was measured stays: {text}");
}

#[test]
fn a_text_can_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let guest = prints(folder.path(), "Welcome\nlogin: ");
    let args = ["--engines", "interp", "--rounds", "1", "--until"];
    let path = guest.to_str().unwrap();
    let output = compare(path, &[&args[..], &["login:"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(" boot "), "{text}");
    let output = compare(path, &[&args[..], &["password:"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("was not printed"), "{text}");
}

#[test]
fn a_rom_by_name_without_marks() {
    let output = compare("rv64/m", &["--engines", "interp,interp", "--rounds", "1"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(" whole run ") && !text.contains(" boot "), "{text}");
}

#[test]
fn without_qemu_the_message_says_so() {
    let output = mimic(&["compare", "rv64/m", "--qemu"]).env("PATH", "/nowhere").output().unwrap();
    let (status, last) = ending(&output);
    assert_eq!(status, Some(125));
    assert!(last.contains("`qemu-system-riscv64` is not installed"), "{last}");
    for (args, text) in [
        (&["compare", "no-such-guest"][..], "there is no guest"),
        (&["compare", "/no/such/file"], "no such file"),
        (&["compare", "rv64/m", "--engines", "warp"], "interp"),
        (&["compare", "rv64/m", "--rounds", "0"], "--rounds"),
    ] {
        let output = mimic(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(126), "{args:?}: {stderr}");
        assert!(stderr.contains(text), "{args:?}: {stderr}");
    }
}

/// Needs apt and a mirror when the cache is empty, as `debian_boot` does.
#[test]
fn the_workloads_run() {
    if std::env::var_os("MIMIC_SKIP_DEBIAN").is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("out.json");
    let phases = ["int-lua-calls", "int-python-calls", "mem-sysbench", "sys-exec", "fp-explog"];
    let output = mimic(&["compare", "bench-riscv64", "--engines", "interp", "--rounds", "1"])
        .args(["--only", &phases.join(","), "--json", json.to_str().unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let json = read_json(&json);
    let mut names: Vec<&str> = (json["phases"].as_array().unwrap().iter())
        .map(|phase| phase["name"].as_str().unwrap())
        .filter(|name| !["boot", "whole run"].contains(name))
        .collect();
    names.sort_unstable();
    let mut expected = phases;
    expected.sort_unstable();
    assert_eq!(names, expected);
}
