//! D, double-precision floating point (unprivileged, chapter 22).

use super::fp::{self, Sign};
use super::table;
use crate::riscv::sem::Fmt::{D, S};
use crate::riscv::sem::{Fp1, Fp2};

table! {
    /// D.
    rows, s, i;
    fld       If ["............ ..... 011 ..... 0000111"] fp::load(s, i, D)?;
    fsd       S  ["....... ..... ..... 011 ..... 0100111"] fp::store(s, i, D)?;
    fmadd_d Rf ["..... 01 ..... ..... ... ..... 1000011"] fp::fused(s, i, D, false, false)?;
    fmsub_d Rf ["..... 01 ..... ..... ... ..... 1000111"] fp::fused(s, i, D, false, true)?;
    fnmsub_d Rf ["..... 01 ..... ..... ... ..... 1001011"] fp::fused(s, i, D, true, false)?;
    fnmadd_d Rf ["..... 01 ..... ..... ... ..... 1001111"] fp::fused(s, i, D, true, true)?;
    fadd_d Rf ["00000 01 ..... ..... ... ..... 1010011"] fp::arith(s, i, D, Fp2::Add)?;
    fsub_d Rf ["00001 01 ..... ..... ... ..... 1010011"] fp::arith(s, i, D, Fp2::Sub)?;
    fmul_d Rf ["00010 01 ..... ..... ... ..... 1010011"] fp::arith(s, i, D, Fp2::Mul)?;
    fdiv_d Rf ["00011 01 ..... ..... ... ..... 1010011"] fp::arith(s, i, D, Fp2::Div)?;
    fsqrt_d Rf ["01011 01 00000 ..... ... ..... 1010011"] fp::unary(s, i, D, Fp1::Sqrt)?;
    fsgnj_d Rf ["00100 01 ..... ..... 000 ..... 1010011"] fp::inject_sign(s, i, D, Sign::Copy)?;
    fsgnjn_d Rf ["00100 01 ..... ..... 001 ..... 1010011"] fp::inject_sign(s, i, D, Sign::Negate)?;
    fsgnjx_d Rf ["00100 01 ..... ..... 010 ..... 1010011"] fp::inject_sign(s, i, D, Sign::Xor)?;
    fmin_d Rf ["00101 01 ..... ..... 000 ..... 1010011"] fp::pick(s, i, D, Fp2::Min)?;
    fmax_d Rf ["00101 01 ..... ..... 001 ..... 1010011"] fp::pick(s, i, D, Fp2::Max)?;
    feq_d R ["10100 01 ..... ..... 010 ..... 1010011"] fp::compare(s, i, D, Fp2::Eq)?;
    flt_d R ["10100 01 ..... ..... 001 ..... 1010011"] fp::compare(s, i, D, Fp2::Lt)?;
    fle_d R ["10100 01 ..... ..... 000 ..... 1010011"] fp::compare(s, i, D, Fp2::Le)?;
    fclass_d R ["11100 01 00000 ..... 001 ..... 1010011"] fp::classify(s, i, D)?;
    fcvt_w_d R ["11000 01 00000 ..... ... ..... 1010011"] fp::to_int(s, i, D, Fp1::ToI32)?;
    fcvt_wu_d R ["11000 01 00001 ..... ... ..... 1010011"] fp::to_int(s, i, D, Fp1::ToU32)?;
    fcvt_l_d R ["11000 01 00010 ..... ... ..... 1010011"] fp::to_int(s, i, D, Fp1::ToI64)?;
    fcvt_lu_d R ["11000 01 00011 ..... ... ..... 1010011"] fp::to_int(s, i, D, Fp1::ToU64)?;
    fcvt_d_w Rf ["11010 01 00000 ..... ... ..... 1010011"] fp::from_int(s, i, D, Fp1::FromI32)?;
    fcvt_d_wu Rf ["11010 01 00001 ..... ... ..... 1010011"] fp::from_int(s, i, D, Fp1::FromU32)?;
    fcvt_d_l Rf ["11010 01 00010 ..... ... ..... 1010011"] fp::from_int(s, i, D, Fp1::FromI64)?;
    fcvt_d_lu Rf ["11010 01 00011 ..... ... ..... 1010011"] fp::from_int(s, i, D, Fp1::FromU64)?;
    fmv_x_d R ["11100 01 00000 ..... 000 ..... 1010011"] fp::move_to_x(s, i, None)?;
    fmv_d_x Rf ["11110 01 00000 ..... 000 ..... 1010011"] fp::move_from_x(s, i, D)?;
    fcvt_s_d Rf ["01000 00 00001 ..... ... ..... 1010011"] fp::convert(s, i, S, D)?;
    fcvt_d_s Rf ["01000 01 00000 ..... ... ..... 1010011"] fp::convert(s, i, D, S)?;
}
