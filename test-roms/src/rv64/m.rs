//! M extension. Expected values: Unprivileged ISA, "M" Extension, table of division semantics;
//! products from 128-bit host arithmetic.

use super::operands::{pairs, sext32};
use crate::suite::{Suite, rv};

fn div(a: i128, b: i128, all_ones: i128) -> i128 {
    if b == 0 { all_ones } else { a / b }
}

fn rem(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { a % b }
}

/// Value of the low 32 bits as a signed number.
fn w(v: u64) -> i128 {
    i128::from(v as u32 as i32)
}

/// Value as a signed number.
fn x(v: u64) -> i128 {
    i128::from(v as i64)
}

pub(super) fn define(s: &mut Suite) {
    macro_rules! op {
        ($name:literal, $($i:ident).+, $f:expr) => {
            s.binary($name, |s, d, a, b| rv!(s; $($i).+ X(d), X(a), X(b)), &pairs($f));
        };
    }
    op!("mul", mul, |a, b| (x(a).wrapping_mul(x(b))) as u64);
    op!("mulh", mulh, |a, b| ((x(a) * x(b)) >> 64) as u64);
    op!("mulhsu", mulhsu, |a, b| ((x(a) * i128::from(b)) >> 64) as u64);
    op!("mulhu", mulhu, |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    op!("mulw", mulw, |a, b| sext32((w(a) * w(b)) as u64));
    op!("div", div, |a, b| div(x(a), x(b), -1) as u64);
    op!("divu", divu, |a, b| div(a.into(), b.into(), -1) as u64);
    op!("rem", rem, |a, b| rem(x(a), x(b)) as u64);
    op!("remu", remu, |a, b| rem(a.into(), b.into()) as u64);
    op!("divw", divw, |a, b| sext32(div(w(a), w(b), -1) as u64));
    op!("remw", remw, |a, b| sext32(rem(w(a), w(b)) as u64));
    op!("divuw", divuw, |a, b| { sext32(div((a as u32).into(), (b as u32).into(), -1) as u64) });
    op!("remuw", remuw, |a, b| sext32(rem((a as u32).into(), (b as u32).into()) as u64));
}
