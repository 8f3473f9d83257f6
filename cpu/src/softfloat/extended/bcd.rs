//! Packed decimal: 18 digits and a sign in 10 bytes (Intel SDM volume 1, 4.7; volume 2: FBLD, FBSTP).

use super::convert::integral;
use super::{Class, Env, F80, Flags, convert};

/// "Packed BCD indefinite", the answer to an invalid conversion.
pub const BCD_INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];

/// The largest magnitude of 18 digits.
const MAX: u64 = 999_999_999_999_999_999;

/// Reads packed decimal: exact. A digit above 9, which the manual leaves undefined, counts as its value, as processors have it.
pub fn from_bcd(bytes: [u8; 10]) -> F80 {
    let [digits @ .., sign] = bytes;
    let magnitude = digits
        .iter()
        .rev()
        .fold(0u64, |n, byte| n * 100 + u64::from(byte >> 4) * 10 + u64::from(byte & 15));
    let value = convert::from_int(magnitude);
    if sign & 0x80 != 0 { value.negate() } else { value }
}

/// Rounds to an integer by the environment and writes it in packed decimal; `None`, and invalid, for what 18 digits do not
/// hold.
pub fn to_bcd(env: &mut Env, a: F80) -> Option<[u8; 10]> {
    let rounded = match a.class() {
        Class::Unsupported => None,
        _ => integral(env.rounding, a),
    };
    let Some((mut magnitude, flags)) = rounded.filter(|(magnitude, _)| *magnitude <= MAX) else {
        env.raise(Flags::INVALID);
        return None;
    };
    env.raise(flags);
    let mut bytes = [0; 10];
    for byte in &mut bytes[..9] {
        let pair = (magnitude % 100) as u8;
        *byte = pair / 10 << 4 | pair % 10;
        magnitude /= 100;
    }
    bytes[9] = u8::from(a.is_negative()) << 7;
    Some(bytes)
}
