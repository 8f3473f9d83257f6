//! Bytes -> [`Op`]: iced-x86 decodes, [`super::insn`] names the function, and what remains here is where operands
//! are.

use iced_x86::{
    Code, Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic,
    OpCodeTableKind, OpKind, Register,
};

use super::core::{Core, IP_PAGE, ZERO};
use super::insn::{self, Usage};
use super::interp::CodeCache;
use super::model::{Model, feature};
use super::simd;
use super::state::gpr;

/// Longest instruction, in bytes (SDM vol. 2, 2.3.11).
pub const MAX_LEN: usize = 15;

/// Performs the first of some ops and those after it; see [`super::insn`].
pub type Handler = fn(&mut Core, &[Op], &CodeCache) -> usize;

/// A decoded instruction, ready to be performed.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// What performs it.
    pub handler: Handler,
    /// The immediate, sign-extended; of a near branch, its target relative to the page's first RIP; of an x87
    /// instruction, its opcode as FNSAVE stores it.
    pub imm: u64,
    /// The memory operand's displacement.
    pub disp: u64,
    /// Register operands by position, as [`register_number`] numbers them.
    pub r1: u8,
    /// The second operand.
    pub r2: u8,
    /// The third operand.
    pub r3: u8,
    /// The fourth operand.
    pub r4: u8,
    /// Base register of the memory operand.
    pub base: u8,
    /// Index register of the memory operand.
    pub index: u8,
    /// The index is shifted left by this.
    pub scale: u8,
    /// Segment register of the memory operand; SS if there is none.
    pub seg: u8,
    /// An effective address has 64 minus this many bits.
    pub ashift: u8,
    /// Offset of the first byte in its page.
    pub off: u16,
    /// Bytes.
    pub len: u8,
    /// Operand size in bytes, where the function is not made for one.
    pub size: u8,
    /// [`REP`] and [`REPNE`].
    pub prefix: u8,
    /// Place in [`super::simd::table`] of a vector operation.
    pub simd: u16,
}

/// The prefix F3.
pub const REP: u8 = 1;
/// The prefix F2.
pub const REPNE: u8 = 2;

/// Default operand and address size of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeSize {
    /// 16 bits.
    Bits16,
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

/// All that decoding depends on besides the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Code size.
    pub size: CodeSize,
    /// Misaligned accesses raise #AC.
    pub aligned: bool,
}

impl Mode {
    /// The mode as a small number.
    #[must_use]
    pub fn key(self) -> u8 {
        self.size as u8 | u8::from(self.aligned) << 2
    }
}

/// An instruction on its way to an [`Op`].
pub struct Ins {
    raw: Instruction,
    /// Its memory operand, if any, needs no segment and no alignment check.
    pub(super) flat: bool,
    /// Code size.
    pub(super) size: CodeSize,
}

impl Ins {
    /// What iced says.
    #[inline]
    #[must_use]
    pub fn raw(&self) -> &Instruction {
        &self.raw
    }

    pub(super) fn mnemonic(&self) -> Mnemonic {
        self.raw.mnemonic()
    }

    pub(super) fn code(&self) -> Code {
        self.raw.code()
    }

    pub(super) fn locked(&self) -> bool {
        self.raw.has_lock_prefix()
    }

    pub(super) fn is_mem(&self, operand: u32) -> bool {
        operand < self.raw.op_count() && self.raw.op_kind(operand) == OpKind::Memory
    }

    pub(super) fn is_reg(&self, operand: u32) -> bool {
        operand < self.raw.op_count() && self.raw.op_kind(operand) == OpKind::Register
    }

    pub(super) fn is_imm(&self, operand: u32) -> bool {
        operand < self.raw.op_count() && is_immediate(self.raw.op_kind(operand))
    }

    /// Bytes of a register or memory operand.
    pub(super) fn bytes(&self, operand: u32) -> usize {
        if operand >= self.raw.op_count() {
            return 0;
        }
        match self.raw.op_kind(operand) {
            OpKind::Register => self.raw.op_register(operand).size(),
            OpKind::Immediate8 => 1,
            OpKind::Immediate16 | OpKind::Immediate8to16 => 2,
            OpKind::Immediate32 | OpKind::Immediate8to32 => 4,
            OpKind::Immediate64 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => 8,
            _ => self.raw.memory_size().size(),
        }
    }

    /// Whether an operand is memory: that of MASKMOVDQU, which is not encoded, too.
    pub(super) fn has_memory(&self) -> bool {
        (0..self.raw.op_count())
            .any(|operand| self.is_mem(operand) || is_destination_index(self.raw.op_kind(operand)))
    }

    /// Whether the opcode is one of the coprocessor's: D8 to DF.
    pub(super) fn is_x87(&self) -> bool {
        let info = self.raw.code().op_code();
        let first = match info.op_code_len() {
            1 => info.op_code(),
            _ => info.op_code() >> 8,
        };
        info.table() == OpCodeTableKind::Normal && first & 0xf8 == 0xd8
    }

