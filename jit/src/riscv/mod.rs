//! What the translator knows of RISC-V.

pub mod engine;
pub mod lift;
pub mod region;
mod sampler;
