//! IEEE 754 arithmetic in integer operations: the project's one softfloat.
//!
//! Neither host floating point nor `unsafe` is used, so a result depends on the operands and on [`Env`] alone:
//! every engine, host and build agrees to the last bit and flag.
//!
//! # Data flow
//!
//! ```text
//! raw bits (u64) -> operand (mask, DAZ) -> fields, or normalised parts -> exact or jammed significand
//!                                                                      -> round_pack -> raw bits, flags in Env
//! ```
//!
//! - [`format`](mod@format): the interchange formats as types ([`F16`], [`F32`], [`F64`]) whose constants make each operation
//!   generic; classification of a value.
//! - [`env`](mod@env): what an operation depends on beside its operands: rounding, the ISA's choices, accrued flags.
//! - `nan`: which NaN a NaN-producing operation returns. `round`: the one place that rounds to a format.
//! - [`add`](mod@add), [`mul`](mod@mul), [`div_sqrt`], [`fma`](mod@fma), [`compare`](mod@compare),
//!   [`convert`](mod@convert): the operations.
//! - [`extended`]: x87's 80-bit format, a family of operations of its own.
//!
//! # Values
//!
//! A value is its encoding in the low bits of a `u64`; bits above the format's width are ignored in operands and zero in
//! results (NaN boxing belongs to the instructions). Inside, a finite non-zero number is `sig * 2^(exp - BIAS - 62)` with bit
//! 62 of `sig` set: the 62 - [`Format::FRAC_BITS`] low bits hold what rounding removes, bit 0 being sticky ("jammed": it
//! is set when anything non-zero was shifted out), which is enough for every rounding mode since at least two bits
//! lie below the last place kept.
//!
//! # What differs between ISAs
//!
//! IEEE 754-2019 leaves open the payload of NaNs (6.2.3), when tininess is detected (7.5), whether `fma(inf, 0, qNaN)` is
//! invalid (7.2 c) and what an invalid conversion to integer returns (5.8). Each is a field of [`Env`], as are x86's DAZ
//! and FTZ, x87's precision control and what an unmasked exception changes about a result. x87's double extended format,
//! whose significand fills 64 bits, has its own operations: [`extended`].

pub mod add;
pub mod compare;
pub mod convert;
pub mod div_sqrt;
pub mod env;
pub mod extended;
pub mod fma;
pub mod format;
pub mod mul;
mod nan;
mod round;

pub use add::{add, sub};
pub use compare::{Quietness, compare, eq, le, le_quiet, lt, lt_quiet, max, max_num, min, min_num};
pub use convert::{
    Integer, convert, from_int, modular_i32_from_f64, round_to_integral, round_to_integral_exact,
    to_int,
};
pub use div_sqrt::{div, sqrt};
pub use env::{Env, Flags, InvalidInt, NanRule, Precision, Rounding, Tininess};
pub use extended::F80;
pub use fma::fma;
pub use format::{F16, F32, F64, Format, classify};
pub use mul::mul;
