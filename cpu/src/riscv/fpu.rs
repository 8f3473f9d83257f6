//! Floating-point operations on values: the instructions' needs mapped onto [`crate::softfloat`].

use crate::riscv::sem::{Fmt, Fp1, Fp2};
use crate::softfloat::{self as sf, Env, F16, F32, F64, Flags, Format, Rounding};

fn with(rounding: Rounding, f: impl FnOnce(&mut Env) -> u64) -> (u64, Flags) {
    let mut env = Env::riscv(rounding);
    let value = f(&mut env);
    (value, env.flags)
}

fn fp2_in<F: Format>(env: &mut Env, op: Fp2, a: u64, b: u64) -> u64 {
    match op {
        Fp2::Add => sf::add::<F>(env, a, b),
        Fp2::Sub => sf::sub::<F>(env, a, b),
        Fp2::Mul => sf::mul::<F>(env, a, b),
        Fp2::Div => sf::div::<F>(env, a, b),
        Fp2::Min => sf::min_num::<F>(env, a, b),
        Fp2::Max => sf::max_num::<F>(env, a, b),
        Fp2::Minm => sf::min::<F>(env, a, b),
        Fp2::Maxm => sf::max::<F>(env, a, b),
        Fp2::Eq => u64::from(sf::eq::<F>(env, a, b)),
        Fp2::Lt => u64::from(sf::lt::<F>(env, a, b)),
        Fp2::Le => u64::from(sf::le::<F>(env, a, b)),
        Fp2::Ltq => u64::from(sf::lt_quiet::<F>(env, a, b)),
        Fp2::Leq => u64::from(sf::le_quiet::<F>(env, a, b)),
    }
}

/// Performs [`Fp2`].
#[inline]
pub fn fp2(op: Fp2, fmt: Fmt, rounding: Rounding, a: u64, b: u64) -> (u64, Flags) {
    with(rounding, |env| match fmt {
        Fmt::H => fp2_in::<F16>(env, op, a, b),
        Fmt::S => fp2_in::<F32>(env, op, a, b),
        Fmt::D => fp2_in::<F64>(env, op, a, b),
    })
}

fn fp1_in<F: Format>(env: &mut Env, op: Fp1, a: u64) -> u64 {
    match op {
        Fp1::Sqrt => sf::sqrt::<F>(env, a),
        Fp1::Class => sf::classify::<F>(a),
        Fp1::Round => sf::round_to_integral::<F>(env, a),
        Fp1::Roundnx => sf::round_to_integral_exact::<F>(env, a),
        Fp1::ToI32 => sf::to_int::<F, i32>(env, a) as u64,
        Fp1::ToU32 => sf::to_int::<F, u32>(env, a) as i32 as u64,
        Fp1::ToI64 => sf::to_int::<F, i64>(env, a) as u64,
        Fp1::ToU64 => sf::to_int::<F, u64>(env, a),
        Fp1::ToI32Mod => sf::modular_i32_from_f64(env, a) as u64,
        Fp1::FromI32 => sf::from_int::<F, i32>(env, a as i32),
        Fp1::FromU32 => sf::from_int::<F, u32>(env, a as u32),
        Fp1::FromI64 => sf::from_int::<F, i64>(env, a as i64),
        Fp1::FromU64 => sf::from_int::<F, u64>(env, a),
        Fp1::From(Fmt::H) => sf::convert::<F16, F>(env, a),
        Fp1::From(Fmt::S) => sf::convert::<F32, F>(env, a),
        Fp1::From(Fmt::D) => sf::convert::<F64, F>(env, a),
    }
}

/// Performs [`Fp1`]; `fmt` is the format of the result where that is floating point, else of the
/// operand.
#[inline]
pub fn fp1(op: Fp1, fmt: Fmt, rounding: Rounding, a: u64) -> (u64, Flags) {
    with(rounding, |env| match fmt {
        Fmt::H => fp1_in::<F16>(env, op, a),
        Fmt::S => fp1_in::<F32>(env, op, a),
        Fmt::D => fp1_in::<F64>(env, op, a),
    })
}

/// `a * b + c`, rounded once.
#[inline]
pub fn fma(fmt: Fmt, rounding: Rounding, a: u64, b: u64, c: u64) -> (u64, Flags) {
    with(rounding, |env| match fmt {
        Fmt::H => sf::fma::<F16>(env, a, b, c),
        Fmt::S => sf::fma::<F32>(env, a, b, c),
        Fmt::D => sf::fma::<F64>(env, a, b, c),
    })
}
