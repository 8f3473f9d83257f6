//! Operand shapes: what an instruction reads and writes, derived from iced-x86's description of its code.

use std::sync::LazyLock;

use iced_x86::{Code, EncodingKind, Mnemonic, OpCodeOperandKind as Iced};

use super::family::{Family, Form};
use super::mxcsr::{Exceptions, Mxcsr};
use super::table::family;
use super::vector::V256;

/// `a = f(a, b, immediate)`.
pub type IntFn = fn(&mut V256, &V256, u8);
/// `a = f(a, b, c)`.
pub type Int3Fn = fn(&mut V256, &V256, &V256);
/// `a = f(a, b, immediate)`; what it raised. PE may be missing if MXCSR has it recorded already.
pub type FpFn = fn(Mxcsr, &mut V256, &V256, u8) -> Exceptions;
/// `a = f(a, b, c)`; as [`FpFn`].
pub type Fp3Fn = fn(Mxcsr, &mut V256, &V256, &V256) -> Exceptions;
/// ZF, PF, CF of a comparison of `a` and `b`, the other arithmetic flags being clear; what it raised.
pub type FlagsFn = fn(Mxcsr, &V256, &V256) -> (u32, Exceptions);

/// What an instruction does with its operands.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// An operation that does not depend on MXCSR.
    Int(IntFn),
    /// As [`Run::Int`], with three sources.
    Int3(Int3Fn),
    /// An operation by MXCSR.
    Fp(FpFn),
    /// As [`Run::Fp`], with three sources.
    Fp3(Fp3Fn),
    /// A comparison that sets the arithmetic flags.
    Flags(FlagsFn),
    /// PCMPESTRI, PCMPISTRI: [`super::pcmpstri`] of `a`, `b` and the immediate sets ECX and the arithmetic flags.
    StringIndex(Lengths),
    /// PCMPESTRM, PCMPISTRM: [`super::pcmpstrm`] sets XMM0 and the arithmetic flags.
    StringMask(Lengths),
    /// CRC32: [`super::crc32`] of the low half of `a` and this many bytes of `b`.
    Crc32(u8),
    /// VMASKMOV, VPMASKMOV from memory: of the elements of this size of `b`, those whose sign is set in `a` are read (see
    /// [`V256::signs`]); the others become zeros and their memory is not touched.
    MaskedLoad(u8),
    /// VMASKMOV, VPMASKMOV to memory, MASKMOVDQU, MASKMOVQ: the elements of this size of `b` whose sign is set in `a` are
    /// written to `dst`.
    MaskedStore(u8),
    /// VGATHER, VPGATHER: elements whose sign is set in `a` (the mask register) are read into the destination, from the base
    /// plus [`gather_index`] times the scale plus the displacement; the others stay. As each element arrives its mask
    /// becomes zero. In the end the mask register is zero and so is the destination above the elements. #UD when two
    /// of destination, index and mask are the same register.
    Gather {
        /// Size of an element in bytes.
        element: u8,
        /// Size of an index in bytes.
        index: u8,
        /// Number of elements.
        count: u8,
    },
}

/// Where PCMPxSTRx takes its lengths from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// The strings end at their first zero.
    Implicit,
    /// EAX is the length of `a`, EDX that of `b`, both signed.
    Explicit32,
    /// RAX and RDX.
    Explicit64,
}

/// Index `i` of a gather from its index register, sign-extended; `size` is that of an index in bytes, 4 or 8.
#[inline]
pub fn gather_index(indices: &V256, i: usize, size: u8) -> u64 {
    let index = indices.element(i, size);
    if size == 4 { i64::from(index as i32) as u64 } else { index }
}

/// What an operand is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// There is none.
    #[default]
    None,
    /// An MMX register.
    Mm,
    /// An XMM or YMM register.
    Vector,
    /// XMM0, implied.
    Xmm0,
    /// The low 8 bits of a general register (CRC32), or AH to DH.
    Gpr8,
    /// The low 16 bits of a general register (CRC32).
    Gpr16,
    /// The low 32 bits of a general register; written, the upper half becomes zero.
    Gpr32,
    /// A general register of 64 bits.
    Gpr64,
    /// Memory of [`SimdOp::memory`] bytes.
    Memory,
}

/// An operand's kind and its number in the decoded instruction (`Instruction::op_register` and so on; meaningless for
/// [`Kind::None`] and [`Kind::Xmm0`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operand {
    /// What it is.
    pub kind: Kind,
    /// Which operand of the instruction.
    pub number: u8,
}

