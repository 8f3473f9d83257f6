//! The softfloat against the host's SSE, FMA and F16C units: results and flags, on special and random operands, in the
//! four rounding modes of MXCSR, as RISC-V (NaNs canonicalised) and as x86 (NaN propagation, DAZ, FTZ).
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::arch::asm;
use std::cmp::Ordering;

use mimic_cpu::softfloat::{
    self as sf, Env, F16, F32, F64, Flags, Format, InvalidInt, NanRule, Quietness, Rounding,
};

/// Cases per operation and environment; see [`environments`].
const CASES: usize = if cfg!(debug_assertions) { 4_000 } else { 100_000 };

/// One host instruction: MXCSR and operands in, result and MXCSR out.
type Host = fn(&mut u32, [u64; 3]) -> u64;
/// Ours.
type Soft = fn(&mut Env, [u64; 3]) -> u64;
/// A source of operands.
type Operand = fn(&mut Random) -> u64;

/// Defines a [`Host`] that loads the operands into xmm0, xmm1, xmm2 (or reads them in `{a}`), runs `insn` and takes the
/// result from xmm0 (or `{r}`).
macro_rules! host {
    ($($insn:literal),+) => {{
        fn run(mxcsr: &mut u32, [a, b, c]: [u64; 3]) -> u64 {
            let result: u64;
            let default = 0x1f80u32;
            // SAFETY: only the named registers and the stack slots pointed to are touched; every exception is masked in the
            // MXCSR given, and the default value, which Rust relies on, is back when the block ends.
            unsafe {
                asm!(
                    "ldmxcsr [{m}]",
                    "movq xmm0, {a}",
                    "movq xmm1, {b}",
                    "movq xmm2, {c}",
                    $($insn,)+
                    "stmxcsr [{m}]",
                    "ldmxcsr [{d}]",
                    m = in(reg) mxcsr,
                    d = in(reg) &default,
                    a = in(reg) a,
                    b = in(reg) b,
                    c = in(reg) c,
                    out("rax") result,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _,
                    options(nostack),
                );
            }
            result
        }
        run as Host
    }};
}

/// A small generator (xorshift64*, Vigna 2016): tests repeat exactly.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Operands of a format: ends of the range, values near one, short and long significands, NaNs.
fn float<F: Format>(random: &mut Random) -> u64 {
    let choice = random.next();
    let exp = match choice & 7 {
        0 => choice >> 32 & 1,
        1 => F::EXP_MAX as u64 - (choice >> 32 & 1),
        2..=4 => (F::BIAS as u64).wrapping_add((choice >> 32) % 9) - 4,
        _ => (choice >> 32) % (F::EXP_MAX as u64 + 1),
    };
    let bits = random.next();
    let frac = match choice >> 3 & 7 {
        0 => 0,
        1 => F::FRAC,
        2 => 1 << (bits % u64::from(F::FRAC_BITS)),
        3 => F::FRAC << (bits % u64::from(F::FRAC_BITS)),
        4 => bits & bits.rotate_left(7) & bits.rotate_left(23),
        _ => bits,
    };
    let sign = if choice >> 6 & 1 != 0 { F::SIGN } else { 0 };
    sign | exp << F::FRAC_BITS | frac & F::FRAC
}

fn integer(random: &mut Random) -> u64 {
    let choice = random.next();
    let short = random.next() >> (choice & 63);
    if choice & 64 != 0 { short.wrapping_neg() } else { short }
}

fn nothing(_: &mut Random) -> u64 {
    0
}

fn mxcsr(env: &Env) -> u32 {
    let rounding = match env.rounding {
        Rounding::NearestEven => 0,
        Rounding::Down => 1,
        Rounding::Up => 2,
        Rounding::TowardZero => 3,
        Rounding::NearestMaxMagnitude => unreachable!("x86 has no such mode"),
    };
    0x1f80 | rounding << 13 | u32::from(env.daz) << 6 | u32::from(env.ftz) << 15
}

/// MXCSR's exception bits (IE DE ZE OE UE PE) without DE, as ours.
fn flags(mxcsr: u32) -> Flags {
    let pairs = [
        (0, Flags::INVALID),
        (2, Flags::DIV_BY_ZERO),
        (3, Flags::OVERFLOW),
        (4, Flags::UNDERFLOW),
        (5, Flags::INEXACT),
    ];
    pairs.into_iter().filter(|(bit, _)| mxcsr >> bit & 1 != 0).map(|(_, flag)| flag).collect()
}

/// What a result is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Encoding of a format: a NaN is compared by RISC-V's rule and by x86's.
    Float { infinity: u64, canonical: u64, magnitude: u64 },
    /// Anything else: compared under x86's rules only.
    Plain,
}

