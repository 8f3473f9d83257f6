//! Debian's kernel to a shell: fetched, booted, talked to, powered off.
//!
//! Needs apt and a mirror when the cache is empty, and fails without them: a skipped test would hide
//! that the boot is not tested. `MIMIC_SKIP_DEBIAN=1` leaves it out.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::io::{Read, Write};
use std::process::{ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::mimic;

const BOOT_PATIENCE: Duration = Duration::from_secs(180);
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

struct Console {
    stdin: ChildStdin,
    text: Arc<Mutex<String>>,
    /// How much of the text was looked at.
    seen: usize,
}

impl Console {
    /// Waits for `text` behind what was seen before, and returns what came up to its end.
    fn expect(&mut self, text: &str, patience: Duration) -> String {
        let start = Instant::now();
        loop {
            let all = self.text.lock().unwrap().clone();
            if let Some(at) = all[self.seen..].find(text) {
                let end = self.seen + at + text.len();
                let found = all[self.seen..end].to_owned();
                self.seen = end;
                return found;
            }
            assert!(start.elapsed() < patience, "no {text:?} in: {}", &all[self.seen..]);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types a command and returns what came before the mark that it ends with.
    fn ask(&mut self, command: &str) -> String {
        // The mark is put together by the shell, so that the echo of the line does not hold it.
        writeln!(self.stdin, "{command}; echo en''d").unwrap();
        self.expect("\nend", ANSWER_PATIENCE)
    }
}

#[test]
fn debian_boots_to_a_shell_that_works() {
    if std::env::var_os("MIMIC_SKIP_DEBIAN").is_some() {
        return;
    }
    let fetched =
        mimic(&["boot", "debian-riscv64", "--fetch-only"]).stdin(Stdio::null()).output().unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));

    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let start = Instant::now();
    let mut child = mimic(&["boot", "debian-riscv64", "--report", report.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = Arc::new(Mutex::new(String::new()));
    let reader = std::thread::spawn({
        let (mut stdout, text) = (child.stdout.take().unwrap(), Arc::clone(&text));
        move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut bytes) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        }
    });
    let mut console = Console { stdin: child.stdin.take().unwrap(), text, seen: 0 };

    console.expect("Welcome to Linux 6.12", BOOT_PATIENCE);
    console.expect("# ", BOOT_PATIENCE);
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
    reader.join().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.trim_end().ends_with("mimic: the guest powered off"), "{stderr}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    println!("whole run: {}", report["stats"]);
}

const SHA256_OF_MIMIC: &str = "cad3272dfaab779ffb997c2698e00f861ed76a02fc951c4039efe4136ba27d9f";
