//! The program without a terminal: files, messages, statuses, pipes.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Output, Stdio};
use std::time::Duration;

use support::{
    BASE, ECHOES, FAILS_WITH_7, LOOPS, PRINTS_FOR_EVER, Program, RESETS, ending, guest, mimic,
};
use tempfile::TempDir;

fn run(args: &[&str]) -> Output {
    mimic(args).stdin(Stdio::null()).output().unwrap()
}

/// Runs a flat guest with further arguments and no input.
fn run_flat(words: &[u32], args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = guest(folder.path(), words);
    run(&[&["run", path.to_str().unwrap(), "--load-addr", BASE], args].concat())
}

#[test]
fn wrong_command_lines_end_with_126_and_say_what_to_do() {
    for (args, text) in [
        (&["run", "/no/such/file"][..], "no such file"),
        (&["run", "/etc/passwd"], "--load-addr"),
        (&["run", "/bin/sh"], "Linux program"),
        (&["run"], "IMAGE"),
        (&["run", "x", "--mem", "512"], "did you mean 512M?"),
        (&["run", "x", "--mem", "lots"], "512M or 2G"),
        (&["run", "x", "--escape", "a"], "^A to ^Z"),
        (&["run", "x", "--engine", "warp"], "interp"),
        (&["run", "x", "--cpu", "rv32"], "there is rv64"),
        (&["test", "--cpu", "rv64,zba=off"], "svade and sstc can"),
        (&["boot", "demo", "--cpu", "rv64,svade"], "svade=on or svade=off"),
        (&["boot", "debian-risc"], "debian-riscv64"),
        (&["boot", "debian-amd6"], "debian-amd64"),
        (&["compare", "debian-amd64", "--engines", "jit"], "no translator for x86-64"),
        (&["compare", "bench-riscv64", "--engines", "kvm"], "x86-64 guests alone"),
        (&["verify", "demo", "--engines", "interp,kvm"], "counts no instructions"),
        (&["boot", "demo", "--engine", "kvm"], "x86-64 guests alone"),
        (&["test", "/no/such/folder"], "/no/such/folder"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(126), "{args:?}: {stderr}");
        assert!(stderr.contains(text), "{args:?}: {stderr}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = guest(folder.path(), LOOPS);
    let output = run(&["run", path.to_str().unwrap(), "--load-addr", BASE, "--cpus", "9"]);
    assert_eq!(output.status.code(), Some(126));
    assert!(ending(&output).1.contains("--cpus 9"), "{}", ending(&output).1);
}

#[test]
fn too_little_memory_is_refused_with_the_amount_needed() {
    // A kernel header that claims 64 MiB.
    let mut image = vec![0u8; 4096];
    image[8..16].copy_from_slice(&(2u64 << 20).to_le_bytes());
    image[16..24].copy_from_slice(&(64u64 << 20).to_le_bytes());
    image[56..60].copy_from_slice(b"RSC\x05");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Image");
    std::fs::write(&path, image).unwrap();
    let output = run(&["run", path.to_str().unwrap(), "--mem", "32M"]);
    let (status, last) = ending(&output);
    assert_eq!(status, Some(126), "{last}");
    assert!(last.contains("32M") && last.contains("--mem 128M"), "{last}");
}

#[test]
fn help_lists_the_commands() {
    let output = run(&["--help"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0));
    for command in ["run", "boot", "test", "compare", "machines", "doctor"] {
        assert!(text.contains(&format!("  {command}")), "{text}");
    }
    for command in [&["machines"][..], &["doctor"], &["boot"]] {
        let output = run(command);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert!(!output.stdout.is_empty(), "{command:?}");
    }
}

#[test]
fn the_guests_failure_is_the_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let output = run_flat(FAILS_WITH_7, &["--stats", "--report", report.to_str().unwrap()]);
    assert_eq!(ending(&output), (Some(7), "mimic: the guest reported failure 7".into()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("instructions"));
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["end"], "fail");
    assert_eq!(report["code"], 7);
    // The fifth instruction may or may not retire before the machine stops.
    assert!(report["stats"]["instructions"].as_u64().unwrap() >= 4);
}

#[test]
fn limits_hold_for_a_guest_that_resets_itself_over_and_over() {
    for limit in [["--timeout", "500ms"], ["--max-insns", "40"]] {
        let output = run_flat(RESETS, &limit);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(ending(&output).0, Some(124), "{text}");
        assert!(text.contains("(reset 2)"), "{text}");
    }
}

#[test]
fn limits_end_a_guest_with_124() {
    let output = run_flat(LOOPS, &["--timeout", "300ms"]);
    assert_eq!(
        ending(&output),
        (Some(124), "mimic: the time limit was reached (--timeout)".into())
    );
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let output = run_flat(LOOPS, &["--max-insns", "1M", "--report", report.to_str().unwrap()]);
    assert_eq!(ending(&output).0, Some(124));
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["stats"]["instructions"], 1_000_000, "counts are exact");
}

