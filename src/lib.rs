//! Mimic: boards, engines, loaders, terminal and command line.

pub mod loader;
