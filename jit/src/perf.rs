//! Names of translated code for Linux' `perf`: lines `START SIZE NAME` in `/tmp/perf-PID.map`, where
//! `perf report` looks for code that belongs to no file (tools/perf/Documentation/jit-interface.txt).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::memory::CodePtr;

/// The process's one map, which all translators write to.
static MAP: OnceLock<io::Result<Mutex<File>>> = OnceLock::new();

/// A map that lines can be added to.
#[derive(Clone, Copy, Debug)]
pub struct PerfMap(&'static Mutex<File>);

impl PerfMap {
    /// The path of this process's map.
    #[must_use]
    pub fn path() -> String {
        format!("/tmp/perf-{}.map", std::process::id())
    }

    /// The process's map, made anew when it is first asked for.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn open() -> io::Result<PerfMap> {
        match MAP.get_or_init(|| create(&Self::path()).map(Mutex::new)) {
            Ok(file) => Ok(PerfMap(file)),
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", Self::path()))),
        }
    }

    /// Names the `len` bytes of code at `code`. A line that cannot be written is left out.
    pub fn add(self, code: CodePtr, len: usize, name: &str) {
        let line = format!("{:x} {len:x} {name}\n", code.0);
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if file.write_all(line.as_bytes()).is_err() {
            // A full disk costs names, not the run.
        }
    }
}

/// Makes the file, whose name anybody can guess: nobody's link is followed.
fn create(path: &str) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}