fn of<F: Format>() -> Kind {
    Kind::Float { infinity: F::INFINITY, canonical: F::CANONICAL_NAN, magnitude: F::MAGNITUDE }
}

fn environments(kind: Kind) -> Vec<Env> {
    let mut all = Vec::new();
    for rounding in [Rounding::NearestEven, Rounding::TowardZero, Rounding::Down, Rounding::Up] {
        if kind != Kind::Plain {
            all.push(Env::riscv(rounding));
        }
        let x86 = Env {
            nan: NanRule::PropagateFirst,
            invalid_int: InvalidInt::Indefinite,
            ..Env::riscv(rounding)
        };
        all.push(x86);
        for (daz, ftz) in [(true, false), (false, true), (true, true)] {
            all.push(Env { daz, ftz, ..x86 });
        }
    }
    all
}

fn agree(name: &str, kind: Kind, operands: [Operand; 3], host: Host, soft: Soft) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut wrong = Vec::new();
    for start in environments(kind) {
        for _ in 0..CASES {
            let v = operands.map(|operand| operand(&mut random));
            let mut control = mxcsr(&start);
            let mut expected = host(&mut control, v);
            let mut expected_flags = flags(control);
            if let Kind::Float { infinity, canonical, magnitude } = kind
                && start.nan == NanRule::Canonical
                && expected & magnitude > infinity
            {
                expected = canonical;
                // x86 leaves fma(inf, 0, qNaN) valid, RISC-V does not.
                let zero_times_infinity =
                    |a: u64, b: u64| a & magnitude == 0 && b & magnitude == infinity;
                if name.starts_with("fma")
                    && (zero_times_infinity(v[0], v[1]) || zero_times_infinity(v[1], v[0]))
                {
                    expected_flags |= Flags::INVALID;
                }
            }
            let mut env = start;
            let result = soft(&mut env, v);
            if result != expected || env.flags != expected_flags {
                wrong.push(format!(
                    "{name} {v:x?}: {result:x} {:?}, host {expected:x} {expected_flags:?} in {start:?}",
                    env.flags
                ));
            }
        }
    }
    let shown = &wrong[..wrong.len().min(10)];
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), shown.join("\n"));
}

const S: Operand = float::<F32>;
const D: Operand = float::<F64>;
const H: Operand = float::<F16>;
const I: Operand = integer;
const NO: Operand = nothing;

/// A comparison's result as LAHF has it: ZF in bit 6, PF in bit 2, CF in bit 0.
fn ah(order: Option<Ordering>) -> u64 {
    match order {
        None => 0x45,
        Some(Ordering::Less) => 0x01,
        Some(Ordering::Equal) => 0x40,
        Some(Ordering::Greater) => 0,
    }
}

#[test]
fn add_sub_mul() {
    let s = of::<F32>();
    let d = of::<F64>();
    agree("addss", s, [S, S, NO], host!("addss xmm0, xmm1", "movd eax, xmm0"), |e, v| {
        sf::add::<F32>(e, v[0], v[1])
    });
    agree("addsd", d, [D, D, NO], host!("addsd xmm0, xmm1", "movq rax, xmm0"), |e, v| {
        sf::add::<F64>(e, v[0], v[1])
    });
    agree("subss", s, [S, S, NO], host!("subss xmm0, xmm1", "movd eax, xmm0"), |e, v| {
        sf::sub::<F32>(e, v[0], v[1])
    });
    agree("subsd", d, [D, D, NO], host!("subsd xmm0, xmm1", "movq rax, xmm0"), |e, v| {
        sf::sub::<F64>(e, v[0], v[1])
    });
    agree("mulss", s, [S, S, NO], host!("mulss xmm0, xmm1", "movd eax, xmm0"), |e, v| {
        sf::mul::<F32>(e, v[0], v[1])
    });
    agree("mulsd", d, [D, D, NO], host!("mulsd xmm0, xmm1", "movq rax, xmm0"), |e, v| {
        sf::mul::<F64>(e, v[0], v[1])
    });
}

#[test]
fn div_sqrt() {
    let s = of::<F32>();
    let d = of::<F64>();
    agree("divss", s, [S, S, NO], host!("divss xmm0, xmm1", "movd eax, xmm0"), |e, v| {
        sf::div::<F32>(e, v[0], v[1])
    });
    agree("divsd", d, [D, D, NO], host!("divsd xmm0, xmm1", "movq rax, xmm0"), |e, v| {
        sf::div::<F64>(e, v[0], v[1])
    });
    agree("sqrtss", s, [S, NO, NO], host!("sqrtss xmm0, xmm0", "movd eax, xmm0"), |e, v| {
        sf::sqrt::<F32>(e, v[0])
    });
    agree("sqrtsd", d, [D, NO, NO], host!("sqrtsd xmm0, xmm0", "movq rax, xmm0"), |e, v| {
        sf::sqrt::<F64>(e, v[0])
    });
}

