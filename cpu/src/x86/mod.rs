//! The x86-64 processor.

pub mod x87;
