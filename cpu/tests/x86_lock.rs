//! The LOCK prefix on every opcode, with registers and with memory: #UD but for those that the SDM lists (vol. 2, "LOCK").

#[path = "x86_common/mod.rs"]
mod common;

use common::Start;
use common::pc::{CODE, DATA, Pc};
use mimic_cpu::x86::state::gpr;

/// The vector of #UD.
const UD: Option<u64> = Some(6);
const LOCK: u8 = 0xf0;
const HLT: u8 = 0xf4;

/// Whether an opcode (one byte, or one behind 0F), with `reg` of its ModRM byte, may be locked when it writes to memory:
/// ADD, ADC, AND, BTC, BTR, BTS, CMPXCHG, CMPXCHG8B, CMPXCHG16B, DEC, INC, NEG, NOT, OR, SBB, SUB, XOR, XADD and XCHG.
fn lockable(two: bool, opcode: u8, reg: u8, long: bool) -> bool {
    match (two, opcode) {
        // ADD, OR, ADC, SBB, AND, SUB, XOR with a register; and with an immediate.
        (false, 0x00..=0x31) => opcode & 7 < 2,
        (false, 0x80 | 0x81 | 0x83) => reg < 7,
        (false, 0x82) => reg < 7 && !long,
        // XCHG; NOT and NEG; INC and DEC.
        (false, 0x86 | 0x87) => true,
        (false, 0xf6 | 0xf7) => matches!(reg, 2 | 3),
        (false, 0xfe | 0xff) => reg < 2,
        // BTS, BTR, BTC; CMPXCHG, XADD; CMPXCHG8B.
        (true, 0xab | 0xb3 | 0xbb | 0xb0 | 0xb1 | 0xc0 | 0xc1) => true,
        (true, 0xba) => reg > 4,
        (true, 0xc7) => reg == 1,
        _ => false,
    }
}

/// Prefixes, and 0F, are no opcodes.
fn prefix(opcode: u8, long: bool) -> bool {
    matches!(opcode, 0x0f | 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
        || long && matches!(opcode, 0x40..=0x4f)
}

#[test]
fn lock_is_for_what_reads_and_writes_memory() {
    let mut allowed = 0;
    for long in [false, true] {
        let mut pc = Pc::new(if long { Start::Long } else { Start::Protected32 });
        pc.cpu.gpr[usize::from(gpr::RBX)] = DATA;
        for two in [false, true] {
            for opcode in (0..=255u8).filter(|opcode| two || !prefix(*opcode, long)) {
                for (reg, memory) in (0..8).flat_map(|reg| [(reg, false), (reg, true)]) {
                    // RBX, or what is there; immediates and displacements are HLT, and so is what follows.
                    let modrm = if memory { 3 } else { 0xc3 } | reg << 3;
                    let mut code = vec![LOCK];
                    code.extend(two.then_some(0x0f));
                    code.extend([opcode, modrm]);
                    code.resize(24, HLT);
                    pc.bus.put(CODE, &code);
                    let (outcome, _) = pc.run();
                    let good = memory && lockable(two, opcode, reg, long);
                    allowed += u32::from(good);
                    assert_eq!(outcome == UD, !good, "{long} {code:02x?}: {outcome:?}");
                }
            }
        }
    }
    // The forms of each opcode that is listed above, by what its ModRM byte says; 82 in 32 bits alone.
    assert_eq!(allowed, 2 * (14 * 8 + 3 * 7 + 2 * 8 + 4 + 4 + 7 * 8 + 3 + 1) + 7);
}
