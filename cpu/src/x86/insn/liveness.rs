//! What instructions do to the arithmetic flags and what else their neighbours in a block may know of them, so that
//! flags that nobody sees need not be computed, and a comparison and the branch behind it are performed as one.

use iced_x86::Mnemonic as M;

use super::{alu, muldiv, shift};
use crate::x86::decode::{Handler, Ins};
use crate::x86::flags::bit;

/// The function that performs an instruction and the conditional branch behind it, by the low four bits of the branch's
/// opcode.
pub(in crate::x86) type Fused = fn(u8) -> Option<Handler>;

/// What the neighbours of an instruction may know of it.
#[derive(Clone, Copy)]
pub(in crate::x86) struct Usage {
    /// Arithmetic flags that count when it begins: those it reads, and all of them if it can end the block or raise an
    /// exception.
    pub(in crate::x86) reads: u64,
    /// Arithmetic flags that it sets in any case.
    pub(in crate::x86) writes: u64,
    /// The function that performs it without setting flags.
    pub(in crate::x86) quiet: Option<Handler>,
    /// The function that performs it together with a conditional branch.
    pub(in crate::x86) fused: Option<Fused>,
    /// The condition of a conditional branch.
    pub(in crate::x86) jumps_if: Option<u8>,
}

impl Usage {
    /// Nothing is known.
    pub(in crate::x86) const ALL: Usage =
        Usage { reads: bit::ARITH, writes: 0, quiet: None, fused: None, jumps_if: None };
}

/// What is known of an instruction.
pub(in crate::x86) fn usage(ins: &Ins) -> Usage {
    let raw = ins.raw();
    if raw.is_jcc_short_or_near() {
        return Usage { jumps_if: (raw.condition_code() as u8).checked_sub(1), ..Usage::ALL };
    }
    let fused = alu::fused(ins);
    let registers = (0..raw.op_count()).all(|operand| {
        ins.is_imm(operand) || ins.is_reg(operand) && raw.op_register(operand).is_gpr()
    });
    // A memory operand can fault: until then all flags count.
    if !registers && ins.mnemonic() != M::Lea {
        return Usage { fused, ..Usage::ALL };
    }
    let none = Usage { reads: 0, writes: 0, quiet: None, fused, jumps_if: None };
    match ins.mnemonic() {
        M::Add | M::Or | M::And | M::Sub | M::Xor | M::Neg => {
            Usage { writes: bit::ARITH, quiet: alu::quiet(ins), ..none }
        }
        M::Cmp | M::Test => Usage { writes: bit::ARITH, ..none },
        M::Adc | M::Sbb => Usage { reads: bit::CF, writes: bit::ARITH, ..none },
        M::Inc | M::Dec => Usage { writes: bit::ARITH & !bit::CF, quiet: alu::quiet(ins), ..none },
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror => match shift::quiet(ins) {
            None => Usage::ALL,
            quiet if matches!(ins.mnemonic(), M::Rol | M::Ror) => {
                Usage { writes: bit::CF | bit::OF, quiet, ..none }
            }
            quiet => Usage { writes: bit::ARITH, quiet, ..none },
        },
        M::Imul if raw.op_count() > 1 => {
            Usage { writes: bit::ARITH, quiet: muldiv::quiet(ins), ..none }
        }
        M::Mov | M::Movzx | M::Movsx | M::Movsxd | M::Lea | M::Bswap => none,
        _ => Usage::ALL,
    }
}
