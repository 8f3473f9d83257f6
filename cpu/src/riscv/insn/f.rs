//! F, single-precision floating point (unprivileged, chapter 21).

use super::fp::{self, Sign};
use super::table;
use crate::riscv::sem::Fmt::S;
use crate::riscv::sem::{Fp1, Fp2, Un};

table! {
    /// F.
    rows, s, i;
    flw       If ["............ ..... 010 ..... 0000111"] fp::load(s, i, S)?;
    fsw       S  ["....... ..... ..... 010 ..... 0100111"] fp::store(s, i, S)?;
    fmadd_s Rf ["..... 00 ..... ..... ... ..... 1000011"] fp::fused(s, i, S, false, false)?;
    fmsub_s Rf ["..... 00 ..... ..... ... ..... 1000111"] fp::fused(s, i, S, false, true)?;
    fnmsub_s Rf ["..... 00 ..... ..... ... ..... 1001011"] fp::fused(s, i, S, true, false)?;
    fnmadd_s Rf ["..... 00 ..... ..... ... ..... 1001111"] fp::fused(s, i, S, true, true)?;
    fadd_s Rf ["00000 00 ..... ..... ... ..... 1010011"] fp::arith(s, i, S, Fp2::Add)?;
    fsub_s Rf ["00001 00 ..... ..... ... ..... 1010011"] fp::arith(s, i, S, Fp2::Sub)?;
    fmul_s Rf ["00010 00 ..... ..... ... ..... 1010011"] fp::arith(s, i, S, Fp2::Mul)?;
    fdiv_s Rf ["00011 00 ..... ..... ... ..... 1010011"] fp::arith(s, i, S, Fp2::Div)?;
    fsqrt_s Rf ["01011 00 00000 ..... ... ..... 1010011"] fp::unary(s, i, S, Fp1::Sqrt)?;
    fsgnj_s Rf ["00100 00 ..... ..... 000 ..... 1010011"] fp::inject_sign(s, i, S, Sign::Copy)?;
    fsgnjn_s Rf ["00100 00 ..... ..... 001 ..... 1010011"] fp::inject_sign(s, i, S, Sign::Negate)?;
    fsgnjx_s Rf ["00100 00 ..... ..... 010 ..... 1010011"] fp::inject_sign(s, i, S, Sign::Xor)?;
    fmin_s Rf ["00101 00 ..... ..... 000 ..... 1010011"] fp::pick(s, i, S, Fp2::Min)?;
    fmax_s Rf ["00101 00 ..... ..... 001 ..... 1010011"] fp::pick(s, i, S, Fp2::Max)?;
    feq_s R ["10100 00 ..... ..... 010 ..... 1010011"] fp::compare(s, i, S, Fp2::Eq)?;
    flt_s R ["10100 00 ..... ..... 001 ..... 1010011"] fp::compare(s, i, S, Fp2::Lt)?;
    fle_s R ["10100 00 ..... ..... 000 ..... 1010011"] fp::compare(s, i, S, Fp2::Le)?;
    fclass_s R ["11100 00 00000 ..... 001 ..... 1010011"] fp::classify(s, i, S)?;
    fcvt_w_s R ["11000 00 00000 ..... ... ..... 1010011"] fp::to_int(s, i, S, Fp1::ToI32)?;
    fcvt_wu_s R ["11000 00 00001 ..... ... ..... 1010011"] fp::to_int(s, i, S, Fp1::ToU32)?;
    fcvt_l_s R ["11000 00 00010 ..... ... ..... 1010011"] fp::to_int(s, i, S, Fp1::ToI64)?;
    fcvt_lu_s R ["11000 00 00011 ..... ... ..... 1010011"] fp::to_int(s, i, S, Fp1::ToU64)?;
    fcvt_s_w Rf ["11010 00 00000 ..... ... ..... 1010011"] fp::from_int(s, i, S, Fp1::FromI32)?;
    fcvt_s_wu Rf ["11010 00 00001 ..... ... ..... 1010011"] fp::from_int(s, i, S, Fp1::FromU32)?;
    fcvt_s_l Rf ["11010 00 00010 ..... ... ..... 1010011"] fp::from_int(s, i, S, Fp1::FromI64)?;
    fcvt_s_lu Rf ["11010 00 00011 ..... ... ..... 1010011"] fp::from_int(s, i, S, Fp1::FromU64)?;
    fmv_x_w R ["11100 00 00000 ..... 000 ..... 1010011"] fp::move_to_x(s, i, Some(Un::SextW))?;
    fmv_w_x Rf ["11110 00 00000 ..... 000 ..... 1010011"] fp::move_from_x(s, i, S)?;
}
