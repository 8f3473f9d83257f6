//! SHA-1 and SHA-256 steps (Intel SDM volume 2, SHA1RNDS4 and so on; FIPS 180-4). Words are lanes of 32 bits.

use super::vector::{V128, Vector};

fn words(a: V128) -> [u32; 4] {
    [a.lane(0), a.lane(1), a.lane(2), a.lane(3)]
}

fn vector(words: [u32; 4]) -> V128 {
    V128::build(|i| words[i])
}

/// Four rounds with the function and constant that the immediate chooses (FIPS 180-4, 4.1.1, 4.2.1).
pub(super) fn sha1rnds4(state: V128, message: V128, imm: u8) -> V128 {
    let [mut d, mut c, mut b, mut a] = words(state);
    let mut e = 0u32;
    for word in words(message).into_iter().rev() {
        let (f, k) = match imm & 3 {
            0 => (b & c ^ !b & d, 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => (b & c ^ b & d ^ c & d, 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6u32),
        };
        let next = [f, a.rotate_left(5), word, e, k].into_iter().fold(0, u32::wrapping_add);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    vector([d, c, b, a])
}

pub(super) fn sha1nexte(a: V128, b: V128) -> V128 {
    b.with(3, a.lane::<u32>(3).rotate_left(30).wrapping_add(b.lane(3)))
}

pub(super) fn sha1msg1(a: V128, b: V128) -> V128 {
    let ([a0, a1, a2, a3], [_, _, b2, b3]) = (words(a), words(b));
    vector([b2 ^ a0, b3 ^ a1, a0 ^ a2, a1 ^ a3])
}

pub(super) fn sha1msg2(a: V128, b: V128) -> V128 {
    let ([a0, a1, a2, a3], [b0, b1, b2, _]) = (words(a), words(b));
    let first = (a3 ^ b2).rotate_left(1);
    vector([(a0 ^ first).rotate_left(1), (a1 ^ b0).rotate_left(1), (a2 ^ b1).rotate_left(1), first])
}

/// Two rounds; `wk` holds the sums of message words and constants (FIPS 180-4, 6.2.2).
pub(super) fn sha256rnds2(cdgh: V128, abef: V128, wk: V128) -> V128 {
    let ([mut h, mut g, mut d, mut c], [mut f, mut e, mut b, mut a]) = (words(cdgh), words(abef));
    for i in 0..2 {
        let choice = e & f ^ !e & g;
        let sum = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let t1 = [choice, sum, wk.lane(i), h].into_iter().fold(0, u32::wrapping_add);
        let majority = a & b ^ a & c ^ b & c;
        let sum = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let next = t1.wrapping_add(majority).wrapping_add(sum);
        (a, b, c, d, e, f, g, h) = (next, a, b, c, d.wrapping_add(t1), e, f, g);
    }
    vector([f, e, b, a])
}

pub(super) fn sha256msg1(a: V128, b: V128) -> V128 {
    let sigma0 = |x: u32| x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
    let [w0, w1, w2, w3] = words(a);
    let w4 = b.lane(0);
    vector([
        w0.wrapping_add(sigma0(w1)),
        w1.wrapping_add(sigma0(w2)),
        w2.wrapping_add(sigma0(w3)),
        w3.wrapping_add(sigma0(w4)),
    ])
}

pub(super) fn sha256msg2(a: V128, b: V128) -> V128 {
    let sigma1 = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
    let ([a0, a1, a2, a3], [_, _, w14, w15]) = (words(a), words(b));
    let w16 = a0.wrapping_add(sigma1(w14));
    let w17 = a1.wrapping_add(sigma1(w15));
    vector([w16, w17, a2.wrapping_add(sigma1(w16)), a3.wrapping_add(sigma1(w17))])
}