/// An instruction: its operation and the shape of its operands. The module's documentation says how it is performed.
#[derive(Clone, Copy, Debug)]
pub struct SimdOp {
    /// The operation.
    pub run: Run,
    /// Where the result goes.
    pub dst: Operand,
    /// The first source. [`Kind::None`] if the operation does not look at it.
    pub a: Operand,
    /// The second source.
    pub b: Operand,
    /// The third source.
    pub c: Operand,
    /// Whether there is an immediate byte.
    pub immediate: bool,
    /// Bytes of a vector register that are read and written: 8 (MMX), 16 or 32.
    pub width: u8,
    /// Bytes of the memory operand; 0 without one. Of a gather: of one element.
    pub memory: u8,
    /// Alignment demanded of the memory operand, #GP otherwise; 1 for none.
    pub align: u8,
    /// Whether bits 255:128 of a destination register become zero (VEX encodings of 128 bits).
    pub zero_upper: bool,
}

/// The operation of an instruction of which an operand is memory (MASKMOVDQU's implied one, too) or none is; `None` for what
/// this module does not perform. The first call builds the table; take the result when decoding.
pub fn lookup(code: Code, memory: bool) -> Option<&'static SimdOp> {
    table().get(usize::from(place(code, memory)?))
}

/// Place of an instruction's operation in [`table`]; as [`lookup`].
pub fn place(code: Code, memory: bool) -> Option<u16> {
    TABLE.places.get(code as usize)?[usize::from(memory)].checked_sub(1)
}

/// All operations.
pub fn table() -> &'static [SimdOp] {
    &TABLE.ops
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

struct Table {
    ops: Vec<SimdOp>,
    /// By code and form: one more than the place in `ops`, or zero.
    places: Vec<[u16; 2]>,
}

impl Table {
    fn new() -> Self {
        let mut ops = Vec::new();
        let mut place = |op: Option<SimdOp>| {
            op.map_or(0, |op| {
                ops.push(op);
                ops.len() as u16
            })
        };
        let places = Code::values()
            .map(|code| [false, true].map(|memory| place(shape(code, memory))))
            .collect();
        Self { ops, places }
    }
}

/// What iced-x86's operand kind is in a form; `None` for one that vector instructions do not have or that the form rules
/// out.
fn kind(operand: Iced, memory: bool) -> Option<Kind> {
    let register = match operand {
        Iced::mem
        | Iced::mem_vsib32x
        | Iced::mem_vsib32y
        | Iced::mem_vsib64x
        | Iced::mem_vsib64y => {
            return memory.then_some(Kind::Memory);
        }
        Iced::seg_rDI => return memory.then_some(Kind::Memory),
        Iced::mm_or_mem => Kind::Mm,
        Iced::xmm_or_mem | Iced::ymm_or_mem => Kind::Vector,
        Iced::r8_or_mem => Kind::Gpr8,
        Iced::r16_or_mem => Kind::Gpr16,
        Iced::r32_or_mem => Kind::Gpr32,
        Iced::r64_or_mem => Kind::Gpr64,
        Iced::mm_reg | Iced::mm_rm => return Some(Kind::Mm),
        Iced::xmm_reg
        | Iced::xmm_rm
        | Iced::xmm_vvvv
        | Iced::xmm_is4
        | Iced::ymm_reg
        | Iced::ymm_rm
        | Iced::ymm_vvvv
        | Iced::ymm_is4 => return Some(Kind::Vector),
        Iced::r32_reg => return Some(Kind::Gpr32),
        Iced::r64_reg => return Some(Kind::Gpr64),
        Iced::imm8 => return Some(Kind::None),
        _ => return None,
    };
    Some(if memory { Kind::Memory } else { register })
}

/// Legacy instructions whose 16 bytes of memory need no alignment (SDM volume 2, 2.4, table 2-21 and the
/// instructions' own pages).
fn is_unaligned(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Movups
            | Mnemonic::Movupd
            | Mnemonic::Movdqu
            | Mnemonic::Lddqu
            | Mnemonic::Pcmpestri
            | Mnemonic::Pcmpestri64
            | Mnemonic::Pcmpestrm
            | Mnemonic::Pcmpestrm64
            | Mnemonic::Pcmpistri
            | Mnemonic::Pcmpistrm
            | Mnemonic::Maskmovdqu
    )
}

/// VEX instructions that demand alignment (SDM volume 1, 14.9, table 14-22).
fn is_aligned(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Vmovaps
            | Mnemonic::Vmovapd
            | Mnemonic::Vmovdqa
            | Mnemonic::Vmovntps
            | Mnemonic::Vmovntpd
            | Mnemonic::Vmovntdq
            | Mnemonic::Vmovntdqa
    )
}

