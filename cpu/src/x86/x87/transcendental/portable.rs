//! The functions in integer arithmetic of 128 bits, rounded once: for hosts that are no x86-64, and as a check of those that are.
//!
//! Special operands have the results of the manual's tables (Intel SDM volume 2: FPATAN, FYL2X, FYL2XP1 and the others).
//! Angles are reduced by the processors' own pi of 66 bits (volume 1, 8.3.8).

use std::cmp::Ordering;

use super::wide::Wide;
use super::{Function, Outcome};
use crate::softfloat::extended::{Class, F80, divided_by_zero, invalid, round_wide, unusable};
use crate::softfloat::{Env, Flags, Precision};

/// Pi of 66 bits, halved, in units of 2^-65.
const HALF_PI: u128 = 0x3_243f_6a88_85a3_08d3;

/// What the operands come to, `a` being ST(0), `b` ST(1). Of the environment, rounding and masks count: precision is 64 bits.
pub fn evaluate(function: Function, env: Env, a: F80, b: F80) -> Outcome {
    let mut env = Env { precision: Precision::Extended, flags: Flags::empty(), ..env };
    let env = &mut env;
    let one = |result| Some([result, F80::ZERO]);
    let results = match function {
        Function::F2xm1 => one(f2xm1(env, a)),
        Function::Fyl2x => one(fyl2x(env, a, b)),
        Function::Fyl2xp1 => one(fyl2xp1(env, a, b)),
        Function::Fpatan => one(fpatan(env, a, b)),
        Function::Fptan | Function::Fsin | Function::Fcos | Function::Fsincos => {
            trigonometric(function, env, a)
        }
    };
    Outcome {
        results: results.unwrap_or_default(),
        flags: env.flags,
        out_of_range: results.is_none(),
    }
}

/// A result rounded to the format.
fn round(env: &mut Env, value: Wide) -> F80 {
    if value.sig == 0 {
        return F80::zero(value.negative);
    }
    round_wide(env, value.negative, value.exp, value.sig)
}

/// As [`round`], for a value that is irrational, so that where its expansion happens to end is chance.
fn round_inexact(env: &mut Env, value: Wide) -> F80 {
    round(env, Wide { sig: value.sig | 1, ..value })
}

/// 2^a - 1; beyond -1 to 1, where it is undefined, `a` as processors return it.
fn f2xm1(env: &mut Env, a: F80) -> F80 {
    if let Some(result) = unusable(env, [a]) {
        return result;
    }
    match a.class() {
        Class::Infinity if a.is_negative() => return F80::ONE.negate(),
        Class::Zero | Class::Infinity => return a,
        _ => {}
    }
    // Even of 1, as processors have it.
    env.raise(Flags::INEXACT);
    let x = Wide::from_extended(a);
    match x.cmp_magnitude(Wide::ONE) {
        Ordering::Equal if a.is_negative() => round(env, x.scale(-1)),
        Ordering::Equal | Ordering::Greater => a,
        Ordering::Less => round_inexact(env, x.mul(Wide::LN_2).exp_m1()),
    }
}

/// b * log2(a).
fn fyl2x(env: &mut Env, a: F80, b: F80) -> F80 {
    if let Some(result) = unusable(env, [a, b]) {
        return result;
    }
    let negative = b.is_negative();
    match (a.class(), b.class()) {
        (Class::Zero, Class::Zero) => return invalid(env),
        (Class::Zero, Class::Infinity) => return F80::infinity(!negative),
        (Class::Zero, _) => return divided_by_zero(env, !negative),
        _ if a.is_negative() => return invalid(env),
        (Class::Infinity, Class::Zero) => return invalid(env),
        (Class::Infinity, _) => return F80::infinity(negative),
        _ if a == F80::ONE => {
            return if b.class() == Class::Infinity { invalid(env) } else { F80::zero(negative) };
        }
        _ => {}
    }
    scaled_log(env, log2(Wide::from_extended(a)), b)
}

/// b * log2(a + 1).
fn fyl2xp1(env: &mut Env, a: F80, b: F80) -> F80 {
    if let Some(result) = unusable(env, [a, b]) {
        return result;
    }
    let negative = a.is_negative() != b.is_negative();
    match (a.class(), b.class()) {
        (Class::Zero, Class::Infinity) | (Class::Infinity, Class::Zero) => return invalid(env),
        (Class::Infinity, _) if a.is_negative() => return invalid(env),
        (Class::Infinity, _) => return F80::infinity(negative),
        (Class::Zero, _) | (_, Class::Zero) => return F80::zero(negative),
        (_, Class::Infinity) => return F80::infinity(negative),
        _ => {}
    }
    let x = Wide::from_extended(a);
    let log = if x.exp < -1 {
        // ln(1 + x) = ln((1 + z) / (1 - z)) for z = x / (2 + x).
        let z = x.div(x.add(Wide::ONE.scale(1)));
        z.log_ratio().mul(Wide::LOG2_E)
    } else {
        let sum = x.add(Wide::ONE);
        if sum.negative || sum.sig == 0 {
            // Undefined: the operand, as processors return it.
            env.raise(Flags::INEXACT);
            return a;
        }
        log2(sum)
    };
    scaled_log(env, log, b)
}