#[test]
fn fma() {
    if !std::arch::is_x86_feature_detected!("fma") {
        eprintln!("skipped: the host has no FMA");
        return;
    }
    // xmm1 = xmm0 * xmm1 + xmm2; a NaN is taken from the terms in the formula's order (Intel SDM volume 1, 14.5.2).
    agree(
        "fmass",
        of::<F32>(),
        [S, S, S],
        host!("vfmadd213ss xmm1, xmm0, xmm2", "movd eax, xmm1"),
        |e, v| sf::fma::<F32>(e, v[0], v[1], v[2]),
    );
    agree(
        "fmasd",
        of::<F64>(),
        [D, D, D],
        host!("vfmadd213sd xmm1, xmm0, xmm2", "movq rax, xmm1"),
        |e, v| sf::fma::<F64>(e, v[0], v[1], v[2]),
    );
}

#[test]
fn compare() {
    agree(
        "ucomiss",
        Kind::Plain,
        [S, S, NO],
        host!("ucomiss xmm0, xmm1", "lahf", "movzx eax, ah", "and eax, 0x45"),
        |e, v| ah(sf::compare::<F32>(e, v[0], v[1], Quietness::Quiet)),
    );
    agree(
        "comiss",
        Kind::Plain,
        [S, S, NO],
        host!("comiss xmm0, xmm1", "lahf", "movzx eax, ah", "and eax, 0x45"),
        |e, v| ah(sf::compare::<F32>(e, v[0], v[1], Quietness::Signalling)),
    );
    agree(
        "ucomisd",
        Kind::Plain,
        [D, D, NO],
        host!("ucomisd xmm0, xmm1", "lahf", "movzx eax, ah", "and eax, 0x45"),
        |e, v| ah(sf::compare::<F64>(e, v[0], v[1], Quietness::Quiet)),
    );
    agree(
        "comisd",
        Kind::Plain,
        [D, D, NO],
        host!("comisd xmm0, xmm1", "lahf", "movzx eax, ah", "and eax, 0x45"),
        |e, v| ah(sf::compare::<F64>(e, v[0], v[1], Quietness::Signalling)),
    );
}

#[test]
fn convert_between_formats() {
    agree(
        "cvtss2sd",
        of::<F64>(),
        [S, NO, NO],
        host!("cvtss2sd xmm0, xmm0", "movq rax, xmm0"),
        |e, v| sf::convert::<F32, F64>(e, v[0]),
    );
    agree(
        "cvtsd2ss",
        of::<F32>(),
        [D, NO, NO],
        host!("cvtsd2ss xmm0, xmm0", "movd eax, xmm0"),
        |e, v| sf::convert::<F64, F32>(e, v[0]),
    );
    if !std::arch::is_x86_feature_detected!("f16c") {
        eprintln!("skipped: the host has no F16C");
        return;
    }
    agree(
        "vcvtph2ps",
        of::<F32>(),
        [H, NO, NO],
        host!("vcvtph2ps xmm0, xmm0", "movd eax, xmm0"),
        |e, v| sf::convert::<F16, F32>(e, v[0]),
    );
    // Immediate 4: round as MXCSR says.
    agree(
        "vcvtps2ph",
        of::<F16>(),
        [S, NO, NO],
        host!("vcvtps2ph xmm0, xmm0, 4", "movd eax, xmm0", "movzx eax, ax"),
        |e, v| sf::convert::<F32, F16>(e, v[0]),
    );
}

