//! Integer operations on values.

use crate::bus::Width;
use crate::riscv::sem::{Amo, Bin, Un};

fn word(value: u32) -> u64 {
    value as i32 as u64
}

/// Carry-less product, 128 bits.
fn clmul(a: u64, b: u64) -> u128 {
    (0..64).filter(|i| b >> i & 1 != 0).fold(0, |product, i| product ^ u128::from(a) << i)
}

/// Performs [`Bin`].
#[must_use]
#[inline(always)]
pub fn bin(op: Bin, a: u64, b: u64) -> u64 {
    let (sa, sb) = (a as i64, b as i64);
    let (wa, wb) = (a as u32, b as u32);
    let (swa, swb) = (a as i32, b as i32);
    match op {
        Bin::Add => a.wrapping_add(b),
        Bin::Sub => a.wrapping_sub(b),
        Bin::And => a & b,
        Bin::Or => a | b,
        Bin::Xor => a ^ b,
        Bin::Sll => a.wrapping_shl(b as u32),
        Bin::Srl => a.wrapping_shr(b as u32),
        Bin::Sra => sa.wrapping_shr(b as u32) as u64,
        Bin::Slt => u64::from(sa < sb),
        Bin::Sltu => u64::from(a < b),
        Bin::Eq => u64::from(a == b),
        Bin::Mul => a.wrapping_mul(b),
        Bin::Mulh => ((i128::from(sa) * i128::from(sb)) >> 64) as u64,
        Bin::Mulhu => ((u128::from(a) * u128::from(b)) >> 64) as u64,
        Bin::Mulhsu => (i128::from(sa).wrapping_mul(i128::from(b)) >> 64) as u64,
        Bin::Div => {
            if b == 0 {
                u64::MAX
            } else {
                sa.wrapping_div(sb) as u64
            }
        }
        Bin::Divu => a.checked_div(b).unwrap_or(u64::MAX),
        Bin::Rem => {
            if b == 0 {
                a
            } else {
                sa.wrapping_rem(sb) as u64
            }
        }
        Bin::Remu => a.checked_rem(b).unwrap_or(a),
        Bin::Divw => {
            if swb == 0 {
                u64::MAX
            } else {
                swa.wrapping_div(swb) as u64
            }
        }
        Bin::Divuw => word(wa.checked_div(wb).unwrap_or(u32::MAX)),
        Bin::Remw => {
            if swb == 0 {
                swa as u64
            } else {
                swa.wrapping_rem(swb) as u64
            }
        }
        Bin::Remuw => word(wa.checked_rem(wb).unwrap_or(wa)),
        Bin::Rol => a.rotate_left(b as u32 & 63),
        Bin::Ror => a.rotate_right(b as u32 & 63),
        Bin::Rolw => word(wa.rotate_left(wb & 31)),
        Bin::Rorw => word(wa.rotate_right(wb & 31)),
        Bin::Min => sa.min(sb) as u64,
        Bin::Minu => a.min(b),
        Bin::Max => sa.max(sb) as u64,
        Bin::Maxu => a.max(b),
        Bin::Clmul => clmul(a, b) as u64,
        Bin::Clmulh => (clmul(a, b) >> 64) as u64,
        Bin::Clmulr => (clmul(a, b) >> 63) as u64,
    }
}

/// Performs [`Un`].
#[must_use]
#[inline(always)]
pub fn un(op: Un, a: u64) -> u64 {
    match op {
        Un::Clz => u64::from(a.leading_zeros()),
        Un::Ctz => u64::from(a.trailing_zeros()),
        Un::Cpop => u64::from(a.count_ones()),
        Un::Clzw => u64::from((a as u32).leading_zeros()),
        Un::Ctzw => u64::from((a as u32).trailing_zeros()),
        Un::Cpopw => u64::from((a as u32).count_ones()),
        Un::OrcB => u64::from_le_bytes(a.to_le_bytes().map(|b| if b == 0 { 0 } else { 0xff })),
        Un::Rev8 => a.swap_bytes(),
        Un::SextB => a as i8 as u64,
        Un::SextH => a as i16 as u64,
        Un::SextW => a as i32 as u64,
        Un::ZextB => u64::from(a as u8),
        Un::ZextH => u64::from(a as u16),
        Un::ZextW => u64::from(a as u32),
    }
}

/// The new value of memory under [`Amo`]; `old` is zero-extended, only the low `width` of the result
/// counts.
#[must_use]
pub fn amo(op: Amo, width: Width, old: u64, value: u64) -> u64 {
    let (signed, unsigned) = (
        (width.sign_extend(old) as i64, width.sign_extend(value) as i64),
        (old, width.zero_extend(value)),
    );
    match op {
        Amo::Swap => value,
        Amo::Add => old.wrapping_add(value),
        Amo::Xor => old ^ value,
        Amo::And => old & value,
        Amo::Or => old | value,
        Amo::Min => signed.0.min(signed.1) as u64,
        Amo::Max => signed.0.max(signed.1) as u64,
        Amo::Minu => unsigned.0.min(unsigned.1),
        Amo::Maxu => unsigned.0.max(unsigned.1),
    }
}