    pub(super) fn bits64(&self) -> bool {
        self.size == CodeSize::Bits64
    }
}

/// The opcode of an x87 instruction: the low three bits of its first byte behind the prefixes, and the second (SDM
/// vol. 1, 8.1.9).
fn x87_opcode(bytes: &[u8]) -> u64 {
    match bytes.iter().position(|byte| byte & 0xf8 == 0xd8).map(|at| &bytes[at..]) {
        Some([first, second, ..]) => u64::from(first & 7) << 8 | u64::from(*second),
        _ => 0,
    }
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

/// What became of some bytes.
pub(super) enum Decoded {
    /// An instruction, what surrounds it may know of it, and whether it ends a block.
    Op(Op, Usage, bool),
    /// The instruction goes on behind the bytes.
    Truncated,
}

/// Decodes the instruction that begins at offset `off` of its page, of which `bytes` are the rest or a part.
#[must_use]
pub(super) fn decode(bytes: &[u8], off: u16, mode: Mode, model: &Model) -> Decoded {
    let bytes = &bytes[..bytes.len().min(MAX_LEN)];
    let bitness = match mode.size {
        CodeSize::Bits16 => 16,
        CodeSize::Bits32 => 32,
        CodeSize::Bits64 => 64,
    };
    let mut options = DecoderOptions::NONE;
    if !model.has(feature::LZCNT) {
        options |= DecoderOptions::NO_MPFX_0FBD;
    }
    if !model.has(feature::BMI1) {
        options |= DecoderOptions::NO_MPFX_0FBC;
    }
    let mut decoder = Decoder::with_ip(bitness, bytes, u64::from(off), options);
    let raw = decoder.decode();
    if raw.is_invalid() {
        if decoder.last_error() == DecoderError::NoMoreBytes && bytes.len() < MAX_LEN {
            return Decoded::Truncated;
        }
        // More than 15 bytes: #GP (SDM vol. 2, 2.3.11). Prefixes alone can be so many.
        let too_long = decoder.last_error() == DecoderError::NoMoreBytes;
        let handler = if too_long { insn::too_long } else { insn::undefined };
        let op = Op { off, len: raw.len().max(1) as u8, ..blank(handler) };
        return Decoded::Op(op, Usage::ALL, true);
    }
    let ins = Ins { raw, flat: is_flat(&raw, mode), size: mode.size };
    let mut op = operands(&ins, off);
    if ins.is_x87() {
        op.imm = x87_opcode(bytes);
    }
    op.simd = simd::place(ins.code(), ins.has_memory()).unwrap_or(0);
    match supported(&ins, model) {
        Some(handler) => {
            let ends =
                !matches!(raw.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch)
                    || insn::ends_block(&ins);
            Decoded::Op(Op { handler, ..op }, insn::usage(&ins), ends)
        }
        None => {
            log::debug!("no such instruction here: {:?}", raw.code());
            Decoded::Op(op, Usage::ALL, true)
        }
    }
}

/// The function that performs an instruction, if there is one and the model has it.
fn supported(ins: &Ins, model: &Model) -> Option<Handler> {
    // Of shadow stacks one instruction is there without them: it does nothing (SDM vol. 2, "RDSSPD/RDSSPQ").
    let hint = matches!(ins.raw.mnemonic(), Mnemonic::Rdsspd | Mnemonic::Rdsspq);
    let offered = hint || ins.raw.cpuid_features().iter().all(|feature| model.offers(*feature));
    if offered { insn::lookup(ins) } else { None }
}

/// Whether an instruction of 16-, 32- or 64-bit code is performed by a processor of `model`.
#[must_use]
pub fn performs(raw: &Instruction, size: CodeSize, model: &Model) -> bool {
    let mode = Mode { size, aligned: false };
    supported(&Ins { raw: *raw, flat: is_flat(raw, mode), size }, model).is_some()
}

fn blank(handler: Handler) -> Op {
    Op {
        handler,
        imm: 0,
        disp: 0,
        r1: ZERO,
        r2: ZERO,
        r3: ZERO,
        r4: ZERO,
        base: ZERO,
        index: ZERO,
        scale: 0,
        seg: super::state::sreg::SS,
        ashift: 0,
        off: 0,
        len: 1,
        size: 0,
        prefix: 0,
        simd: 0,
    }
}

/// Address bits that `raw` does not use.
fn address_shift(raw: &Instruction, size: CodeSize) -> u8 {
    let named = match (raw.memory_base(), raw.memory_index()) {
        // The indices of a gather have their own size.
        (Register::None, index) if index.is_vector_register() => Register::None,
        (Register::None, index) => index,
        (base, _) => base,
    };
    let bytes = match named {
        // No register tells: the displacement does.
        Register::None => match raw.memory_displ_size() {
            2 => 2,
            8 => 8,
            _ if size == CodeSize::Bits64 => 8,
            _ => 4,
        },
        named => named.size(),
    };
    64 - 8 * bytes as u8
}

/// Address bits that a string instruction, or another one that names its memory operand by `kind`, does not use.
fn implied_shift(kind: OpKind) -> Option<u8> {
    Some(match kind {
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => 48,
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => 32,
        OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => 0,
        _ => return None,
    })
}

/// Whether an operand is the memory at DS:rDI, where MASKMOVDQU and MASKMOVQ store to.
fn is_destination_index(kind: OpKind) -> bool {
    matches!(kind, OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI)
}

fn is_flat(raw: &Instruction, mode: Mode) -> bool {
    mode.size == CodeSize::Bits64
        && !mode.aligned
        && !matches!(raw.memory_segment(), Register::FS | Register::GS)
        && address_shift(raw, mode.size) == 0
}

fn operands(ins: &Ins, off: u16) -> Op {
    let raw = &ins.raw;
    let mut op = Op { off, len: raw.len() as u8, ..blank(insn::undefined) };
    op.prefix = u8::from(raw.has_rep_prefix()) * REP | u8::from(raw.has_repne_prefix()) * REPNE;
    op.size = ins.bytes(0) as u8;
    for operand in 0..raw.op_count() {
        let kind = raw.op_kind(operand);
        match kind {
            OpKind::Register => {
                let number = register_number(raw.op_register(operand));
                match operand {
                    0 => op.r1 = number,
                    1 => op.r2 = number,
                    2 => op.r3 = number,
                    _ => op.r4 = number,
                }
            }
            OpKind::Memory => memory(&mut op, ins),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                op.imm = raw.near_branch_target();
                op.size = match kind {
                    OpKind::NearBranch16 => 2,
                    OpKind::NearBranch32 => 4,
                    _ => 8,
                };
            }
            OpKind::FarBranch16 => {
                op.imm = u64::from(raw.far_branch16());
                op.disp = u64::from(raw.far_branch_selector());
                op.size = 2;
            }
            OpKind::FarBranch32 => {
                op.imm = u64::from(raw.far_branch32());
                op.disp = u64::from(raw.far_branch_selector());
                op.size = 4;
            }
            // ENTER has two: the second is kept in the place of the displacement.
            OpKind::Immediate8_2nd => op.disp = raw.immediate(operand),
            _ if is_immediate(kind) => op.imm = raw.immediate(operand),
            _ => {
                if let Some(shift) = implied_shift(kind) {
                    op.ashift = shift;
                    op.size = raw.memory_size().size() as u8;
                    op.seg = segment_number(raw.memory_segment());
                    if is_destination_index(kind) {
                        op.base = gpr::RDI;
                    }
                }
            }
        }
    }
    if let Some(shift) = counter_shift(raw.code()) {
        op.ashift = shift;
    }
    op
}

