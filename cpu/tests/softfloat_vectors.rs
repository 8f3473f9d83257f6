//! The softfloat against figures made by Berkeley TestFloat and by QEMU; the data files say how.

#[path = "../examples/testfloat/functions.rs"]
mod functions;

use functions::{function, rounding};
use mimic_cpu::softfloat::{Env, F32, F64, Flags, Tininess, convert};

const MODES: [&str; 5] = ["near_even", "minMag", "min", "max", "near_maxMag"];

fn hex(field: &str) -> u64 {
    u64::from_str_radix(field, 16).expect("a hexadecimal figure")
}

/// Checks every line in every rounding mode; returns the number of sections and of single checks.
fn check(data: &str) -> (usize, usize) {
    let (mut sections, mut checks) = (0, 0);
    let mut wrong = Vec::new();
    let mut current = None;
    for line in data.lines().filter(|l| !l.starts_with('#')) {
        if let Some(header) = line.strip_prefix("> ") {
            let (name, exact) = header.split_once(' ').expect("function and exactness");
            let (arity, operation) = function(name, exact == "exact").expect("a known function");
            current = Some((header, arity, operation));
            sections += 1;
            continue;
        }
        let (header, arity, operation) = current.expect("a section");
        let fields: Vec<&str> = line.split(' ').collect();
        let operands: Vec<u64> = fields[..arity].iter().map(|f| hex(f)).collect();
        let outcomes = &fields[arity..];
        assert!(matches!(outcomes.len(), 1 | 5), "{header}: {line}");
        let mut expected = (0, 0);
        for (i, mode) in MODES.iter().enumerate() {
            match outcomes.get(i) {
                None | Some(&"=") => {}
                Some(outcome) => {
                    let (result, flags) = outcome.split_once('/').expect("result/flags");
                    expected = (hex(result), hex(flags) as u8);
                }
            }
            let mut env = Env::riscv(rounding(mode).expect("a known mode"));
            let result = operation(&mut env, &operands);
            checks += 1;
            if (result, env.flags.bits()) != expected {
                wrong.push(format!(
                    "{header} {mode} {operands:x?}: {result:x} {:?}, expected {:x} {:?}",
                    env.flags,
                    expected.0,
                    Flags::from_bits_retain(expected.1),
                ));
            }
        }
    }
    let shown = &wrong[..wrong.len().min(20)];
    assert!(wrong.is_empty(), "{} of {checks} wrong:\n{}", wrong.len(), shown.join("\n"));
    (sections, checks)
}

#[test]
fn agrees_with_testfloat() {
    let (sections, checks) = check(include_str!("data/softfloat/testfloat.txt"));
    // 17 operations and 2 conversions to formats of 3 formats, 12 from integers, fround's inexact-free form of 3.
    assert_eq!(sections, 17 * 3 + 2 * 3 + 12 + 3);
    assert!(checks > 40_000);
}

#[test]
fn agrees_with_qemu_on_min_max_class_and_modular_conversion() {
    let (sections, checks) = check(include_str!("data/softfloat/qemu.txt"));
    assert_eq!(sections, 2 * 4 + 2 + 1);
    assert!(checks > 10_000);
}

/// IEEE 754-2019, 7.5: (1 - 2^-26) * 2^-126 rounds to 2^-126 in binary32, with an unbounded exponent range as well: it is tiny
/// before rounding and not tiny after.
#[test]
fn tininess_before_and_after_rounding() {
    for (tininess, flags) in [
        (Tininess::AfterRounding, Flags::INEXACT),
        (Tininess::BeforeRounding, Flags::INEXACT | Flags::UNDERFLOW),
    ] {
        let mut env = Env { tininess, ..Env::default() };
        assert_eq!(convert::<F64, F32>(&mut env, 0x380f_ffff_f800_0000), 0x0080_0000);
        assert_eq!(env.flags, flags, "{tininess:?}");
    }
}
