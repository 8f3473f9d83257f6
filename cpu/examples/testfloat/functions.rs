//! TestFloat's functions and rounding modes by name, and RISC-V instructions that TestFloat has no function for.

use std::cmp::Ordering;

use mimic_cpu::softfloat::{self as sf, Env, F16, F32, F64, Format, Quietness, Rounding};

/// One of our operations on the operands of a TestFloat line.
pub(crate) type Operation = fn(&mut Env, &[u64]) -> u64;

/// The rounding direction TestFloat calls `mode`.
pub(crate) fn rounding(mode: &str) -> Option<Rounding> {
    Some(match mode {
        "near_even" => Rounding::NearestEven,
        "minMag" => Rounding::TowardZero,
        "min" => Rounding::Down,
        "max" => Rounding::Up,
        "near_maxMag" => Rounding::NearestMaxMagnitude,
        _ => return None,
    })
}

/// TestFloat's function of that name: its number of operands, and ours. `exact` matters to `roundToInt` alone: conversions
/// to integers always raise inexact, as on RISC-V and x86.
pub(crate) fn function(name: &str, exact: bool) -> Option<(usize, Operation)> {
    let (from, operation) = name.split_once('_')?;
    match from {
        "f16" => of_format::<F16>(operation, exact),
        "f32" => of_format::<F32>(operation, exact),
        "f64" => of_format::<F64>(operation, exact),
        _ => {
            let convert: Operation = match (from, operation) {
                ("ui32", "to_f16") => |env, v| sf::from_int::<F16, u32>(env, v[0] as u32),
                ("ui32", "to_f32") => |env, v| sf::from_int::<F32, u32>(env, v[0] as u32),
                ("ui32", "to_f64") => |env, v| sf::from_int::<F64, u32>(env, v[0] as u32),
                ("i32", "to_f16") => |env, v| sf::from_int::<F16, i32>(env, v[0] as i32),
                ("i32", "to_f32") => |env, v| sf::from_int::<F32, i32>(env, v[0] as i32),
                ("i32", "to_f64") => |env, v| sf::from_int::<F64, i32>(env, v[0] as i32),
                ("ui64", "to_f16") => |env, v| sf::from_int::<F16, u64>(env, v[0]),
                ("ui64", "to_f32") => |env, v| sf::from_int::<F32, u64>(env, v[0]),
                ("ui64", "to_f64") => |env, v| sf::from_int::<F64, u64>(env, v[0]),
                ("i64", "to_f16") => |env, v| sf::from_int::<F16, i64>(env, v[0] as i64),
                ("i64", "to_f32") => |env, v| sf::from_int::<F32, i64>(env, v[0] as i64),
                ("i64", "to_f64") => |env, v| sf::from_int::<F64, i64>(env, v[0] as i64),
                _ => return None,
            };
            Some((1, convert))
        }
    }
}

fn of_format<F: Format>(operation: &str, exact: bool) -> Option<(usize, Operation)> {
    let operation: (usize, Operation) = match operation {
        "add" => (2, |env, v| sf::add::<F>(env, v[0], v[1])),
        "sub" => (2, |env, v| sf::sub::<F>(env, v[0], v[1])),
        "mul" => (2, |env, v| sf::mul::<F>(env, v[0], v[1])),
        "div" => (2, |env, v| sf::div::<F>(env, v[0], v[1])),
        "sqrt" => (1, |env, v| sf::sqrt::<F>(env, v[0])),
        "mulAdd" => (3, |env, v| sf::fma::<F>(env, v[0], v[1], v[2])),
        "eq" => (2, |env, v| sf::eq::<F>(env, v[0], v[1]).into()),
        "lt" => (2, |env, v| sf::lt::<F>(env, v[0], v[1]).into()),
        "le" => (2, |env, v| sf::le::<F>(env, v[0], v[1]).into()),
        "lt_quiet" => (2, |env, v| sf::lt_quiet::<F>(env, v[0], v[1]).into()),
        "le_quiet" => (2, |env, v| sf::le_quiet::<F>(env, v[0], v[1]).into()),
        "eq_signaling" => (2, |env, v| {
            let order = sf::compare::<F>(env, v[0], v[1], Quietness::Signalling);
            (order == Some(Ordering::Equal)).into()
        }),
        "roundToInt" if exact => (1, |env, v| sf::round_to_integral_exact::<F>(env, v[0])),
        "roundToInt" => (1, |env, v| sf::round_to_integral::<F>(env, v[0])),
        "to_f16" => (1, |env, v| sf::convert::<F, F16>(env, v[0])),
        "to_f32" => (1, |env, v| sf::convert::<F, F32>(env, v[0])),
        "to_f64" => (1, |env, v| sf::convert::<F, F64>(env, v[0])),
        "to_ui32" => (1, |env, v| sf::to_int::<F, u32>(env, v[0]).into()),
        "to_i32" => (1, |env, v| sf::to_int::<F, i32>(env, v[0]) as u32 as u64),
        "to_ui64" => (1, |env, v| sf::to_int::<F, u64>(env, v[0])),
        "to_i64" => (1, |env, v| sf::to_int::<F, i64>(env, v[0]) as u64),
        "fmin" => (2, |env, v| sf::min_num::<F>(env, v[0], v[1])),
        "fmax" => (2, |env, v| sf::max_num::<F>(env, v[0], v[1])),
        "fminm" => (2, |env, v| sf::min::<F>(env, v[0], v[1])),
        "fmaxm" => (2, |env, v| sf::max::<F>(env, v[0], v[1])),
        "fclass" => (1, |_, v| sf::classify::<F>(v[0])),
        "fcvtmod_w" if F::WIDTH == 64 => {
            (1, |env, v| sf::modular_i32_from_f64(env, v[0]) as u32 as u64)
        }
        _ => return None,
    };
    Some(operation)
}