/// Ends with bit 61 of `menvcfg` (0x30a), ADUE, plus 2 as the finisher's failure code.
const TELLS_ADUE: &[u32] = &[
    0x30a0_2373, // csrr  t1, menvcfg
    0x03d3_5313, // srli  t1, t1, 61
    0x0013_7313, // andi  t1, t1, 1
    0x0023_0313, // addi  t1, t1, 2
    0x0103_1313, // slli  t1, t1, 16
    0x0000_32b7, // lui   t0, 3
    0x3332_8293, // addi  t0, t0, 0x333
    0x0053_6333, // or    t1, t1, t0
    0x0010_02b7, // lui   t0, 0x100
    0x0062_a023, // sw    t1, 0(t0)
    0x0000_006f, // j     .
];

#[test]
fn the_cpu_model_reaches_the_guest_and_its_snapshot() {
    let code = |args: &[&str]| ending(&run_flat(TELLS_ADUE, args)).0;
    assert_eq!(code(&[]), Some(2));
    assert_eq!(code(&["--cpu", "rv64,svade=off"]), Some(3));
    assert_eq!(code(&["--cpu", "rv64,svade=on,sstc=off"]), Some(2));

    let folder = tempfile::tempdir().unwrap();
    let path = guest(folder.path(), TELLS_ADUE);
    let snapshot = folder.path().join("snapshot");
    let snapshot = snapshot.to_str().unwrap();
    let model = ["--load-addr", BASE, "--cpu", "rv64,svade=off,sstc=off"];
    let save = ["snapshot", "save", snapshot, "--at", "insns=2", path.to_str().unwrap()];
    assert_eq!(run(&[&save, &model[..]].concat()).status.code(), Some(0));
    let info = run(&["snapshot", "info", snapshot]);
    let info = String::from_utf8_lossy(&info.stdout);
    assert!(info.contains("1 hart (rv64,svade=off,sstc=off)"), "{info}");
    assert_eq!(run(&["snapshot", "load", snapshot]).status.code(), Some(3));

    let cpus = run(&["cpus"]);
    let cpus = String::from_utf8_lossy(&cpus.stdout);
    assert!(
        ["rv64: rv64imafdc_", "svade", "sstc", "x86-64-v3", "smap", "phys-bits"]
            .iter()
            .all(|word| cpus.contains(word)),
        "{cpus}"
    );
}

#[test]
fn a_silent_guest_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = guest(folder.path(), LOOPS);
    let args = ["run", path.to_str().unwrap(), "--load-addr", BASE, "--timeout", "60s"];
    let mut child = Program(
        mimic(&[&args[..], &["--silence", "200ms"]].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut stderr = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    // The last line of the message, or the end of the run.
    while !stderr.contains("16550A") && lines.read_line(&mut stderr).unwrap() > 0 {}
    assert!(stderr.contains("has printed nothing") && stderr.contains("0x80000000"), "{stderr}");
    assert!(stderr.contains("16550A"), "{stderr}");
}

#[test]
fn a_guest_that_prints_is_not_called_silent() {
    let called_silent = |(patience, limit): (&str, &str)| {
        let output = run_flat(PRINTS_FOR_EVER, &["--silence", patience, "--timeout", limit]);
        String::from_utf8_lossy(&output.stderr).contains("has printed nothing")
    };
    // A busy host may need more patience until the guest has printed anything.
    let tries = [("200ms", "500ms"), ("2s", "3s"), ("20s", "25s")];
    assert!(!tries.into_iter().all(called_silent));
}

/// Starts a guest that sends back what it reads. It is stopped if nothing comes for long.
fn start_echo(folder: &TempDir, stdin: Stdio) -> Program {
    let path = guest(folder.path(), ECHOES);
    let args = ["run", path.to_str().unwrap(), "--load-addr", BASE, "--timeout", "60s"];
    let child = mimic(&args).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    Program(child.unwrap())
}

/// The next `len` bytes that a program prints, fewer if it ends before.
fn printed(program: &mut Program, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    program.stdout.as_mut().unwrap().take(len as u64).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn input_from_a_pipe_reaches_the_guest_and_its_end_leaves_it_running() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start_echo(&folder, Stdio::piped());
    // Longer than the serial port's queue, and with the escape key, which is a byte like any other.
    let mut sent: Vec<u8> = (0..20_000u32).map(|n| (n % 253) as u8).collect();
    sent.extend(b"\x01x\x03");
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || stdin.write_all(&sent)
    });
    let echoed = printed(&mut child, sent.len());
    assert!(echoed == sent, "{} of {} bytes came back", echoed.len(), sent.len());
    writer.join().unwrap().unwrap();
    // The end has come now. What it does wrong may take a moment.
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "it still runs");
    child.kill().unwrap();
    assert_eq!(printed(&mut child, 1), b"", "nothing else is printed");
}

