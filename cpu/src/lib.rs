//! Guest CPUs.
pub mod softfloat;
