//! Mimic: boards, engines, loaders, terminal and command line.

pub mod board;
pub mod boot;
pub mod cli;
pub mod compare;
pub mod engine;
pub mod gdb;
pub mod harness;
pub mod loader;
pub mod machine;
pub mod report;
pub mod terminal;
pub mod verify;
