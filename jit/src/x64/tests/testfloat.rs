//! Emitted code against figures of Berkeley TestFloat.

use mimic_cpu::riscv::sem::{Fmt, Fp1, Fp2};
use mimic_cpu::softfloat::Flags;

use super::machine::Machine;
use super::ops::block;
use crate::ir::{Block, Op, Round, Slot, Val};

type Make = fn(Fmt, Round, &[Val]) -> Op;

/// The operation of a TestFloat function, if it has one here.
fn testfloat(name: &str, round: Round, exact: bool) -> Option<(Fmt, Make, usize)> {
    let (from, function) = name.split_once('_')?;
    let fmt = |name| match name {
        "f32" => Some(Fmt::S),
        "f64" => Some(Fmt::D),
        _ => None,
    };
    if let Some(to) = function.strip_prefix("to_").and_then(fmt) {
        let make: Make = match from {
            "i32" => |f, r, v| Op::Fp1(Fp1::FromI32, f, r, v[0]),
            "ui32" => |f, r, v| Op::Fp1(Fp1::FromU32, f, r, v[0]),
            "i64" => |f, r, v| Op::Fp1(Fp1::FromI64, f, r, v[0]),
            "ui64" => |f, r, v| Op::Fp1(Fp1::FromU64, f, r, v[0]),
            "f32" => |f, r, v| Op::Fp1(Fp1::From(Fmt::S), f, r, v[0]),
            "f64" => |f, r, v| Op::Fp1(Fp1::From(Fmt::D), f, r, v[0]),
            _ => return None,
        };
        return (round == Round::Nearest || (from.ends_with("i32") && to == Fmt::D))
            .then_some((to, make, 1));
    }
    let from = fmt(from)?;
    let converts = matches!(function, "to_i32" | "to_ui32" | "to_i64" | "to_ui64");
    if round != Round::Nearest && !converts {
        return None;
    }
    let (make, arity): (Make, usize) = match function {
        "add" => (|f, _, v| Op::Fp2(Fp2::Add, f, v[0], v[1]), 2),
        "sub" => (|f, _, v| Op::Fp2(Fp2::Sub, f, v[0], v[1]), 2),
        "mul" => (|f, _, v| Op::Fp2(Fp2::Mul, f, v[0], v[1]), 2),
        "div" => (|f, _, v| Op::Fp2(Fp2::Div, f, v[0], v[1]), 2),
        "eq" => (|f, _, v| Op::Fp2(Fp2::Eq, f, v[0], v[1]), 2),
        "lt" => (|f, _, v| Op::Fp2(Fp2::Lt, f, v[0], v[1]), 2),
        "le" => (|f, _, v| Op::Fp2(Fp2::Le, f, v[0], v[1]), 2),
        "lt_quiet" => (|f, _, v| Op::Fp2(Fp2::Ltq, f, v[0], v[1]), 2),
        "le_quiet" => (|f, _, v| Op::Fp2(Fp2::Leq, f, v[0], v[1]), 2),
        "mulAdd" => (|f, _, v| Op::Fma(f, v[0], v[1], v[2]), 3),
        "sqrt" => (|f, r, v| Op::Fp1(Fp1::Sqrt, f, r, v[0]), 1),
        "roundToInt" if exact => (|f, r, v| Op::Fp1(Fp1::Roundnx, f, r, v[0]), 1),
        "roundToInt" => (|f, r, v| Op::Fp1(Fp1::Round, f, r, v[0]), 1),
        "to_i32" => (|f, r, v| Op::Fp1(Fp1::ToI32, f, r, v[0]), 1),
        "to_ui32" => (|f, r, v| Op::Fp1(Fp1::ToU32, f, r, v[0]), 1),
        "to_i64" => (|f, r, v| Op::Fp1(Fp1::ToI64, f, r, v[0]), 1),
        "to_ui64" => (|f, r, v| Op::Fp1(Fp1::ToU64, f, r, v[0]), 1),
        _ => return None,
    };
    Some((from, make, arity))
}

/// A TestFloat function as a block, from registers f10 to f12 (or x10) to f13 or x11.
struct Function {
    machine: Machine,
    block: Block,
    arity: usize,
    /// Bits of the result that count.
    mask: u64,
    to: Slot,
    from: Slot,
}

impl Function {
    fn new(name: &str, round: Round, exact: bool) -> Option<Function> {
        let (fmt, make, arity) = testfloat(name, round, exact)?;
        let from = if name.starts_with(['i', 'u']) { 10 } else { 74 };
        let mut ops: Vec<Op> = (0..arity).map(|k| Op::Get(from + k as Slot)).collect();
        let values: Vec<Val> = (0..arity as u32).map(Val).collect();
        ops.push(make(fmt, round, &values));
        let v = Val(ops.len() as u32 - 1);
        let integer = match ops[v.0 as usize] {
            Op::Fp2(op, ..) => matches!(op, Fp2::Eq | Fp2::Lt | Fp2::Le | Fp2::Ltq | Fp2::Leq),
            Op::Fp1(op, ..) => {
                matches!(op, Fp1::ToI32 | Fp1::ToU32 | Fp1::ToI64 | Fp1::ToU64)
            }
            _ => false,
        };
        let to = if integer { 11 } else { 77 };
        ops.push(Op::Set(to, v));
        let block = block(&ops);
        let mut machine = Machine::new();
        machine.engine.sticky = 0;
        machine.frame.counter = 1;
        machine.run(&block);
        let narrow = name.ends_with("i32") || !integer && fmt == Fmt::S;
        let mask = if narrow { 0xffff_ffff } else { u64::MAX };
        Some(Function { machine, block, arity, mask, to, from })
    }

