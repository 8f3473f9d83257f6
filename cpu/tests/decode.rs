//! The decoder against an outside disassembler; the data files say how they were made.

#[path = "common/names.rs"]
mod names;

use std::collections::BTreeSet;

use mimic_cpu::riscv::csr::num;
use mimic_cpu::riscv::decode::{Decoder, Insn};
use mimic_cpu::riscv::insn::{self, Format, Row, SINK, c};
use names::Names;

const WORDS: &str = include_str!("data/decode/words.txt");
const COMPRESSED: &str = include_str!("data/decode/compressed.txt");

fn lines(data: &str) -> impl Iterator<Item = &str> {
    data.lines().filter(|line| !line.starts_with('#'))
}

fn hex(text: &str) -> u32 {
    u32::from_str_radix(text, 16).expect("a hexadecimal word")
}

/// The names of a row as disassemblers write them.
fn mnemonic(row: &str) -> String {
    row.replace('_', ".")
}

/// The number of a CSR from its name, or as it is.
fn csr_number(text: &str) -> i64 {
    let named = [
        ("fflags", num::FFLAGS),
        ("frm", num::FRM),
        ("fcsr", num::FCSR),
        ("cycle", num::CYCLE),
        ("time", num::TIME),
        ("instret", num::INSTRET),
        ("sstatus", num::SSTATUS),
        ("sie", num::SIE),
        ("stvec", num::STVEC),
        ("scounteren", num::SCOUNTEREN),
        ("senvcfg", num::SENVCFG),
        ("sscratch", num::SSCRATCH),
        ("sepc", num::SEPC),
        ("scause", num::SCAUSE),
        ("stval", num::STVAL),
        ("sip", num::SIP),
        ("stimecmp", num::STIMECMP),
        ("satp", num::SATP),
        ("mvendorid", num::MVENDORID),
        ("marchid", num::MARCHID),
        ("mimpid", num::MIMPID),
        ("mhartid", num::MHARTID),
        ("mconfigptr", num::MCONFIGPTR),
        ("mstatus", num::MSTATUS),
        ("misa", num::MISA),
        ("medeleg", num::MEDELEG),
        ("mideleg", num::MIDELEG),
        ("mie", num::MIE),
        ("mtvec", num::MTVEC),
        ("mcounteren", num::MCOUNTEREN),
        ("menvcfg", num::MENVCFG),
        ("mcountinhibit", num::MCOUNTINHIBIT),
        ("mscratch", num::MSCRATCH),
        ("mepc", num::MEPC),
        ("mcause", num::MCAUSE),
        ("mtval", num::MTVAL),
        ("mip", num::MIP),
        ("mcycle", num::MCYCLE),
        ("minstret", num::MINSTRET),
        ("tselect", num::TSELECT),
        ("tdata3", num::TDATA3),
        ("tinfo", num::TINFO),
    ];
    // Registers that are counted from a first one.
    let counted = [
        ("mhpmcounter", num::MHPMCOUNTER3 - 3),
        ("mhpmevent", num::MHPMEVENT3 - 3),
        ("hpmcounter", num::HPMCOUNTER3 - 3),
        ("pmpcfg", num::PMPCFG0),
        ("pmpaddr", num::PMPADDR0),
    ];
    if let Ok(number) = text.parse() {
        return number;
    }
    if let Some((_, number)) = named.iter().find(|(name, _)| *name == text) {
        return i64::from(*number);
    }
    for (name, first) in counted {
        if let Some(Ok(index)) = text.strip_prefix(name).map(str::parse::<i64>) {
            return i64::from(first) + index;
        }
    }
    panic!("no number for CSR {text}");
}

/// Value of an operand as the disassembler writes it: register number, immediate, rounding mode or set
/// of a fence.
fn value(text: &str) -> i64 {
    if let Some(Ok(number)) = text.strip_prefix(['x', 'f']).map(str::parse) {
        return number;
    }
    if let Ok(number) = text.parse() {
        return number;
    }
    if let Some(mode) = ["rne", "rtz", "rdn", "rup", "rmm"].iter().position(|mode| *mode == text) {
        return mode as i64;
    }
    if text == "dyn" {
        return 7;
    }
    text.chars().fold(0, |set, c| set | 8 >> "iorw".find(c).expect("a fence operand"))
}

