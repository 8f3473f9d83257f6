//! Checks the softfloat against Berkeley TestFloat's generator, read from standard input:
//!
//! ```text
//! testfloat_gen -rnear_even -tininessafter -exact f64_add | cargo run --release -p mimic-cpu --example testfloat -- f64_add near_even
//! ```
//!
//! Arguments: TestFloat's function name, its rounding mode (`near_even`, `minMag`, `min`, `max`, `near_maxMag`), then
//! optionally `tininessbefore` and `notexact` when the generator was told so. Each input line holds the operands, the result and
//! the flags in hexadecimal. Use TestFloat's RISC-V build (SPECIALIZE_TYPE=RISCV), whose NaNs and saturation ours follow.
//! Prints the number of cases and the first mismatches; the exit status is 1 if there were any.

use std::io::{BufRead, Write};
use std::process::ExitCode;

use functions::{function, rounding};
use mimic_cpu::softfloat::{Env, Flags, Tininess};

mod functions;

const SHOWN: u64 = 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, mode, options @ ..] = args.as_slice() else {
        eprintln!("usage: testfloat FUNCTION ROUNDING [tininessbefore] [notexact]");
        return ExitCode::from(2);
    };
    let exact = !options.iter().any(|o| o == "notexact");
    let Some((arity, operation)) = function(name, exact) else {
        eprintln!("testfloat: unknown function {name}");
        return ExitCode::from(2);
    };
    let Some(rounding) = rounding(mode) else {
        eprintln!("testfloat: unknown rounding mode {mode}");
        return ExitCode::from(2);
    };
    let mut start = Env::riscv(rounding);
    if options.iter().any(|o| o == "tininessbefore") {
        start.tininess = Tininess::BeforeRounding;
    }

    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    let (mut cases, mut wrong) = (0u64, 0u64);
    while input.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let mut fields = [0u64; 5];
        let mut count = 0;
        for field in line.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty()) {
            if count < fields.len() {
                fields[count] = hex(field);
            }
            count += 1;
        }
        if count != arity + 2 {
            eprintln!("testfloat: {name}: {count} fields in a line");
            return ExitCode::from(2);
        }
        let mut env = start;
        let result = operation(&mut env, &fields[..arity]);
        let (expected, flags) = (fields[arity], Flags::from_bits_truncate(fields[arity + 1] as u8));
        cases += 1;
        if result != expected || env.flags != flags {
            wrong += 1;
            if wrong <= SHOWN {
                println!(
                    "{name} {mode}: {:x?} gave {result:x} {:?}, expected {expected:x} {flags:?}",
                    &fields[..arity],
                    env.flags
                );
            }
        }
        line.clear();
    }
    println!("{name} {mode} {}: {cases} cases, {wrong} wrong", options.join(" "));
    // A generator that failed must not look like success.
    if wrong == 0 && cases > 0 && std::io::stdout().flush().is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn hex(field: &[u8]) -> u64 {
    field
        .iter()
        .fold(0, |value, &digit| value << 4 | u64::from((digit as char).to_digit(16).unwrap_or(0)))
}
