//! The program on a terminal: a pseudo-terminal whose modes are looked at from outside.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OutputModes, tcgetattr};
use support::{BASE, ECHOES, Program, guest, mimic};

/// What is waited for must have come by then, however busy the host is.
const PATIENCE: Duration = Duration::from_secs(60);

/// The escape key unless another is chosen.
const CTRL_A: u8 = 1;

/// A pseudo-terminal: the keyboard and screen of the program under test.
struct Terminal {
    master: File,
    /// Keeps the modes when the program has ended.
    slave: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = std::ffi::OsStr::from_bytes(name.as_bytes());
        let slave = File::options().read(true).write(true).open(slave).unwrap();
        let master = File::from(master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        std::thread::spawn({
            let (mut master, screen) = (master.try_clone().unwrap(), Arc::clone(&screen));
            move || {
                let mut bytes = [0; 4096];
                while let Ok(n @ 1..) = master.read(&mut bytes) {
                    screen.lock().unwrap().extend_from_slice(&bytes[..n]);
                }
            }
        });
        Terminal { master, slave, screen }
    }

    fn spawn(&self, command: &mut Command) -> Program {
        let end = || Stdio::from(OwnedFd::from(self.slave.try_clone().unwrap()));
        Program(command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap())
    }

    fn type_keys(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    /// Types keys and waits for what they bring onto the screen.
    fn ask(&mut self, keys: &[u8], answer: &str) {
        self.type_keys(keys);
        self.wait_for(answer);
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.screen().contains(text) {
            assert!(start.elapsed() < PATIENCE, "no {text:?} on the screen: {:?}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap();
        !modes.local_modes.intersects(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO)
    }

    fn wait_for_raw(&self, raw: bool) {
        let start = Instant::now();
        while self.is_raw() != raw {
            assert!(start.elapsed() < PATIENCE, "the terminal's mode stays; {:?}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
        if !raw {
            let modes = tcgetattr(&self.slave).unwrap();
            assert!(modes.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
            assert!(modes.output_modes.contains(OutputModes::OPOST));
        }
    }
}

/// Starts an echoing guest on a terminal, which it soon makes raw.
fn start(args: &[&str]) -> (Terminal, Program) {
    let folder = tempfile::tempdir().unwrap();
    let path = guest(folder.path(), ECHOES);
    let terminal = Terminal::open();
    assert!(!terminal.is_raw());
    let args = [&["run", path.to_str().unwrap(), "--load-addr", BASE], args].concat();
    let child = terminal.spawn(&mut mimic(&args));
    // By then, it has read the guest.
    terminal.wait_for("Ctrl-");
    (terminal, child)
}

/// An echoing guest that runs, on a terminal that is raw.
fn session(args: &[&str]) -> (Terminal, Program) {
    let (mut terminal, child) = start(args);
    terminal.wait_for_raw(true);
    terminal.ask(b"<runs>", "<runs>");
    (terminal, child)
}

/// Ends a program by its escape key.
fn quit(terminal: &mut Terminal, mut child: Program, escape: u8) {
    terminal.type_keys(&[escape, b'x']);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    terminal.wait_for_raw(false);
}

#[test]
fn keys_reach_the_guest_and_the_escape_key_quits() {
    let (mut terminal, child) = session(&[]);
    terminal.wait_for("Ctrl-A x quits");
    // Ctrl-C, Ctrl-Z, Ctrl-\ and Ctrl-A itself, with marks around them.
    terminal.ask(b"<\x03\x1a\x1c\x01\x01>", "<\x03\x1a\x1c\x01>");
    terminal.ask(b"\x01h", "show counters");
    terminal.ask(b"\x01i", "M-mode at 0x800000");
    terminal.ask(b"\x01p", "paused");
    terminal.type_keys(b"later");
    std::thread::sleep(Duration::from_millis(200));
    assert!(!terminal.screen().contains("later"), "a paused guest does not answer");
    terminal.ask(b"\x01p", "later");
    quit(&mut terminal, child, CTRL_A);
    terminal.wait_for("quit by the user");
}

#[test]
fn the_engine_is_changed_by_a_key() {
    let (mut terminal, child) = session(&["--cpus", "2", "--stats", "--engine", "interp"]);
    terminal.ask(b"\x01h", "change the engine");
    terminal.ask(b"\x01e", "the translator (jit) runs now");
    terminal.ask(b"<translated>", "<translated>");
    terminal.ask(b"\x01p", "paused");
    terminal.ask(b"\x01e", "the interpreter (interp) runs now");
    terminal.ask(b"\x01p<interpreted>", "<interpreted>");
    quit(&mut terminal, child, CTRL_A);
    // The last line: the counters are complete.
    terminal.wait_for("quit by the user");
    // Two changes of two harts.
    let screen = terminal.screen();
    let line = screen.lines().find(|line| line.contains("engine switches")).unwrap();
    assert!(line.trim_end().ends_with(" 4"), "{line}");
}

#[test]
fn another_escape_key_can_be_chosen() {
    let (mut terminal, child) = session(&["--escape", "^]"]);
    terminal.ask(b"(\x01x)", "(\x01x)");
    quit(&mut terminal, child, 0x1d);
}

#[test]
fn a_limit_and_an_error_give_the_terminal_back() {
    // It may be over before anybody has seen that the terminal was raw.
    let (terminal, mut child) = start(&["--timeout", "500ms"]);
    assert_eq!(child.wait().unwrap().code(), Some(124));
    terminal.wait_for_raw(false);
    let (terminal, mut child) =
        start(&["--timeout", "500ms", "--report", "/no/such/folder/report"]);
    assert_eq!(child.wait().unwrap().code(), Some(125));
    terminal.wait_for_raw(false);
}

#[test]
fn signals_give_the_terminal_back_and_end_the_process() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let (terminal, mut child) = session(&[]);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()));
        terminal.wait_for_raw(false);
    }
}

/// Waits until the process is in state T, which follows its name in `/proc/PID/stat`.
fn wait_until_stopped(child: &Child) {
    let stat = format!("/proc/{}/stat", child.id());
    let start = Instant::now();
    while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
        assert!(start.elapsed() < PATIENCE, "the process does not stop");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_stop_gives_the_terminal_back_until_it_goes_on() {
    let (mut terminal, child) = session(&[]);
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TSTP).unwrap();
    terminal.wait_for_raw(false);
    // As a shell does: a SIGCONT before the stop would find nothing to continue.
    wait_until_stopped(&child);
    kill_process(pid, Signal::CONT).unwrap();
    terminal.wait_for_raw(true);
    terminal.ask(b"<back>", "<back>");
    quit(&mut terminal, child, CTRL_A);
}

#[test]
fn what_the_guest_did_to_the_terminal_is_undone() {
    let (mut terminal, child) = session(&[]);
    // Alternate screen, no cursor, reverse video, as the guest sends them back.
    terminal.ask(b"\x1b[?1049h\x1b[?25l\x1b[7m!", "\x1b[7m!");
    quit(&mut terminal, child, CTRL_A);
    terminal.wait_for("\x1b[?1049l");
    terminal.wait_for("\x1b[?25h");
    terminal.wait_for("\x1b[0m");
}

#[test]
fn a_panic_gives_the_terminal_back() {
    let terminal = Terminal::open();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "panics_in_raw_mode", "--nocapture"]);
    let mut child = terminal.spawn(&mut command);
    terminal.wait_for("raw: true");
    assert!(!child.wait().unwrap().success());
    terminal.wait_for("a panic in raw mode");
    terminal.wait_for_raw(false);
}

#[test]
#[ignore = "the other half of a_panic_gives_the_terminal_back"]
fn panics_in_raw_mode() {
    let raw = mimic::terminal::tty::RawMode::enter().unwrap();
    println!("raw: {}", mimic::terminal::tty::is_raw());
    // As in a thread that does not own the guard: only the hook can restore.
    std::mem::forget(raw);
    panic!("a panic in raw mode");
}