/// The operands of a decoded instruction in the order of assembly language. The fields that the pattern
/// leaves open are the operands.
fn operands(row: &Row<Names>, insn: Insn) -> Vec<i64> {
    let open = |high: u32, low: u32| row.pattern.mask & (u32::MAX >> (31 - high + low) << low) == 0;
    let opcode = row.pattern.value & 0x7f;
    let register = |r: u8| if r == SINK { 0 } else { i64::from(r) };
    let args = insn.args;
    match row.format {
        Format::R | Format::Rf => {
            let i = insn::Rf(args);
            let (rd, rs1, rs2) = (register(i.rd()), i64::from(i.rs1()), i64::from(i.rs2()));
            match opcode {
                0x2f if open(24, 20) => return vec![rd, rs2, rs1],
                0x2f => return vec![rd, rs1],
                0x0f => return vec![rs1],
                0x73 if open(24, 20) => return vec![rs1, rs2],
                0x73 => return vec![],
                _ => {}
            }
            if row.name.starts_with("fli_") {
                return vec![rd];
            }
            let mut all = vec![rd, rs1];
            all.extend(open(24, 20).then_some(rs2));
            all.extend(open(31, 27).then_some(i64::from(i.rs3())));
            // FCVTMOD has only one rounding mode, but it is written.
            let has_mode = open(14, 12) || row.name.starts_with("fcvtmod");
            all.extend(has_mode.then_some(i64::from(i.rm())));
            all
        }
        Format::I | Format::If => {
            let i = insn::I(args);
            let (rd, rs1) = (register(i.rd()), i64::from(i.rs1()));
            match opcode {
                0x0f if row.name == "fence" => vec![i.imm() >> 4 & 0xf, i.imm() & 0xf],
                0x0f => vec![],
                0x03 | 0x07 | 0x67 => vec![rd, i.imm(), rs1],
                _ if open(31, 26) => vec![rd, rs1, i.imm()],
                _ => vec![rd, rs1, i.imm() & 0x3f],
            }
        }
        Format::S => {
            let i = insn::S(args);
            vec![i64::from(i.rs2()), i.imm(), i64::from(i.rs1())]
        }
        Format::B => {
            let i = insn::B(args);
            vec![i64::from(i.rs1()), i64::from(i.rs2()), i.imm()]
        }
        Format::U => vec![register(insn::U(args).rd()), insn::U(args).imm() >> 12 & 0xf_ffff],
        Format::J => vec![register(insn::J(args).rd()), insn::J(args).imm()],
        Format::Csr => {
            let i = insn::Csr(args);
            vec![register(i.rd()), i64::from(i.csr()), i64::from(i.rs1())]
        }
    }
}

/// The operands that the disassembler writes, in its order.
fn expected_operands(mnemonic: &str, text: &str) -> Vec<i64> {
    let fields = text.split([' ', ',', '(', ')']).filter(|field| !field.is_empty());
    fields
        .enumerate()
        // FLI's constant is a matter of its body.
        .take_while(|(index, _)| *index == 0 || !mnemonic.starts_with("fli."))
        .map(|(index, field)| {
            if index == 1 && mnemonic.starts_with("csrr") {
                csr_number(field)
            } else {
                value(field)
            }
        })
        .collect()
}

#[test]
fn words_mean_what_the_disassembler_says() {
    let decoder = Decoder::<Names>::default();
    let mut named = BTreeSet::new();
    for line in lines(WORDS) {
        let mut fields = line.splitn(3, ' ');
        let word = hex(fields.next().unwrap());
        let (mut name, text) = (fields.next().unwrap(), fields.next().unwrap_or(""));
        let found = decoder.decode(word, 0);
        if name == "-" {
            assert!(
                found.is_none(),
                "{line}: decoded to {}",
                decoder.rows()[usize::from(found.unwrap().row)].name
            );
            continue;
        }
        let insn = found.unwrap_or_else(|| panic!("{line}: not decoded"));
        let row = &decoder.rows()[usize::from(insn.row)];
        assert_eq!(insn.args.at().bytes(), 4);
        if name == "fence.tso" {
            // A fence with fm = 1000, which is one more promise than a fence has to keep.
            assert_eq!((row.name, operands(row, insn)), ("fence", vec![3, 3]), "{line}");
            continue;
        }
        // The table has no rows for the orderings of atomics.
        for ordering in [".aqrl", ".aq", ".rl"] {
            name = name.strip_suffix(ordering).unwrap_or(name);
        }
        assert_eq!(mnemonic(row.name), name, "{line}");
        let (mut ours, theirs) = (operands(row, insn), expected_operands(name, text));
        if ours.len() == theirs.len() + 1 && row.pattern.mask >> 12 & 7 == 0 {
            // A rounding mode that is not written is the nearest even.
            assert_eq!(ours.pop(), Some(0), "{line}");
        }
        assert_eq!(ours, theirs, "{line}");
        let rd_in_x =
            matches!(row.format, Format::R | Format::I | Format::U | Format::J | Format::Csr);
        if rd_in_x && text.starts_with('f') || row.format == Format::Rf && text.starts_with('x') {
            assert!(row.name == "fence", "{line}: rd is in the other register file");
        }
        named.insert(row.name);
    }
    let missing: Vec<_> =
        decoder.rows().iter().map(|row| row.name).filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty(), "rows without a line in data/decode/words.txt: {missing:?}");
}

