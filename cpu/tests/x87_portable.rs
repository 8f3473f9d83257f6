//! The portable transcendental functions against the host's: special results, exceptions and ranges equal, numbers within one
//! unit in the last place.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

#[path = "x87/host.rs"]
#[macro_use]
#[allow(dead_code)]
mod host;
#[path = "x87/operands.rs"]
#[allow(dead_code)]
mod operands;
#[path = "x87/random.rs"]
mod random;

use host::{Machine, Native};
use mimic_cpu::softfloat::{Env, F80, Flags, Rounding};
use mimic_cpu::x86::x87::transcendental::{Function, Outcome, portable};
use operands::{Operand, machine};
use random::Random;

const CASES: usize = if cfg!(debug_assertions) { 4_000 } else { 30_000 };

fn register(m: &Machine, i: usize) -> F80 {
    F80::from_bytes(*m.image[28 + 10 * i..].first_chunk().unwrap())
}

/// Places on the number line: neighbours differ by one.
fn place(a: F80) -> i128 {
    let exp = i128::from(a.sign_exp & 0x7fff).max(1);
    let magnitude = ((exp - 1) << 63) + i128::from(a.sig);
    if a.is_negative() { -magnitude } else { magnitude }
}

/// The host's outcome in the terms of ours.
fn outcome(function: Function, m: &Machine) -> Outcome {
    let status = m.word(4);
    let pushes = matches!(function, Function::Fptan | Function::Fsincos);
    let ranged = pushes || matches!(function, Function::Fsin | Function::Fcos);
    let out_of_range = ranged && status & 0x400 != 0;
    let results = match (out_of_range, pushes) {
        (true, _) => [F80::ZERO; 2],
        (false, true) => [register(m, 1), register(m, 0)],
        (false, false) => [register(m, 0), F80::ZERO],
    };
    Outcome { results, flags: Flags::from_x86(status as u8), out_of_range }
}

#[test]
fn agrees_with_the_host() {
    let functions: [(Function, Native); 8] = [
        (Function::F2xm1, native!("f2xm1")),
        (Function::Fyl2x, native!("fyl2x")),
        (Function::Fyl2xp1, native!("fyl2xp1")),
        (Function::Fpatan, native!("fpatan")),
        (Function::Fptan, native!("fptan")),
        (Function::Fsin, native!("fsin")),
        (Function::Fcos, native!("fcos")),
        (Function::Fsincos, native!("fsincos")),
    ];
    let mut wrong = Vec::new();
    for (function, native) in functions {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (mut apart, mut failures) = (0, 0);
        for _ in 0..CASES {
            let mut m = machine(&mut random, Operand::None);
            let rounding = random.below(4) as u16;
            // Masked, nothing noted, TOP 0, R7 empty.
            for (at, word) in [(0, 0x037f | rounding << 10), (4, 0), (8, 0xc000)] {
                m.image[at..at + 2].copy_from_slice(&word.to_le_bytes());
            }
            let (a, b) = (register(&m, 0), register(&m, 1));
            native(&mut m);
            let expected = outcome(function, &m);
            let env = Env::x86(Rounding::from_rc(rounding.into()));
            let is = portable::evaluate(function, env, a, b);
            let pushes = matches!(function, Function::Fptan | Function::Fsincos);
            let distance = (0..1 + usize::from(pushes))
                .map(|i| place(is.results[i]).abs_diff(place(expected.results[i])))
                .max();
            let distance = distance.filter(|_| !expected.out_of_range).unwrap_or(0);
            apart += usize::from(distance != 0);
            let flags = is.flags.difference(Flags::ROUNDED_UP);
            if distance > 1 || flags != expected.flags || is.out_of_range != expected.out_of_range {
                failures += 1;
                if failures < 8 {
                    wrong.push(format!(
                        "{function:?} {rounding} {a:x?} {b:x?}: {:x?} {flags:?}, host {:x?} {:?}",
                        is.results, expected.results, expected.flags
                    ));
                }
            }
        }
        println!("{function:?}: {apart} of {CASES} differ in the last place, {failures} by more");
        if failures != 0 {
            wrong.push(format!("{function:?}: {failures} wrong"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
