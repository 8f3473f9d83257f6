//! AES rounds (Intel SDM volume 2, AESENC and so on; FIPS 197). A state's byte `4 * column + row` is byte
//! `4 * column + row` of the vector.

use super::vector::{V128, Vector};

/// A product of GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197, 4.2).
const fn product(mut a: u8, mut b: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = (a << 1) ^ (0x1b & 0u8.wrapping_sub(a >> 7));
        b >>= 1;
    }
    sum
}

/// SubBytes' table (FIPS 197, 5.1.1): the inverse, transformed.
const SUB: [u8; 256] = {
    let mut table = [0x63; 256];
    let mut a = 0u8;
    loop {
        // The inverse is the 254th power.
        let mut inverse = 1u8;
        let mut i = 0;
        while i < 254 {
            inverse = product(inverse, a);
            i += 1;
        }
        let b = if a == 0 { 0 } else { inverse };
        table[a as usize] =
            b ^ b.rotate_left(1) ^ b.rotate_left(2) ^ b.rotate_left(3) ^ b.rotate_left(4) ^ 0x63;
        if a == 0xff {
            break;
        }
        a += 1;
    }
    table
};

/// The inverse of [`SUB`].
const INV_SUB: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[SUB[i] as usize] = i as u8;
        i += 1;
    }
    table
};

/// A column whose bytes are a byte's products with `factors`, for every byte.
const fn columns(factors: [u8; 4]) -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut bytes = [0; 4];
        let mut row = 0;
        while row < 4 {
            bytes[row] = product(i as u8, factors[row]);
            row += 1;
        }
        table[i] = u32::from_le_bytes(bytes);
        i += 1;
    }
    table
}

/// MixColumns' first column (FIPS 197, 5.1.3).
static MIX: [u32; 256] = columns([2, 1, 1, 3]);
/// InvMixColumns' first column (FIPS 197, 5.3.3).
static INV_MIX: [u32; 256] = columns([14, 9, 13, 11]);

/// Each column multiplied by the matrix with the given first column.
fn mix(table: &[u32; 256], state: V128) -> V128 {
    state.map::<u32>(|column| {
        let [a, b, c, d] = column.to_le_bytes().map(|byte| table[usize::from(byte)]);
        a ^ b.rotate_left(8) ^ c.rotate_left(16) ^ d.rotate_left(24)
    })
}

/// ShiftRows and SubBytes: row `r` moves left by `r`.
fn shift_sub(state: V128) -> V128 {
    let bytes = state.lanes::<u8>();
    V128::build(|i| SUB[usize::from(bytes[(i + i % 4 * 4) % 16])])
}

/// InvShiftRows and InvSubBytes.
fn inv_shift_sub(state: V128) -> V128 {
    let bytes = state.lanes::<u8>();
    V128::build(|i| INV_SUB[usize::from(bytes[(i + 16 - i % 4 * 4) % 16])])
}

fn xor(a: V128, b: V128) -> V128 {
    a.zip::<u64>(b, |a, b| a ^ b)
}

pub(super) fn aesenc(a: V128, b: V128) -> V128 {
    xor(mix(&MIX, shift_sub(a)), b)
}

pub(super) fn aesenclast(a: V128, b: V128) -> V128 {
    xor(shift_sub(a), b)
}

pub(super) fn aesdec(a: V128, b: V128) -> V128 {
    xor(mix(&INV_MIX, inv_shift_sub(a)), b)
}

pub(super) fn aesdeclast(a: V128, b: V128) -> V128 {
    xor(inv_shift_sub(a), b)
}

pub(super) fn aesimc(b: V128) -> V128 {
    mix(&INV_MIX, b)
}

pub(super) fn aeskeygenassist(b: V128, imm: u8) -> V128 {
    let words = b.lanes::<u32>();
    V128::build::<u32>(|i| {
        let word = words[i | 1].to_le_bytes().map(|byte| SUB[usize::from(byte)]);
        let word = u32::from_le_bytes(word);
        // The upper of each pair is the word after it was rotated right by a byte, with the round constant.
        if i % 2 == 0 { word } else { word.rotate_right(8) ^ u32::from(imm) }
    })
}
