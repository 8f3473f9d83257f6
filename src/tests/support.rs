//! Guests of a few instructions, and the program under test.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

/// Where flat guests are loaded.
pub(crate) const BASE: &str = "0x80000000";

/// Writes `7 << 16 | 0x3333` to the test finisher: failure 7.
pub(crate) const FAILS_WITH_7: &[u32] = &[
    0x0010_02b7, // lui   t0, 0x100
    0x0007_3337, // lui   t1, 0x73
    0x3333_0313, // addi  t1, t1, 0x333
    0x0062_a023, // sw    t1, 0(t0)
    0x0000_006f, // j     .
];

/// Sends every byte of the serial port back. Hart 0 does: two at one port would take each other's bytes.
pub(crate) const ECHOES: &[u32] = &[
    0xf140_2573, // csrr  a0, mhartid
    0x0005_0663, // beqz  a0, 12
    0x1050_0073, // wfi
    0xffdf_f06f, // j     -4
    0x1000_02b7, // lui   t0, 0x10000
    0x0052_c303, // lbu   t1, 5(t0)      line status
    0x0013_7313, // andi  t1, t1, 1      data ready
    0xfe03_0ce3, // beqz  t1, -8
    0x0002_c303, // lbu   t1, 0(t0)
    0x0062_8023, // sb    t1, 0(t0)
    0xfedf_f06f, // j     -20
];

/// Sends `y` for ever.
pub(crate) const PRINTS_FOR_EVER: &[u32] = &[
    0x1000_02b7, // lui   t0, 0x10000
    0x0790_0313, // li    t1, 'y'
    0x0062_8023, // sb    t1, 0(t0)
    0xffdf_f06f, // j     -4
];

/// Does nothing for ever.
pub(crate) const LOOPS: &[u32] = &[0x0000_006f];
/// lui t0, 0x100; lui t1, 7; addi t1, t1, 0x777; sw t1, (t0): the test finisher's reset, over and over.
pub(crate) const RESETS: &[u32] = &[0x0010_02b7, 0x0000_7337, 0x7773_0313, 0x0062_a023, LOOPS[0]];

/// Writes a guest to a file in `folder`.
pub(crate) fn guest(folder: &Path, words: &[u32]) -> PathBuf {
    let path = folder.join("guest.bin");
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The program, with these arguments.
pub(crate) fn mimic(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mimic"));
    command.args(args);
    command
}

/// The program under test, which a test does not leave behind.
pub(crate) struct Program(pub(crate) Child);

impl Deref for Program {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Exit status, and the last line on stderr.
pub(crate) fn ending(output: &Output) -> (Option<i32>, String) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), stderr.lines().last().unwrap_or_default().to_owned())
}
