//! The short ways of x87 against the complete operations, which `x87_host` compares with the host: they end in the same state,
//! or change nothing, and they are taken as often as it is their purpose.
#![cfg(target_arch = "x86_64")]

#[path = "x87/host.rs"]
#[macro_use]
#[allow(dead_code, unsafe_code, unused_macros)]
mod host;
#[path = "x87/operands.rs"]
#[allow(dead_code)]
mod operands;
#[path = "x87/random.rs"]
mod random;

use host::Machine;
use mimic_cpu::softfloat::Quietness::{Quiet, Signalling};
use mimic_cpu::softfloat::{F32, F64, F80};
use mimic_cpu::x86::x87::{Arith, Constant, Format, State};
use operands::{Operand, machine};
use random::Random;

const CASES: usize = if cfg!(debug_assertions) { 20_000 } else { 400_000 };
/// The control word after FNINIT.
const INITIAL: u16 = 0x37f;

/// A short way: whether it was gone.
type Short = fn(&mut State, &Machine) -> bool;
type Complete = fn(&mut State, &Machine);

fn state(random: &mut Random, machine: &mut Machine) -> State {
    // The initial control word as a rule, one that rounds otherwise now and then.
    if random.below(4) != 0 {
        machine.image[..2].copy_from_slice(&INITIAL.to_le_bytes());
    }
    let mut state = State::default();
    state.frstor(Format::Protected32, &machine.image);
    state
}

fn agree(forms: &[(&str, Operand, Short, Complete)]) {
    for &(name, operand, short, complete) in forms {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut gone = 0;
        for _ in 0..CASES {
            let mut machine = machine(&mut random, operand);
            let start = state(&mut random, &mut machine);
            let mut is = start.clone();
            if short(&mut is, &machine) {
                gone += 1;
                let mut expected = start.clone();
                complete(&mut expected, &machine);
                assert_eq!(is, expected, "{name} from {start:x?}, memory {:x?}", machine.memory);
            } else {
                assert_eq!(is, start, "{name}: changes something and goes no short way");
            }
        }
        assert!(gone > CASES / 12, "{name}: {gone} of {CASES} short");
    }
}

/// The first bytes of memory as a value.
macro_rules! read {
    ($m:ident, $type:ty) => {
        <$type>::from_le_bytes(*$m.memory.first_chunk().unwrap())
    };
}

macro_rules! arithmetic {
    ($($op:ident)+) => {
        &[$(
            (
                concat!(stringify!($op), " st, st(1)"),
                Operand::None,
                |s, _| s.usual_arith(Arith::$op, 0, 1, false),
                |s, _| s.arith(Arith::$op, 0, 1, false),
            ),
            (
                concat!(stringify!($op), " st(2), st, pop"),
                Operand::None,
                |s, _| s.usual_arith(Arith::$op, 2, 0, true),
                |s, _| s.arith(Arith::$op, 2, 0, true),
            ),
            (
                concat!(stringify!($op), " m32fp"),
                Operand::F32,
                |s, m| s.usual_arith_memory::<F32>(Arith::$op, read!(m, u32).into()),
                |s, m| s.arith_m32(Arith::$op, read!(m, u32)),
            ),
            (
                concat!(stringify!($op), " m64fp"),
                Operand::F64,
                |s, m| s.usual_arith_memory::<F64>(Arith::$op, read!(m, u64)),
                |s, m| s.arith_m64(Arith::$op, read!(m, u64)),
            ),
            (
                concat!(stringify!($op), " m16int"),
                Operand::Int,
                |s, m| s.usual_arith_int(Arith::$op, read!(m, i16)),
                |s, m| s.arith_int(Arith::$op, read!(m, i16)),
            ),
            (
                concat!(stringify!($op), " m32int"),
                Operand::Int,
                |s, m| s.usual_arith_int(Arith::$op, read!(m, i32)),
                |s, m| s.arith_int(Arith::$op, read!(m, i32)),
            ),
        )+]
    };
}

