//! What the translator knows of RISC-V.

pub mod engine;
pub mod lift;
