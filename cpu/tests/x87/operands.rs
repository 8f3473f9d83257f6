//! Random machines to start from.

use crate::host::{Machine, Memory};
use crate::random::Random;

/// One of several.
fn pick<T: Copy>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize]
}

const BIAS: i64 = 0x3fff;

/// Exponents at which the smaller formats and integers end, and from which an adjusted exponent falls out of range.
const ENDS: [i64; 18] = [
    -126, -127, -149, -150, -1022, -1023, -1074, -1075, 127, 128, 1023, 1024, 15, 31, 59, 63,
    24576, -24576,
];

/// A biased exponent, often near the last one.
fn exponent(random: &mut Random, last: &mut i64) -> u16 {
    let e = match random.below(10) {
        0 => random.below(3) as i64,
        1 => 0x7fff - random.below(3) as i64,
        2 | 3 => BIAS + random.below(9) as i64 - 4,
        4 => BIAS + random.below(141) as i64 - 70,
        5 => BIAS + pick(random, &ENDS) + random.below(5) as i64 - 2,
        6 => random.below(0x8000) as i64,
        7 => *last + random.below(131) as i64 - 65,
        _ => *last + random.below(5) as i64 - 2,
    };
    *last = e.clamp(0, 0x7fff);
    *last as u16
}

/// A significand of 64 bits with the integer bit as a rule: long, short, near ties of every precision.
fn significand(random: &mut Random) -> u64 {
    let bits = random.next();
    let top = match random.below(10) {
        0 | 1 => 0,
        2 => u64::MAX,
        3 => 1 << (bits & 63),
        4 => u64::MAX << (bits & 63),
        5 => {
            let place = pick(random, &[10, 11, 39, 40, 31, 47, 0, 62]);
            (bits << place | 1 << place).wrapping_add(random.below(3)).wrapping_sub(1)
        }
        6 => bits & bits.rotate_left(7) & bits.rotate_left(23),
        _ => bits,
    };
    if random.below(24) == 0 { top } else { top | 1 << 63 }
}

/// 80 bits of every kind.
pub(crate) fn extended(random: &mut Random, last: &mut i64) -> [u8; 10] {
    let exp = exponent(random, last);
    let sig = match exp {
        0 => significand(random) << 1 >> 1 | random.below(2) << 63,
        _ => significand(random),
    };
    let sig = if exp == 0 && random.below(2) == 0 { 0 } else { sig };
    let sign = (random.below(2) as u16) << 15;
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&sig.to_le_bytes());
    bytes[8..].copy_from_slice(&(exp | sign).to_le_bytes());
    bytes
}

/// An operand in memory.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Operand {
    /// Of no meaning.
    None,
    /// binary32.
    F32,
    /// binary64.
    F64,
    /// 80 bits.
    F80,
    /// An integer of 16, 32 or 64 bits.
    Int,
    /// Packed decimal.
    Bcd,
    /// Any bytes: an image of the unit in whatever layout.
    Bytes,
}

/// A smaller format's encoding.
fn small(random: &mut Random, exp_bits: u32, frac_bits: u32) -> u64 {
    let max = (1 << exp_bits) - 1;
    let exp = match random.below(6) {
        0 | 1 => random.below(2),
        2 => max - random.below(2),
        3 => max / 2 + random.below(9) - 4,
        _ => random.below(max + 1),
    };
    let frac = match random.below(4) {
        0 => 0,
        1 => 1 << random.below(frac_bits.into()),
        _ => random.next(),
    };
    (random.below(2) << exp_bits | exp) << frac_bits | frac & ((1 << frac_bits) - 1)
}

fn memory(random: &mut Random, operand: Operand, last: &mut i64) -> Memory {
    let mut memory = [0; 128];
    let mut put = |bytes: &[u8]| memory[..bytes.len()].copy_from_slice(bytes);
    match operand {
        Operand::None => {}
        Operand::F32 => put(&small(random, 8, 23).to_le_bytes()),
        Operand::F64 => put(&small(random, 11, 52).to_le_bytes()),
        Operand::F80 => put(&extended(random, last)),
        Operand::Int => {
            let n = random.next() >> random.below(64);
            let n = if random.below(2) == 0 { n } else { n.wrapping_neg() };
            put(&n.to_le_bytes());
        }
        Operand::Bcd => {
            let mut bytes = [0; 10];
            // Now and then digits that are none.
            let base = if random.below(4) == 0 { 16 } else { 10 };
            for byte in &mut bytes[..9] {
                *byte = (random.below(base) << 4 | random.below(base)) as u8;
            }
            let digits = random.below(10) as usize;
            bytes[digits..9].fill(0);
            bytes[9] = random.next() as u8;
            put(&bytes);
        }
        Operand::Bytes => put(&[(); 16].map(|()| random.next().to_le_bytes()).concat()),
    }
    memory
}

/// Masks: mostly all set.
fn masks(random: &mut Random) -> u16 {
    match random.below(4) {
        0 | 1 => 0x3f,
        2 => 0x3f ^ 1 << random.below(6),
        _ => random.below(0x40) as u16,
    }
}

/// A machine without a pending exception.
pub(crate) fn machine(random: &mut Random, operand: Operand) -> Machine {
    let masks = masks(random);
    let control = masks | 0x40 | (random.below(32) as u16) << 8;
    let noted = if random.below(2) == 0 { 0 } else { random.below(0x80) as u16 & (masks | 0x40) };
    let codes = random.next() as u16 & 0x4700;
    let status = noted | codes | (random.below(8) as u16) << 11;
    let tags = (0..8).fold(0, |tags, n| {
        let empty = random.below(12) == 0;
        tags | if empty { 3 << (2 * n) } else { 0 }
    });
    let tags = match random.below(6) {
        0 => tags,
        // One register is empty, as a push wants it.
        _ => tags | 3 << (2 * ((status >> 11).wrapping_sub(1) & 7)),
    };
    let mut image = [0; 108];
    for (at, word) in [(0, control), (4, status), (8, tags)] {
        image[at..at + 2].copy_from_slice(&word.to_le_bytes());
    }
    let mut last = BIAS;
    for register in image[28..].chunks_exact_mut(10) {
        register.copy_from_slice(&extended(random, &mut last));
    }
    let flags = random.next() & crate::host::FLAGS;
    let memory = memory(random, operand, &mut last);
    Machine { image, memory, flags }
}