#[test]
fn arithmetic() {
    agree(arithmetic!(Add Sub Subr Mul Div Divr));
    agree(&[
        ("sqrt", Operand::None, |s, _| s.usual_sqrt(), |s, _| s.fsqrt()),
        ("abs", Operand::None, |s, _| s.usual_sign(F80::abs), |s, _| s.fabs()),
        ("chs", Operand::None, |s, _| s.usual_sign(F80::negate), |s, _| s.fchs()),
    ]);
}

#[test]
fn loads_and_moves() {
    agree(&[
        ("fld st(3)", Operand::None, |s, _| s.usual_fld(3), |s, _| s.fld(3)),
        (
            "fld m32fp",
            Operand::F32,
            |s, m| s.usual_fld_memory::<F32>(read!(m, u32).into()),
            |s, m| s.fld_m32(read!(m, u32)),
        ),
        (
            "fld m64fp",
            Operand::F64,
            |s, m| s.usual_fld_memory::<F64>(read!(m, u64)),
            |s, m| s.fld_m64(read!(m, u64)),
        ),
        (
            "fild m16int",
            Operand::Int,
            |s, m| s.usual_fild(read!(m, i16)),
            |s, m| s.fild(read!(m, i16)),
        ),
        (
            "fild m64int",
            Operand::Int,
            |s, m| s.usual_fild(read!(m, i64)),
            |s, m| s.fild(read!(m, i64)),
        ),
        (
            "fld1",
            Operand::None,
            |s, _| s.usual_fld_constant(F80::ONE),
            |s, _| s.fld_constant(Constant::One),
        ),
        (
            "fldz",
            Operand::None,
            |s, _| s.usual_fld_constant(F80::ZERO),
            |s, _| s.fld_constant(Constant::Zero),
        ),
        ("fst st(2)", Operand::None, |s, _| s.usual_fst(2, false), |s, _| s.fst(2, false)),
        ("fstp st(2)", Operand::None, |s, _| s.usual_fst(2, true), |s, _| s.fst(2, true)),
        ("fxch st(2)", Operand::None, |s, _| s.usual_fxch(2), |s, _| s.fxch(2)),
    ]);
}

/// A store by its short way, and by the complete one; what is stored is compared here.
macro_rules! stores {
    ($($name:literal: $short:expr, $complete:expr;)+) => {
        &[$((
            $name,
            Operand::None,
            |s, _| {
                let Some(store) = $short(s) else { return false };
                let complete = $complete(s);
                assert_eq!(store.value.map(u64::from), complete.value.map(u64::from), $name);
                s.complete(&store, true);
                true
            },
            |s, _| s.complete(&$complete(s), true),
        )),+]
    };
}

#[test]
fn stores() {
    agree(stores! {
        "fstp m32fp": State::usual_fst_memory::<F32>, State::fst_m32;
        "fstp m64fp": State::usual_fst_memory::<F64>, State::fst_m64;
    });
    macro_rules! integers {
        ($($name:literal: $type:ty;)+) => {
            &[$((
                $name,
                Operand::None,
                |s, _| {
                    let Some(store) = s.usual_fist::<$type>() else { return false };
                    assert_eq!(store, s.fist::<$type>(), $name);
                    s.complete(&store, true);
                    true
                },
                |s, _| s.complete(&s.fist::<$type>(), true),
            )),+]
        };
    }
    agree(integers! { "fistp m16int": i16; "fistp m32int": i32; "fistp m64int": i64; });
}

#[test]
fn comparisons() {
    agree(&[
        ("fcom st(1)", Operand::None, |s, _| s.usual_fcom(1, 0), |s, _| s.fcom(1, Signalling, 0)),
        ("fucompp", Operand::None, |s, _| s.usual_fcom(1, 2), |s, _| s.fcom(1, Quiet, 2)),
        (
            "fucomip st, st(1)",
            Operand::None,
            |s, _| {
                let expected = s.clone().fcomi(1, Quiet, true);
                let Some(flags) = s.usual_fcomi(1, true) else { return false };
                assert_eq!(flags, expected, "fucomip's flags");
                true
            },
            |s, _| {
                s.fcomi(1, Quiet, true);
            },
        ),
    ]);
}
