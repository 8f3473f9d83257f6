//! Zfa, additional floating-point instructions (unprivileged, chapter 25).

use super::fp;
use super::{Rf, table};
use crate::riscv::sem::Fmt::{D, S};
use crate::riscv::sem::{Fmt, Fp1, Fp2, Sem};

/// The constants of FLI by their number (25.1), except 1 (the smallest normal number) and 31 (the canonical
/// NaN), which depend on the format; each is exact in single precision.
const CONSTANTS: [f32; 32] = [
    -1.0,
    0.0,
    1.0 / 65536.0,
    1.0 / 32768.0,
    1.0 / 256.0,
    1.0 / 128.0,
    0.0625,
    0.125,
    0.25,
    0.3125,
    0.375,
    0.4375,
    0.5,
    0.625,
    0.75,
    0.875,
    1.0,
    1.25,
    1.5,
    1.75,
    2.0,
    2.5,
    3.0,
    4.0,
    8.0,
    16.0,
    128.0,
    256.0,
    32768.0,
    65536.0,
    f32::INFINITY,
    0.0,
];

#[inline(always)]
fn load_constant<S: Sem>(s: &mut S, i: Rf, fmt: Fmt) -> Result<(), S::Stop> {
    s.need_fp()?;
    let index = usize::from(i.rs1() & 31);
    let single = fmt == Fmt::S;
    let bits = match index {
        1 if single => u64::from(f32::MIN_POSITIVE.to_bits()),
        1 => f64::MIN_POSITIVE.to_bits(),
        31 if single => 0x7fc0_0000,
        31 => 0x7ff8_0000_0000_0000,
        _ if single => u64::from(CONSTANTS[index].to_bits()),
        _ => f64::from(CONSTANTS[index]).to_bits(),
    };
    let v = s.imm(bits as i64);
    fp::put(s, fmt, i.rd(), v);
    Ok(())
}

table! {
    /// Zfa.
    rows, s, i;
    fli_s Rf ["11110 00 00001 ..... 000 ..... 1010011"] load_constant(s, i, S)?;
    fminm_s Rf ["00101 00 ..... ..... 010 ..... 1010011"] fp::pick(s, i, S, Fp2::Minm)?;
    fmaxm_s Rf ["00101 00 ..... ..... 011 ..... 1010011"] fp::pick(s, i, S, Fp2::Maxm)?;
    fround_s Rf ["01000 00 00100 ..... ... ..... 1010011"] fp::unary(s, i, S, Fp1::Round)?;
    froundnx_s Rf ["01000 00 00101 ..... ... ..... 1010011"] fp::unary(s, i, S, Fp1::Roundnx)?;
    fltq_s R ["10100 00 ..... ..... 101 ..... 1010011"] fp::compare(s, i, S, Fp2::Ltq)?;
    fleq_s R ["10100 00 ..... ..... 100 ..... 1010011"] fp::compare(s, i, S, Fp2::Leq)?;
    fli_d Rf ["11110 01 00001 ..... 000 ..... 1010011"] load_constant(s, i, D)?;
    fminm_d Rf ["00101 01 ..... ..... 010 ..... 1010011"] fp::pick(s, i, D, Fp2::Minm)?;
    fmaxm_d Rf ["00101 01 ..... ..... 011 ..... 1010011"] fp::pick(s, i, D, Fp2::Maxm)?;
    fround_d Rf ["01000 01 00100 ..... ... ..... 1010011"] fp::unary(s, i, D, Fp1::Round)?;
    froundnx_d Rf ["01000 01 00101 ..... ... ..... 1010011"] fp::unary(s, i, D, Fp1::Roundnx)?;
    fltq_d R ["10100 01 ..... ..... 101 ..... 1010011"] fp::compare(s, i, D, Fp2::Ltq)?;
    fleq_d R ["10100 01 ..... ..... 100 ..... 1010011"] fp::compare(s, i, D, Fp2::Leq)?;
    fcvtmod_w_d R ["11000 01 01000 ..... 001 ..... 1010011"] fp::to_int(s, i, D, Fp1::ToI32Mod)?;
}
