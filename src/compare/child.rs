//! One run: a process whose console is read, and whose CPU time is read at every mark.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::time::ClockId;
use nix::unistd::Pid;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::Run;
use super::marks::Marks;

/// Bytes of stderr that are kept, the last ones.
const STDERR_KEPT: usize = 4 << 10;

/// How long a run is watched.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Time after which it is ended.
    pub timeout: Duration,
    /// Text on the console that ends it, as `boot`.
    pub until: Option<String>,
    /// The exit status of a run that went well.
    pub passed: i32,
}

/// Runs a command, whose stdout is a guest's console, to its end.
///
/// # Errors
/// When the host cannot start it or read its clock. What goes wrong in the run is told in [`Run::problems`].
pub fn run(mut command: Command, watch: &Watch) -> io::Result<Run> {
    let start = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let result = follow(&mut child, watch, start);
    if result.is_err() {
        // Nobody will look at it any more; it may have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

fn follow(child: &mut Child, watch: &Watch, start: Instant) -> io::Result<Run> {
    let clock = clock_of(child)?;
    let mut stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut marks = Marks::new(watch.until.as_deref());
    let (sender, ended) = mpsc::channel();
    let console = thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut found = false;
        while !found {
            match stdout.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) => found = marks.feed(&buffer[..length], time_of(clock)),
            }
        }
        // The receiver has gone when the time is over.
        let _ = sender.send(found);
        // The process shall not be stopped by a full pipe on its way out.
        let _ = io::copy(&mut stdout, &mut io::sink());
        marks.finish();
        marks
    });
    let errors = thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
        while let Ok(length @ 1..) = stderr.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..length]);
            let surplus = kept.len().saturating_sub(STDERR_KEPT);
            kept.drain(..surplus);
        }
        String::from_utf8_lossy(&kept).into_owned()
    });
    let found = ended.recv_timeout(watch.timeout.saturating_sub(start.elapsed()));
    let stopped = !matches!(found, Ok(false));
    if stopped {
        child.kill()?;
    }
    // As long as it is not reaped, its clock can be read.
    let pid = rustix::process::Pid::from_child(child);
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let whole = time_of(clock).as_secs_f64();
    let status = child.wait()?;
    let marks = console.join().map_err(|_| io::Error::other("the console's reader failed"))?;
    let errors = errors.join().unwrap_or_default();
    let mut run = Run {
        phases: marks.phases,
        whole: None,
        elapsed: start.elapsed().as_secs_f64(),
        problems: marks.problems,
        report: None,
    };
    if found.is_err() {
        let limit = watch.timeout.as_secs_f64();
        run.problems.push(format!("the run was ended after {limit:.1} s"));
    } else if stopped || status.code() == Some(watch.passed) {
        run.whole = Some(whole);
        if watch.until.is_some() && !stopped {
            run.problems.push("the text that should end the run was not printed".into());
        }
    } else {
        let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        run.problems.push(format!("the run ended with {status}: {}", last.trim()));
    }
    Ok(run)
}

fn clock_of(child: &Child) -> io::Result<ClockId> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(ClockId::pid_cpu_clock_id(Pid::from_raw(pid))?)
}

/// CPU time of a process that is not reaped yet; the kernel knows its clock as long.
fn time_of(clock: ClockId) -> Duration {
    clock.now().map(Duration::from).unwrap_or_default()
}
