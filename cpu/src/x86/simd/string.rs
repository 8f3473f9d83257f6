//! String comparison PCMPxSTRx (Intel SDM volume 2, 4.1 "Imm8 control byte operation for PCMPESTRI / PCMPESTRM /
//! PCMPISTRI / PCMPISTRM"), and CRC32.

use super::vector::{V128, V256, Vector};
use super::{CF, OF, SF, ZF};

/// The outcome of a comparison.
struct Comparison {
    /// IntRes2: a bit per element.
    result: u32,
    /// Elements in a vector: 16 or 8.
    count: u32,
    flags: u32,
}

/// `lengths` are those of `a` and `b` when given; else the strings end at their first zero.
fn compare(a: V128, b: V128, imm: u8, lengths: Option<[i64; 2]>) -> Comparison {
    match imm & 3 {
        0 => compare_lanes::<u8>(a, b, imm, lengths),
        1 => compare_lanes::<u16>(a, b, imm, lengths),
        2 => compare_lanes::<i8>(a, b, imm, lengths),
        _ => compare_lanes::<i16>(a, b, imm, lengths),
    }
}

fn compare_lanes<T: bytemuck::Pod + Ord + Default>(
    a: V128,
    b: V128,
    imm: u8,
    lengths: Option<[i64; 2]>,
) -> Comparison {
    let (a, b) = (a.lanes::<T>(), b.lanes::<T>());
    let count = a.len();
    let [la, lb] = match lengths {
        Some(lengths) => lengths.map(|length| length.unsigned_abs().min(count as u64) as usize),
        None => [a, b].map(|s| s.iter().position(|&x| x == T::default()).unwrap_or(count)),
    };
    let (a_valid, b_valid) = (&a[..la], &b[..lb]);
    let bits =
        |f: &dyn Fn(usize) -> bool, n: usize| -> u32 { (0..n).map(|i| u32::from(f(i)) << i).sum() };
    let first = match imm >> 2 & 3 {
        // Equal any.
        0 => bits(&|j| a_valid.contains(&b[j]), lb),
        // Ranges.
        1 => bits(&|j| a_valid.chunks_exact(2).any(|r| r[0] <= b[j] && b[j] <= r[1]), lb),
        // Equal each: two ended strings are equal, too.
        2 => bits(&|j| if j < la && j < lb { a[j] == b[j] } else { j >= la && j >= lb }, count),
        // Equal ordered: `a` begins at place j of `b`, whose end counts as the end of the vector.
        _ => bits(
            &|j| {
                a_valid
                    .iter()
                    .take(count - j)
                    .enumerate()
                    .all(|(i, &x)| j + i < lb && x == b[j + i])
            },
            count,
        ),
    };
    let all = (1u32 << count) - 1;
    let result = match imm >> 4 & 3 {
        1 => first ^ all,
        3 => first ^ (((1u64 << b_valid.len()) - 1) as u32),
        _ => first,
    };
    let flag = |condition: bool, flag: u32| if condition { flag } else { 0 };
    Comparison {
        result,
        count: count as u32,
        flags: flag(result != 0, CF)
            | flag(lb < count, ZF)
            | flag(la < count, SF)
            | flag(result & 1 != 0, OF),
    }
}

/// PCMPESTRI, PCMPISTRI: what ECX becomes, and the arithmetic flags (AF and PF are clear). `lengths` are those of `a` and
/// `b` (EAX, EDX sign-extended, or RAX, RDX) for the explicit forms.
pub fn pcmpstri(a: &V256, b: &V256, imm: u8, lengths: Option<[i64; 2]>) -> (u32, u32) {
    let Comparison { result, count, flags } = compare(V128::low(a), V128::low(b), imm, lengths);
    let index = if result == 0 {
        count
    } else if imm & 0x40 == 0 {
        result.trailing_zeros()
    } else {
        31 - result.leading_zeros()
    };
    (index, flags)
}

/// PCMPESTRM, PCMPISTRM: what XMM0 becomes (the upper half is zero), and the arithmetic flags; see [`pcmpstri`].
pub fn pcmpstrm(a: &V256, b: &V256, imm: u8, lengths: Option<[i64; 2]>) -> (V256, u32) {
    let Comparison { result, count, flags } = compare(V128::low(a), V128::low(b), imm, lengths);
    let set = |i: usize| result >> i & 1 != 0;
    let mask = match (imm & 0x40 != 0, count) {
        (false, _) => V128([u64::from(result), 0]),
        (true, 16) => V128::build(|i| if set(i) { u8::MAX } else { 0 }),
        (true, _) => V128::build(|i| if set(i) { u16::MAX } else { 0 }),
    };
    (V256([mask.0[0], mask.0[1], 0, 0]), flags)
}

/// CRC32's table: the remainder of each byte by the Castagnoli polynomial 11EDC6F41h, bits reflected.
static CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// CRC32: `crc` after the low `bytes` bytes of `data` (1, 2, 4 or 8). The destination's upper half becomes zero.
pub fn crc32(crc: u32, data: u64, bytes: u8) -> u32 {
    data.to_le_bytes()
        .iter()
        .take(usize::from(bytes))
        .fold(crc, |crc, &byte| (crc >> 8) ^ CRC32C[usize::from(crc as u8 ^ byte)])
}