/// `log * b`, neither a NaN.
fn scaled_log(env: &mut Env, log: Wide, b: F80) -> F80 {
    let negative = log.negative != b.is_negative();
    match b.class() {
        Class::Zero => F80::zero(negative),
        Class::Infinity => F80::infinity(negative),
        _ => {
            let result = round(env, log.mul(Wide::from_extended(b)));
            // Even of a power of two, as processors have it.
            env.raise(Flags::INEXACT);
            if result.class() == Class::Denormal {
                env.raise(Flags::UNDERFLOW);
            }
            result
        }
    }
}

/// The binary logarithm of a positive number.
fn log2(x: Wide) -> Wide {
    // x = m * 2^k, m between about 2/3 and 4/3: a sum of k and a logarithm of m does not cancel.
    let above = x.sig >= 0xaaaa << 112;
    let k = x.exp + i32::from(above);
    let m = Wide { exp: -i32::from(above), ..x };
    let ratio = m.sub(Wide::ONE).div(m.add(Wide::ONE));
    Wide::new(k.into(), 0).add(ratio.log_ratio().mul(Wide::LOG2_E))
}

/// The angle of the point (a, b), between -pi and pi.
fn fpatan(env: &mut Env, a: F80, b: F80) -> F80 {
    if let Some(result) = unusable(env, [a, b]) {
        return result;
    }
    let signed = |angle: Wide| Wide { negative: b.is_negative(), ..angle };
    let quarter = Wide::PI.scale(-2);
    let left = a.is_negative();
    let angle = match (a.class(), b.class()) {
        (Class::Infinity, Class::Infinity) if left => quarter.add(quarter.scale(1)),
        (Class::Infinity, Class::Infinity) => quarter,
        (_, Class::Zero) | (Class::Infinity, _) if left => Wide::PI,
        (_, Class::Zero) | (Class::Infinity, _) => return F80::zero(b.is_negative()),
        (Class::Zero, _) | (_, Class::Infinity) => Wide::PI.scale(-1),
        _ => {
            let (x, y) = (Wide::from_extended(a.abs()), Wide::from_extended(b.abs()));
            // The angle to the nearer axis.
            let steep = y.cmp_magnitude(x).is_gt();
            let ratio = if steep { x.div(y) } else { y.div(x) };
            let angle = ratio.atan();
            match (steep, left) {
                (false, false) => angle,
                (false, true) => Wide::PI.sub(angle),
                (true, false) => Wide::PI.scale(-1).sub(angle),
                (true, true) => Wide::PI.scale(-1).add(angle),
            }
        }
    };
    round_inexact(env, signed(angle))
}

/// FSIN, FCOS, FSINCOS, FPTAN; `None` for magnitudes from 2^63 on.
fn trigonometric(function: Function, env: &mut Env, a: F80) -> Option<[F80; 2]> {
    if let Some(nan) = unusable(env, [a]) {
        return Some([nan, nan]);
    }
    match a.class() {
        Class::Infinity => {
            let nan = invalid(env);
            return Some([nan, nan]);
        }
        Class::Zero => {
            return Some(match function {
                Function::Fcos => [F80::ONE, F80::ZERO],
                _ => [a, F80::ONE],
            });
        }
        _ => {}
    }
    let x = Wide::from_extended(a);
    if x.exp >= 63 {
        return None;
    }
    let (quadrant, angle) = reduce(x);
    let (sin, cos) = angle.sin_cos();
    let (sin, cos) = match quadrant & 3 {
        0 => (sin, cos),
        1 => (cos, sin.negate()),
        2 => (sin.negate(), cos.negate()),
        _ => (cos.negate(), sin),
    };
    Some(match function {
        Function::Fsin => [round_inexact(env, sin), F80::ZERO],
        Function::Fcos => [round_inexact(env, cos), F80::ZERO],
        // So little above the angle that the quotient of the two does not show it.
        Function::Fptan if quadrant & 1 == 0 && angle.is_tiny() => {
            [round_inexact(env, angle), F80::ONE]
        }
        Function::Fptan => [round_inexact(env, sin.div(cos)), F80::ONE],
        _ => [round_inexact(env, sin), round_inexact(env, cos)],
    })
}

/// The nearest multiple of pi / 2, counted modulo 4, and the rest.
fn reduce(x: Wide) -> (u8, Wide) {
    if x.exp < -2 {
        return (0, x);
    }
    // In units of 2^-65: at most 128 bits.
    let units = (x.sig >> 64) << (x.exp + 2);
    let (mut k, mut rest) = (units / HALF_PI, (units % HALF_PI) as i128);
    if rest as u128 > HALF_PI / 2 {
        k += 1;
        rest -= HALF_PI as i128;
    }
    let quadrant = (k & 3) as u8;
    if x.negative {
        (quadrant.wrapping_neg(), Wide::new(-rest, -65))
    } else {
        (quadrant, Wide::new(rest, -65))
    }
}