#[test]
fn compressed_words_stand_for_what_the_disassembler_says() {
    let decoder = Decoder::<Names>::default();
    let mut named = BTreeSet::new();
    let mut wholes = 0;
    for line in lines(COMPRESSED) {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        if fields[0] == "all" {
            check_quadrant(&decoder, line);
            wholes += 1;
            continue;
        }
        let word = hex(fields[0]);
        if fields[1] == "-" {
            assert_eq!((decoder.expand(word), decoder.decode(word, 0)), (None, None), "{line}");
            continue;
        }
        let row = c::ROWS.iter().find(|row| row.pattern.matches(word)).expect("a row");
        let name = fields[2].split(' ').next().unwrap();
        // C.NOP is C.ADDI to x0.
        let name = if name == "c.nop" { "c.addi" } else { name };
        assert_eq!(mnemonic(row.name), name, "{line}");
        let long = hex(fields[1]);
        assert_eq!(decoder.expand(word), Some(long), "{line}");
        // The high half belongs to the next instruction.
        let (short, long) =
            (decoder.decode(word | 0xffff_0000, 6).unwrap(), decoder.decode(long, 6).unwrap());
        assert_eq!((short.row, short.args.at().bytes()), (long.row, 2), "{line}");
        assert_eq!(short.args.moved(long.args.at()), long.args, "{line}");
        named.insert(row.name);
    }
    assert_eq!(wholes, 24);
    let missing: Vec<_> =
        c::ROWS.iter().map(|row| row.name).filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty(), "rows without a line in data/decode/compressed.txt: {missing:?}");
}

/// All encodings of one quadrant and funct3, by count and hash.
fn check_quadrant(decoder: &Decoder<Names>, line: &str) {
    let fields: Vec<&str> = line.split(' ').collect();
    let (quadrant, funct3): (u32, u32) = (fields[1].parse().unwrap(), fields[2].parse().unwrap());
    let (mut count, mut hash) = (0, 0xcbf2_9ce4_8422_2325u64);
    for middle in 0..2048 {
        let expansion = decoder.expand(funct3 << 13 | middle << 2 | quadrant);
        count += u32::from(expansion.is_some());
        for byte in expansion.unwrap_or(0).to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    assert_eq!(
        (count, format!("{hash:016x}")),
        (fields[3].parse().unwrap(), fields[4].to_owned()),
        "{line}"
    );
}

#[test]
fn no_word_matches_two_rows() {
    let rows = insn::tables::<Names>();
    for (index, a) in rows.iter().enumerate() {
        for b in &rows[index + 1..] {
            let common = a.pattern.mask & b.pattern.mask;
            assert_ne!(
                (a.pattern.value ^ b.pattern.value) & common,
                0,
                "a word matches both {} and {}",
                a.name,
                b.name
            );
        }
    }
    assert_eq!(rows.iter().map(|row| row.name).collect::<BTreeSet<_>>().len(), rows.len());
}

/// Compressed encodings with a special register or operand are carved out of general ones: there the first
/// row decides (unprivileged, tables 36 to 38).
#[test]
fn compressed_rows_overlap_only_as_the_manual_has_it() {
    let mut found = Vec::new();
    for (index, a) in c::ROWS.iter().enumerate() {
        for b in &c::ROWS[index + 1..] {
            if (a.pattern.value ^ b.pattern.value) & a.pattern.mask & b.pattern.mask == 0 {
                found.push((a.name, b.name));
            }
        }
    }
    let expected = [
        ("c_addi16sp", "c_lui"),
        ("c_jr", "c_mv"),
        ("c_ebreak", "c_jalr"),
        ("c_ebreak", "c_add"),
        ("c_jalr", "c_add"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn all_zeros_and_all_ones_are_no_instructions() {
    let decoder = Decoder::<Names>::default();
    assert!(decoder.decode(0, 0).is_none());
    assert!(decoder.decode(u32::MAX, 0).is_none());
    // Instructions longer than 32 bits (unprivileged, 1.5).
    assert!(decoder.decode(0x0000_001f, 0).is_none() && decoder.decode(0x0000_007f, 0).is_none());
}
