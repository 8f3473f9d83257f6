//! Zfhmin, moves and conversions of half precision (unprivileged, chapter 24).

use super::fp;
use super::table;
use crate::riscv::sem::Fmt::{D, H, S};
use crate::riscv::sem::Un;

table! {
    /// Zfhmin.
    rows, s, i;
    flh If ["............ ..... 001 ..... 0000111"] fp::load(s, i, H)?;
    fsh S  ["....... ..... ..... 001 ..... 0100111"] fp::store(s, i, H)?;
    fcvt_s_h Rf ["01000 00 00010 ..... ... ..... 1010011"] fp::convert(s, i, S, H)?;
    fcvt_h_s Rf ["01000 10 00000 ..... ... ..... 1010011"] fp::convert(s, i, H, S)?;
    fcvt_d_h Rf ["01000 01 00010 ..... ... ..... 1010011"] fp::convert(s, i, D, H)?;
    fcvt_h_d Rf ["01000 10 00001 ..... ... ..... 1010011"] fp::convert(s, i, H, D)?;
    fmv_x_h R  ["11100 10 00000 ..... 000 ..... 1010011"] fp::move_to_x(s, i, Some(Un::SextH))?;
    fmv_h_x Rf ["11110 10 00000 ..... 000 ..... 1010011"] fp::move_from_x(s, i, H)?;
}
