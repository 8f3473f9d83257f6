//! A mismatch as text: where it is, the guest's code, the block, the host's code, both states.

use std::fmt::Write as _;

use iced_x86::{
    Decoder as HostDecoder, DecoderOptions, Formatter as _, Instruction, IntelFormatter,
};
use mimic_cpu::riscv::decode::{Decoder, insn_len};
use mimic_cpu::riscv::hart::Hart;
use mimic_cpu::riscv::insn::{B, Csr, Format, I, J, R, Rf, S, U};
use mimic_jit::riscv::engine::Translation;
use mimic_jit::riscv::lift::Lifter;

use super::Options;
use super::locate::{Mismatch, Step, addresses};
use super::side::{Typed, What};

/// Names of the integer registers by the calling convention (psABI, 1.1).
const ABI: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4",
    "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4",
    "t5", "t6",
];
/// Steps that are listed.
const STEPS: usize = 64;

/// Arguments of `mimic verify` that show the mismatch from its snapshot, taken after round `begun`, by the end
/// of round `until`, besides `--snapshot FILE` and how the translator works.
pub(super) fn replay(
    options: &Options,
    isolated: bool,
    (begun, until): (u64, u64),
    typed: &[Typed],
) -> Vec<String> {
    let [a, b] = &options.engines;
    let mut args = vec!["--engines".into(), format!("{},{}", a.kind.name(), b.kind.name())];
    args.extend(["--max-rounds".into(), (until - begun).to_string()]);
    if isolated {
        args.push("--isolate".into());
    }
    for typed in typed.iter().filter(|typed| (begun..until).contains(&typed.round)) {
        let text = String::from_utf8_lossy(&typed.bytes);
        args.push(format!("--type-at={}={}", typed.round - begun, text.escape_default()));
    }
    args
}

/// The names of guest instructions.
struct Guest(Decoder<Lifter>);

impl Guest {
    fn text(&self, word: u32, va: u64) -> String {
        let Some(insn) = self.0.decode(word, va & 0xfff) else {
            return "not an instruction".into();
        };
        let row = &self.0.rows()[usize::from(insn.row)];
        let name = row.name.replace('_', ".");
        let args = insn.args;
        let target = |imm: i64| format!("{:x}", va.wrapping_add_signed(imm));
        let rd = |r: u8| if r < 32 { format!("x{r}") } else { "x0".into() };
        let operands = match row.format {
            Format::R => {
                let i = R(args);
                format!("{}, x{}, x{}", rd(i.rd()), i.rs1(), i.rs2())
            }
            Format::Rf => {
                let i = Rf(args);
                format!("f{}, {}, {} ({})", i.rd(), i.rs1(), i.rs2(), i.rs3())
            }
            Format::I => {
                let i = I(args);
                format!("{}, x{}, {}", rd(i.rd()), i.rs1(), i.imm())
            }
            Format::If => {
                let i = mimic_cpu::riscv::insn::If(args);
                format!("f{}, {}(x{})", i.rd(), i.imm(), i.rs1())
            }
            Format::S => {
                let i = S(args);
                format!("{}, {}(x{})", i.rs2(), i.imm(), i.rs1())
            }
            Format::B => {
                let i = B(args);
                format!("x{}, x{}, {}", i.rs1(), i.rs2(), target(i.imm()))
            }
            Format::U => {
                let i = U(args);
                format!("{}, {:#x}", rd(i.rd()), i.imm() as u32 >> 12)
            }
            Format::J => {
                let i = J(args);
                format!("{}, {}", rd(i.rd()), target(i.imm()))
            }
            Format::Csr => {
                let i = Csr(args);
                format!("{}, {:#x}, {}", rd(i.rd()), i.csr(), i.rs1())
            }
        };
        format!("{name:<10} {operands}")
    }

    fn line(&self, va: u64, word: u32) -> String {
        let digits = 2 * insn_len(word) as usize;
        let bits = format!("{word:0digits$x}");
        format!("{va:16x}: {bits:<8}  {}", self.text(word, va))
    }
}

/// Host code as text. `marks` are offsets with something to say before them.
fn host_code(translation: &Translation, marks: &[(u32, String)]) -> String {
    let Translation { code, at, out_of_line, .. } = translation;
    let mut decoder = HostDecoder::with_ip(64, code, *at as u64, DecoderOptions::NONE);
    let mut formatter = IntelFormatter::new();
    let (mut text, mut line, mut insn) = (String::new(), String::new(), Instruction::default());
    let mut marks = marks.iter().peekable();
    while decoder.can_decode() {
        let offset = decoder.position() as u32;
        while let Some((_, mark)) = marks.next_if(|(at, _)| *at <= offset) {
            let _ = writeln!(text, "  ; {mark}");
        }
        if offset == *out_of_line {
            text.push_str("  ; out of line\n");
        }
        decoder.decode_out(&mut insn);
        line.clear();
        formatter.format(&insn, &mut line);
        let bytes: String = code[offset as usize..offset as usize + insn.len()]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let _ = writeln!(text, "  {offset:4x}  {bytes:<22}  {line}");
    }
    text
}

