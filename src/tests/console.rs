//! A guest's console, as a test reads it and types into it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::mimic;

/// A shell must answer by then, however busy the host is.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
const BOOT_PATIENCE: Duration = Duration::from_secs(180);

/// Computed by coreutils on another machine: `printf 'mimic\n' | sha256sum`.
pub(crate) const SHA256_OF_MIMIC: &str =
    "cad3272dfaab779ffb997c2698e00f861ed76a02fc951c4039efe4136ba27d9f";
/// `seq 1 20000 | sha256sum`.
pub(crate) const SHA256_OF_20000_NUMBERS: &str =
    "f6351f5ead9a700e34275480b3856ea738122a7c57bdeb744a631251c069587a";

pub(crate) struct Console {
    pub(crate) stdin: ChildStdin,
    text: Arc<Mutex<String>>,
    /// How much of the text was looked at.
    seen: usize,
}

impl Console {
    /// The console of a program whose stdin and stdout are pipes. What it prints is read until it ends.
    pub(crate) fn of(child: &mut Child) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        std::thread::spawn({
            let (mut stdout, text) = (child.stdout.take().unwrap(), Arc::clone(&text));
            move || {
                let mut bytes = [0; 4096];
                while let Ok(n @ 1..) = stdout.read(&mut bytes) {
                    text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
                }
            }
        });
        Console { stdin: child.stdin.take().unwrap(), text, seen: 0 }
    }

    /// Waits for `text` behind what was seen before, and returns what came up to its end.
    pub(crate) fn expect(&mut self, text: &str, patience: Duration) -> String {
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
    pub(crate) fn ask(&mut self, command: &str) -> String {
        // The mark is put together by the shell, so that the echo of the line does not hold it.
        writeln!(self.stdin, "{command}; echo en''d").unwrap();
        self.expect("\nend", ANSWER_PATIENCE)
    }
}

/// What a shell of any of the Debian guests can do.
#[allow(dead_code, reason = "each test program uses a part of it")]
impl Console {
    /// A program computes what it does elsewhere.
    pub(crate) fn checks_a_sum(&mut self) {
        let sum = self.ask("echo mimic | sha256sum");
        assert!(sum.contains(SHA256_OF_MIMIC), "{sum}");
    }

    /// Work on four processors at once, and the answers come together.
    pub(crate) fn checks_four_sums_at_once(&mut self) {
        let sums = self.ask("for i in 1 2 3 4; do (seq 1 20000 | sha256sum) & done; wait");
        assert_eq!(sums.matches(SHA256_OF_20000_NUMBERS).count(), 4, "{sums}");
    }

    /// Time passes, and passes at the right speed.
    pub(crate) fn checks_the_clock(&mut self) {
        let before = Instant::now();
        self.ask("sleep 1");
        let slept = before.elapsed();
        let expected = Duration::from_millis(900)..Duration::from_secs(10);
        assert!(expected.contains(&slept), "{slept:?}");
    }

    /// Powers the guest off; the program ends well and says so. What it has printed on stderr.
    pub(crate) fn powers_off(mut self, child: Child) -> String {
        writeln!(self.stdin, "poweroff").unwrap();
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(stderr.trim_end().ends_with("mimic: the guest powered off"), "{stderr}");
        stderr
    }
}

/// Prints the counters of a report, for who reads the test's output.
#[allow(dead_code, reason = "each test program uses a part of it")]
pub(crate) fn print_stats(report: &Path) {
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    println!("whole run: {}", report["stats"]);
}

/// Starts Debian for RISC-V with these arguments besides, up to its shell; `None` if `MIMIC_SKIP_DEBIAN` is set.
#[allow(dead_code, reason = "each test program uses a part of it")]
pub(crate) fn start_debian(arguments: &[&str]) -> Option<(Child, Console)> {
    start_guest("debian-riscv64", arguments)
}

/// Starts one of the Debian guests with these arguments besides, up to its shell; `None` if `MIMIC_SKIP_DEBIAN` is set.
pub(crate) fn start_guest(guest: &str, arguments: &[&str]) -> Option<(Child, Console)> {
    if std::env::var_os("MIMIC_SKIP_DEBIAN").is_some() {
        return None;
    }
    let fetched = mimic(&["boot", guest, "--fetch-only"]).stdin(Stdio::null()).output().unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let mut command = mimic(&["boot", guest]);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut console = Console::of(&mut child);
    console.expect("Welcome to Linux 6.12", BOOT_PATIENCE);
    console.expect("# ", BOOT_PATIENCE);
    Some((child, console))
}