#[test]
fn input_from_a_file_reaches_the_guest() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "from a file").unwrap();
    let mut child = start_echo(&folder, std::fs::File::open(text).unwrap().into());
    assert_eq!(printed(&mut child, b"from a file".len()), b"from a file");
    child.kill().unwrap();
    assert_eq!(printed(&mut child, 1), b"", "nothing else is printed");
}

#[test]
fn a_reader_that_goes_away_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = guest(folder.path(), PRINTS_FOR_EVER);
    let mut child =
        mimic(&["run", path.to_str().unwrap(), "--load-addr", BASE, "--timeout", "60s"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let (status, last) = ending(&child.wait_with_output().unwrap());
    assert_eq!(status, Some(125));
    assert!(last.contains("reader of stdout has gone"), "{last}");
}

#[test]
fn a_full_disk_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = guest(folder.path(), PRINTS_FOR_EVER);
    let output = mimic(&["run", path.to_str().unwrap(), "--load-addr", BASE, "--timeout", "60s"])
        .stdin(Stdio::null())
        .stdout(std::fs::File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    let (status, last) = ending(&output);
    assert_eq!(status, Some(125));
    assert!(last.contains("full"), "{last}");
}

#[test]
fn the_demo_passes_its_own_checks() {
    let output =
        mimic(&["boot", "demo", "--timeout", "60s"]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("All 9 checks passed"), "{text}");
    assert_eq!(ending(&output).0, Some(0), "{text}");
}

#[test]
fn without_apt_the_message_says_what_to_provide_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let output = mimic(&["boot", "debian-riscv64", "--fetch-only"])
        .env("XDG_CACHE_HOME", folder.path())
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    let place = folder.path().join("mimic/guests/debian-riscv64/linux");
    assert!(stderr.contains(place.to_str().unwrap()), "{stderr}");
    assert!(stderr.contains("apt-get") && stderr.contains("--from DIR"), "{stderr}");
}

#[test]
fn test_runs_named_roms_and_reports() {
    let folder = tempfile::tempdir().unwrap();
    let roms = folder.path().join("roms");
    std::fs::create_dir(&roms).unwrap();
    for name in ["rv64/i", "rv64/m"] {
        let rom = mimic_test_roms::find(name).unwrap();
        std::fs::write(roms.join(name.replace('/', "-")), rom.build()).unwrap();
    }
    std::fs::write(roms.join("notes.txt"), "not a guest").unwrap();
    let (junit, json) = (folder.path().join("junit.xml"), folder.path().join("out.json"));
    let args = |path: &str| {
        let files = ["--junit", junit.to_str().unwrap(), "--json", json.to_str().unwrap()];
        run(&[&["test", path][..], &files].concat())
    };
    let output = args(roms.to_str().unwrap());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("2 of 2 passed"), "{text}");
    assert!(std::fs::read_to_string(&junit).unwrap().contains("tests=\"2\""));

    // A file that is named counts, whatever it is.
    let output = args(roms.join("notes.txt").to_str().unwrap());
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(json["tests"][0]["result"], "error");
}