fn shape(code: Code, memory: bool) -> Option<SimdOp> {
    let info = code.op_code();
    let vex = match info.encoding() {
        EncodingKind::Legacy => false,
        EncodingKind::VEX => true,
        _ => return None,
    };
    let kinds = info.op_kinds();
    let mut operands = [Operand::default(); 4];
    for (number, (operand, &iced)) in operands.iter_mut().zip(kinds).enumerate() {
        *operand = Operand { kind: kind(iced, memory)?, number: number as u8 };
    }
    let has_memory = operands.iter().any(|operand| operand.kind == Kind::Memory);
    if memory != has_memory {
        return None;
    }
    let ymm = kinds.iter().any(|k| {
        matches!(
            k,
            Iced::ymm_reg | Iced::ymm_rm | Iced::ymm_vvvv | Iced::ymm_is4 | Iced::ymm_or_mem
        )
    });
    let mmx = !ymm
        && operands.iter().any(|operand| operand.kind == Kind::Mm)
        && !operands.iter().any(|operand| operand.kind == Kind::Vector);
    // VAES and VPCLMULQDQ are the only extensions whose mnemonics the table shares with AES and PCLMULQDQ.
    if ymm && is_block_cipher(code.mnemonic()) {
        return None;
    }
    let size = if ymm { 2 } else { usize::from(!mmx) };
    let immediate = kinds.contains(&Iced::imm8);
    let sources = kinds.len() - usize::from(immediate);
    let form = Form {
        memory,
        store: operands[0].kind == Kind::Memory,
        wide: kinds.iter().any(|k| matches!(k, Iced::r64_reg | Iced::r64_or_mem)),
        vector_count: sources > 1 + usize::from(vex),
    };
    let family = family(code.mnemonic(), form)?;
    let run = match family {
        Family::Int(f) => Run::Int(f[size]),
        Family::Int3(f) => Run::Int3(f[size]),
        Family::Fp(f) => Run::Fp(f[size]),
        Family::Fp3(f) => Run::Fp3(f[size]),
        Family::Flags(f) => Run::Flags(f[size]),
        Family::Other(run) => run,
    };
    let run = match run {
        Run::Gather { element, index, .. } => {
            let count = if info.l() == 1 { 32 } else { 16 } / element.max(index);
            Run::Gather { element, index, count }
        }
        Run::Crc32(_) => Run::Crc32(info.memory_size().size() as u8),
        other => other,
    };
    let memory = if has_memory { info.memory_size().size() as u8 } else { 0 };
    let align = match (vex, memory) {
        (false, 16) if !is_unaligned(code.mnemonic()) => 16,
        (true, 16 | 32) if is_aligned(code.mnemonic()) => memory,
        _ => 1,
    };
    let [dst, mut a, mut b, c] = roles(run, vex, operands, sources);
    if vex && matches!(kinds.first(), Some(Iced::xmm_vvvv | Iced::ymm_vvvv)) {
        // A shift by an immediate, whose destination stands in VEX.vvvv.
        (a, b) = (b, a);
    }
    Some(SimdOp {
        run,
        dst,
        a,
        b,
        c,
        immediate,
        width: [8, 16, 32][size],
        memory,
        align,
        zero_upper: vex && !ymm && dst.kind == Kind::Vector,
    })
}

fn is_block_cipher(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Vaesenc
            | Mnemonic::Vaesenclast
            | Mnemonic::Vaesdec
            | Mnemonic::Vaesdeclast
            | Mnemonic::Vpclmulqdq
    )
}

/// Destination and sources `a`, `b`, `c` of an instruction whose first `sources` operands are not immediates.
fn roles(run: Run, vex: bool, operands: [Operand; 4], sources: usize) -> [Operand; 4] {
    let [first, second, third, fourth] = operands;
    let none = Operand::default();
    let xmm0 = Operand { kind: Kind::Xmm0, number: 0 };
    // What the destination was, where it can be the first source.
    let kept = match first.kind {
        Kind::Mm | Kind::Vector => first,
        _ => none,
    };
    match (run, sources) {
        (Run::Flags(_) | Run::StringIndex(_) | Run::StringMask(_), _) => {
            [none, first, second, none]
        }
        (Run::Crc32(_), _) => [first, first, second, none],
        (Run::Fp3(_), _) => [first, first, second, third],
        (Run::Int3(_), 2) => [first, first, second, xmm0],
        // MASKMOVDQU: DS:[rDI], the data, the mask.
        (Run::MaskedStore(1), _) => [first, third, second, none],
        // The destination, memory at the indices, the mask.
        (Run::Gather { .. }, _) => [first, third, second, none],
        (_, 1) => [first, first, none, none],
        (_, 2) if vex => [first, none, second, none],
        (_, 2) => [first, kept, second, none],
        _ => [first, second, third, fourth],
    }
}
