//! Mimic: boards, engines, loaders, terminal and command line.

pub mod board;
pub mod boot;
pub mod engine;
pub mod loader;
pub mod machine;