/// Bits of RCX that LOOP and JCXZ do not use: their address size counts, though they address nothing.
fn counter_shift(code: Code) -> Option<u8> {
    Some(match code {
        Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX
        | Code::Jcxz_rel8_16
        | Code::Jcxz_rel8_32 => 48,
        Code::Loop_rel8_16_ECX
        | Code::Loop_rel8_32_ECX
        | Code::Loop_rel8_64_ECX
        | Code::Loope_rel8_16_ECX
        | Code::Loope_rel8_32_ECX
        | Code::Loope_rel8_64_ECX
        | Code::Loopne_rel8_16_ECX
        | Code::Loopne_rel8_32_ECX
        | Code::Loopne_rel8_64_ECX
        | Code::Jecxz_rel8_16
        | Code::Jecxz_rel8_32
        | Code::Jecxz_rel8_64 => 32,
        _ => return None,
    })
}

fn memory(op: &mut Op, ins: &Ins) {
    let raw = &ins.raw;
    op.ashift = address_shift(raw, ins.size);
    op.disp = raw.memory_displacement64();
    op.base = match raw.memory_base() {
        Register::None => ZERO,
        // iced has added RIP, counted from the page.
        Register::RIP | Register::EIP => IP_PAGE,
        base => base.number() as u8,
    };
    op.index = match raw.memory_index() {
        Register::None => ZERO,
        index => index.number() as u8,
    };
    op.scale = raw.memory_index_scale().trailing_zeros() as u8;
    op.seg = segment_number(raw.memory_segment());
}

fn segment_number(register: Register) -> u8 {
    use super::state::sreg;
    match register {
        Register::ES => sreg::ES,
        Register::CS => sreg::CS,
        Register::SS => sreg::SS,
        Register::FS => sreg::FS,
        Register::GS => sreg::GS,
        _ => sreg::DS,
    }
}

/// The number of a register in its file; AH, CH, DH and BH are AX, CX, DX and BX with a mark.
fn register_number(register: Register) -> u8 {
    match register {
        Register::AH => insn::HIGH_BYTE,
        Register::CH => insn::HIGH_BYTE | 1,
        Register::DH => insn::HIGH_BYTE | 2,
        Register::BH => insn::HIGH_BYTE | 3,
        _ => register.full_register().number() as u8,
    }
}