/// The fields of a hart, by name.
fn fields(hart: &Hart) -> Vec<(String, String)> {
    fn flatten(name: String, value: &serde_json::Value, to: &mut Vec<(String, String)>) {
        use serde_json::Value;
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                flatten(
                    if name.is_empty() { key.clone() } else { format!("{name}.{key}") },
                    value,
                    to,
                );
            }),
            Value::Array(items) => items.iter().enumerate().for_each(|(at, value)| {
                let name = match name.as_str() {
                    "x" => format!("x{at} {}", ABI[at & 31]),
                    "f" => format!("f{at}"),
                    name => format!("{name}[{at}]"),
                };
                flatten(name, value, to);
            }),
            Value::Number(number) => match number.as_u64() {
                Some(number) => to.push((name, format!("{number:016x}"))),
                None => to.push((name, number.to_string())),
            },
            other => to.push((name, other.to_string())),
        }
    }
    let mut all = Vec::new();
    match serde_json::to_value(hart) {
        Ok(value) => flatten(String::new(), &value, &mut all),
        Err(error) => all.push(("hart".into(), error.to_string())),
    }
    all
}

fn registers(text: &mut String, a: &Hart, b: &Hart, names: [&str; 2]) {
    let _ = writeln!(text, "  {:<22}{:<18}{}", "", names[0], names[1]);
    for ((name, here), (_, there)) in fields(a).into_iter().zip(fields(b)) {
        let differs = here != there;
        let zero = here.bytes().all(|digit| digit == b'0') || here == "null" || here == "false";
        if differs || !zero && !name.starts_with("model") {
            let mark = if differs { "*" } else { " " };
            let there = if differs { there.as_str() } else { "" };
            let _ = writeln!(text, "{mark} {name:<22}{here:<18}{there}");
        }
    }
}

fn what(what: &What) -> String {
    let names = |names: &[String]| names.join(", ");
    match what {
        What::Harts => "the harts differ".into(),
        What::Time => "guest time differs".into(),
        What::Stop(a, b) => format!("one machine stands for another reason: {a:?} and {b:?}"),
        What::Output(a, b) => format!(
            "the console's output differs: {:?} and {:?}",
            String::from_utf8_lossy(a),
            String::from_utf8_lossy(b)
        ),
        What::Devices(devices) => format!("devices differ: {}", names(devices)),
        What::Memory(words) => {
            let words: Vec<String> =
                words.iter().map(|(gpa, a, b)| format!("{gpa:#x}: {a:016x} {b:016x}")).collect();
            format!("memory differs:\n    {}", words.join("\n    "))
        }
    }
}

/// All that is known.
pub(super) fn text(mismatch: &Mismatch, options: &Options) -> String {
    let names = [options.engines[0].kind.name(), options.engines[1].kind.name()];
    let guest = Guest(Decoder::default());
    let mut text = format!(
        "{} and {} are equal after {} instructions and differ after {}: {}\n",
        names[0],
        names[1],
        mismatch.equal,
        mismatch.at,
        what(&mismatch.what),
    );
    if let Some(step) = mismatch.steps.first() {
        let name = mismatch.symbol.as_ref().map_or(String::new(), |name| format!(" ({name})"));
        let certainty = match (mismatch.isolated, &mismatch.translation) {
            (_, None) => "around",
            (true, Some(_)) => "in the block at",
            (false, Some(_)) => "probably in the block at",
        };
        let _ = writeln!(text, "hart {}, {certainty} {:#x}{name}", mismatch.hart, step.pc);
    }
    if mismatch.history {
        text.push_str(
            "It does not show from a snapshot right before, so it hangs on what was translated earlier: code that was\n\
             kept too long, perhaps. The host code below is made anew.\n",
        );
    }
    if !mismatch.isolated && mismatch.translation.is_some() {
        text.push_str("It shows only when blocks are linked, or not at their first translation.\n");
    }
    if !mismatch.steps.is_empty() {
        let _ = writeln!(text, "\nExecuted, up to the difference:");
        let block = mismatch.translation.as_ref().map(|made| addresses(mismatch, &made.insns));
        let outside = |step: &&Step| block.as_ref().is_some_and(|block| !block.contains(&step.pc));
        let rest = mismatch.steps.iter().find(outside).filter(|_| mismatch.isolated);
        for step in mismatch.steps.iter().take(STEPS) {
            if rest.is_some_and(|rest| std::ptr::eq(rest, step)) {
                text.push_str("  (the block is left, what follows is interpreted)\n");
            }
            match step.word {
                Some(word) => _ = writeln!(text, "{}", guest.line(step.pc, word)),
                None => _ = writeln!(text, "{:16x}: unreadable", step.pc),
            }
        }
    }
    if let Some(translation) = &mismatch.translation {
        let at = addresses(mismatch, &translation.insns);
        let lines: Vec<String> = at
            .iter()
            .zip(&translation.insns)
            .map(|(va, (_, word))| guest.line(*va, *word).trim_start().to_owned())
            .collect();
        let page = translation.page + translation.offset;
        let _ = writeln!(text, "\nThe block, at guest physical address {page:#x}:");
        text.push_str(&translation.ir);
        let marks: Vec<(u32, String)> = translation.map.iter().copied().zip(lines).collect();
        let _ = writeln!(text, "\nHost code ({} bytes):", translation.code.len());
        text.push_str(&host_code(translation, &marks));
    }
    let [here, there] = &mismatch.harts;
    for (hart, (a, b)) in here.iter().zip(there).enumerate() {
        if a != b || hart == mismatch.hart {
            let _ = writeln!(
                text,
                "\nHart {hart} after {} instructions of all (* differs):",
                mismatch.at
            );
            registers(&mut text, a, b, names);
        }
    }
    text
}
