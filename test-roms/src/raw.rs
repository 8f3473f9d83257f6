//! Encodings that dynasm's `riscv64` target lacks, and ones a test needs as a number.
//!
//! Layouts: RISC-V Unprivileged ISA, "RV32I Base Instruction Formats"; opcodes of privileged
//! instructions: RISC-V Privileged ISA, "RISC-V Privileged Instruction Set Listings".

/// Fields of an R-type instruction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct R {
    pub(crate) funct7: u32,
    pub(crate) rs2: u8,
    pub(crate) rs1: u8,
    pub(crate) funct3: u32,
    pub(crate) rd: u8,
    pub(crate) opcode: u32,
}

impl R {
    /// The 32-bit word.
    pub(crate) const fn word(self) -> u32 {
        self.funct7 << 25
            | (self.rs2 as u32) << 20
            | (self.rs1 as u32) << 15
            | self.funct3 << 12
            | (self.rd as u32) << 7
            | self.opcode
    }
}

/// Fields of an I-type instruction; `imm` holds 12 bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct I {
    pub(crate) imm: u32,
    pub(crate) rs1: u8,
    pub(crate) funct3: u32,
    pub(crate) rd: u8,
    pub(crate) opcode: u32,
}

impl I {
    /// The 32-bit word.
    pub(crate) const fn word(self) -> u32 {
        (self.imm & 0xfff) << 20
            | (self.rs1 as u32) << 15
            | self.funct3 << 12
            | (self.rd as u32) << 7
            | self.opcode
    }
}

/// Major opcode SYSTEM.
pub(crate) const SYSTEM: u32 = 0x73;
/// `mret`.
pub(crate) const MRET: u32 = 0x3020_0073;
/// `sret`.
pub(crate) const SRET: u32 = 0x1020_0073;
/// `wfi`.
pub(crate) const WFI: u32 = 0x1050_0073;

const fn fence(funct7: u32, rs1: u8, rs2: u8) -> u32 {
    R { funct7, rs2, rs1, funct3: 0, rd: 0, opcode: SYSTEM }.word()
}

/// `sfence.vma rs1, rs2` (address, ASID; x0 = all).
pub(crate) const fn sfence_vma(rs1: u8, rs2: u8) -> u32 {
    fence(0x09, rs1, rs2)
}

/// `sinval.vma rs1, rs2`.
pub(crate) const fn sinval_vma(rs1: u8, rs2: u8) -> u32 {
    fence(0x0b, rs1, rs2)
}

/// `sfence.w.inval`.
pub(crate) const SFENCE_W_INVAL: u32 = fence(0x0c, 0, 0);
/// `sfence.inval.ir`.
pub(crate) const SFENCE_INVAL_IR: u32 = fence(0x0c, 0, 1);

/// A branch with the given funct3 (`beq` 0, `bne` 1, ...) over an even distance of -4096..=4094;
/// dynasm's relocation reaches half of that.
pub(crate) const fn branch(funct3: u32, rs1: u8, rs2: u8, distance: i32) -> u32 {
    let d = distance as u32;
    (d >> 12 & 1) << 31
        | (d >> 5 & 0x3f) << 25
        | (rs2 as u32) << 20
        | (rs1 as u32) << 15
        | funct3 << 12
        | (d >> 1 & 0xf) << 8
        | (d >> 11 & 1) << 7
        | 0x63
}

/// A CSR instruction: funct3 1 `csrrw`, 2 `csrrs`, 3 `csrrc`, 5..7 their immediate forms with
/// `source` as the immediate.
pub(crate) const fn csr(funct3: u32, rd: u8, csr: u32, source: u8) -> u32 {
    I { imm: csr, rs1: source, funct3, rd, opcode: SYSTEM }.word()
}
