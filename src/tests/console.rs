//! A guest's console, as a test reads it and types into it.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::mimic;

/// A shell must answer by then, however busy the host is.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
const BOOT_PATIENCE: Duration = Duration::from_secs(180);

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
