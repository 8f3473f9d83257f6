//! The user's terminal: the guest's serial port on stdin and stdout, and Mimic's own words on stderr.
//!
//! Bytes flow one way each: stdin -> `keys` (the escape key and its commands) -> guest, and
//! guest -> `output` (a writer thread) -> stdout. `modes` follows what the guest does to the terminal;
//! `tty` is the only place that changes and restores its modes, `signals` asks for their restoration
//! from outside, `silence` notices a guest that says nothing; `session` puts them around a machine.

pub mod keys;
mod modes;
pub mod output;
pub mod session;
mod signals;
mod silence;
pub mod tty;
