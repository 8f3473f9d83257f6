//! What the translator knows of RISC-V.

pub mod lift;