#[test]
fn convert_from_integers() {
    agree(
        "cvtsi2ss32",
        of::<F32>(),
        [I, NO, NO],
        host!("cvtsi2ss xmm0, {a:e}", "movd eax, xmm0"),
        |e, v| sf::from_int::<F32, _>(e, v[0] as i32),
    );
    agree(
        "cvtsi2sd32",
        of::<F64>(),
        [I, NO, NO],
        host!("cvtsi2sd xmm0, {a:e}", "movq rax, xmm0"),
        |e, v| sf::from_int::<F64, _>(e, v[0] as i32),
    );
    agree(
        "cvtsi2ss64",
        of::<F32>(),
        [I, NO, NO],
        host!("cvtsi2ss xmm0, {a}", "movd eax, xmm0"),
        |e, v| sf::from_int::<F32, _>(e, v[0] as i64),
    );
    agree(
        "cvtsi2sd64",
        of::<F64>(),
        [I, NO, NO],
        host!("cvtsi2sd xmm0, {a}", "movq rax, xmm0"),
        |e, v| sf::from_int::<F64, _>(e, v[0] as i64),
    );
    if !std::arch::is_x86_feature_detected!("avx512f") {
        eprintln!("skipped: the host has no unsigned conversions");
        return;
    }
    agree(
        "vcvtusi2ss32",
        of::<F32>(),
        [I, NO, NO],
        host!("vcvtusi2ss xmm0, xmm0, {a:e}", "movd eax, xmm0"),
        |e, v| sf::from_int::<F32, _>(e, v[0] as u32),
    );
    agree(
        "vcvtusi2sd32",
        of::<F64>(),
        [I, NO, NO],
        host!("vcvtusi2sd xmm0, xmm0, {a:e}", "movq rax, xmm0"),
        |e, v| sf::from_int::<F64, _>(e, v[0] as u32),
    );
    agree(
        "vcvtusi2ss64",
        of::<F32>(),
        [I, NO, NO],
        host!("vcvtusi2ss xmm0, xmm0, {a}", "movd eax, xmm0"),
        |e, v| sf::from_int::<F32, _>(e, v[0]),
    );
    agree(
        "vcvtusi2sd64",
        of::<F64>(),
        [I, NO, NO],
        host!("vcvtusi2sd xmm0, xmm0, {a}", "movq rax, xmm0"),
        |e, v| sf::from_int::<F64, _>(e, v[0]),
    );
}

#[test]
fn convert_to_integers() {
    agree("cvtss2si32", Kind::Plain, [S, NO, NO], host!("cvtss2si eax, xmm0"), |e, v| {
        sf::to_int::<F32, i32>(e, v[0]) as u32 as u64
    });
    agree("cvtss2si64", Kind::Plain, [S, NO, NO], host!("cvtss2si rax, xmm0"), |e, v| {
        sf::to_int::<F32, i64>(e, v[0]) as u64 as u64
    });
    agree("cvtsd2si32", Kind::Plain, [D, NO, NO], host!("cvtsd2si eax, xmm0"), |e, v| {
        sf::to_int::<F64, i32>(e, v[0]) as u32 as u64
    });
    agree("cvtsd2si64", Kind::Plain, [D, NO, NO], host!("cvtsd2si rax, xmm0"), |e, v| {
        sf::to_int::<F64, i64>(e, v[0]) as u64 as u64
    });
    if !std::arch::is_x86_feature_detected!("avx512f") {
        eprintln!("skipped: the host has no unsigned conversions");
        return;
    }
    agree("vcvtss2usi32", Kind::Plain, [S, NO, NO], host!("vcvtss2usi eax, xmm0"), |e, v| {
        sf::to_int::<F32, u32>(e, v[0]).into()
    });
    agree("vcvtss2usi64", Kind::Plain, [S, NO, NO], host!("vcvtss2usi rax, xmm0"), |e, v| {
        sf::to_int::<F32, u64>(e, v[0])
    });
    agree("vcvtsd2usi32", Kind::Plain, [D, NO, NO], host!("vcvtsd2usi eax, xmm0"), |e, v| {
        sf::to_int::<F64, u32>(e, v[0]).into()
    });
    agree("vcvtsd2usi64", Kind::Plain, [D, NO, NO], host!("vcvtsd2usi rax, xmm0"), |e, v| {
        sf::to_int::<F64, u64>(e, v[0])
    });
}

#[test]
fn round_to_integral() {
    if !std::arch::is_x86_feature_detected!("sse4.1") {
        eprintln!("skipped: the host has no SSE4.1");
        return;
    }
    // Immediate 4: round as MXCSR says; 8: without the inexact flag.
    agree(
        "roundss 4",
        of::<F32>(),
        [S, NO, NO],
        host!("roundss xmm0, xmm0, 4", "movd eax, xmm0"),
        |e, v| sf::round_to_integral_exact::<F32>(e, v[0]),
    );
    agree(
        "roundss 12",
        of::<F32>(),
        [S, NO, NO],
        host!("roundss xmm0, xmm0, 12", "movd eax, xmm0"),
        |e, v| sf::round_to_integral::<F32>(e, v[0]),
    );
    agree(
        "roundsd 4",
        of::<F64>(),
        [D, NO, NO],
        host!("roundsd xmm0, xmm0, 4", "movq rax, xmm0"),
        |e, v| sf::round_to_integral_exact::<F64>(e, v[0]),
    );
    agree(
        "roundsd 12",
        of::<F64>(),
        [D, NO, NO],
        host!("roundsd xmm0, xmm0, 12", "movq rax, xmm0"),
        |e, v| sf::round_to_integral::<F64>(e, v[0]),
    );
}