    /// Whether the result and the flags are as expected.
    fn check(&mut self, operands: &[u64], result: u64, flags: u8) -> bool {
        self.machine.frame.regs[self.from as usize..][..self.arity].copy_from_slice(operands);
        self.machine.frame.counter = 1;
        self.machine.again();
        let is = self.machine.frame.regs[self.to as usize] & self.mask;
        let right = is == result && self.machine.raised(Flags::from_bits_retain(flags));
        if !right {
            let mxcsr = self.machine.frame.mxcsr;
            println!(
                "{operands:x?}: {is:x} {mxcsr:x}, expected {result:x} {flags:x}: {:?}",
                self.block.ops
            );
        }
        right
    }
}

fn hex(field: &str) -> u64 {
    u64::from_str_radix(field, 16).expect("a hexadecimal figure")
}

/// TestFloat's names, in the order of its figures.
const ROUNDS: [(&str, Round); 4] = [
    ("near_even", Round::Nearest),
    ("minMag", Round::Zero),
    ("min", Round::Down),
    ("max", Round::Up),
];

/// The figures that the softfloat is tested with, too.
#[test]
fn figures_of_testfloat() {
    let data = include_str!("../../../../cpu/tests/data/softfloat/testfloat.txt");
    let (mut functions, mut checks, mut wrong) = (0, 0, 0);
    let mut current: [Option<Function>; 4] = [const { None }; 4];
    for line in data.lines().filter(|line| !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix("> ") {
            let (name, exact) = header.split_once(' ').expect("function and exactness");
            let exact = exact == "exact";
            current = ROUNDS.map(|(_, round)| Function::new(name, round, exact));
            functions += current.iter().flatten().count();
            continue;
        }
        let fields: Vec<&str> = line.split(' ').collect();
        for (mode, function) in current.iter_mut().enumerate() {
            let Some(function) = function else { continue };
            let operands: Vec<u64> = fields[..function.arity].iter().map(|f| hex(f)).collect();
            let outcomes = &fields[function.arity..];
            // "=" stands for what comes before; a single outcome for all.
            let mode = mode.min(outcomes.len() - 1);
            let outcome = outcomes[..=mode].iter().rfind(|&&o| o != "=").expect("an outcome");
            let (result, flags) = outcome.split_once('/').expect("result/flags");
            checks += 1;
            wrong += u32::from(!function.check(&operands, hex(result), hex(flags) as u8));
        }
    }
    assert_eq!((functions, wrong), (FIGURES.0, 0));
    assert!(checks > FIGURES.1, "{checks}");
}

/// Functions (with their roundings), and figures at least.
const FIGURES: (usize, usize) = (74, 7000);

/// Checks emitted code against Berkeley TestFloat's generator (its RISC-V build), read from standard input:
///
/// ```text
/// testfloat_gen -rnear_even -tininessafter -exact f64_add | TESTFLOAT=f64_add cargo test -p mimic-jit --lib -- --ignored testfloat_gen
/// ```
///
/// `TESTFLOAT` is the function, followed by `minMag`, `min` or `max` if rounded so, and `notexact` if generated so. Says nothing of a function that is
/// not translated.
#[test]
#[ignore = "needs TestFloat's generator on standard input"]
fn testfloat_gen() {
    let what = std::env::var("TESTFLOAT").expect("TESTFLOAT: a function");
    let mut words = what.split(' ');
    let name = words.next().unwrap_or_default();
    let options: Vec<&str> = words.collect();
    let round = ROUNDS.iter().find(|(mode, _)| options.contains(mode)).unwrap_or(&ROUNDS[0]).1;
    let Some(mut function) = Function::new(name, round, !options.contains(&"notexact")) else {
        return println!("{what}: not translated");
    };
    let (mut cases, mut wrong) = (0u64, 0u64);
    for line in std::io::stdin().lines() {
        let line = line.expect("a line");
        let fields: Vec<u64> = line.split_whitespace().map(hex).collect();
        let (operands, outcome) = fields.split_at(function.arity);
        let &[result, flags] = outcome else { panic!("{line}") };
        cases += 1;
        wrong += u64::from(!function.check(operands, result, flags as u8));
        assert!(wrong < 20);
    }
    println!("{what}: {cases} cases, {wrong} wrong");
    assert!(cases > 0 && wrong == 0);
}
