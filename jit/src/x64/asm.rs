//! The instruction encoder of the block emitter.
//!
//! Operands of emitted code are only known when it is emitted. An assembler that takes registers as values
//! has to choose the longest forms for them and appends byte by byte; this one picks the shortest form and
//! writes an instruction at once. Sequences with fixed registers are written with `dynasm!` (see `thunks`).
//!
//! Encoding: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, chapter 2.

use mimic_cpu::bus::Width;

/// A general-purpose or xmm register's number.
pub(super) type Reg = u8;

pub(super) const RAX: Reg = 0;
pub(super) const RCX: Reg = 1;
pub(super) const RDX: Reg = 2;
pub(super) const RSP: Reg = 4;
pub(super) const RBP: Reg = 5;

/// A memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mem {
    base: Reg,
    /// Index register and the logarithm of its scale.
    index: Option<(Reg, u8)>,
    disp: i32,
}

impl Mem {
    pub(super) const fn new(base: Reg, disp: i32) -> Self {
        Mem { base, index: None, disp }
    }

    pub(super) const fn indexed(base: Reg, index: Reg, scale: u8, disp: i32) -> Self {
        Mem { base, index: Some((index, scale)), disp }
    }

    /// The memory some bytes further.
    pub(super) const fn plus(self, bytes: i32) -> Self {
        Mem { disp: self.disp + bytes, ..self }
    }
}

/// A register or memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rm {
    Reg(Reg),
    Mem(Mem),
    /// Memory at an address within 2 GiB.
    Far(usize),
}

/// Operand size of general-purpose instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// 32 bits; the upper half of a destination is cleared.
    L,
    /// 64 bits.
    Q,
}

/// Condition codes, as encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cond(pub(super) u8);

impl Cond {
    pub(super) const O: Cond = Cond(0);
    pub(super) const B: Cond = Cond(2);
    pub(super) const AE: Cond = Cond(3);
    pub(super) const E: Cond = Cond(4);
    pub(super) const NE: Cond = Cond(5);
    pub(super) const BE: Cond = Cond(6);
    pub(super) const A: Cond = Cond(7);
    pub(super) const S: Cond = Cond(8);
    pub(super) const P: Cond = Cond(10);
    pub(super) const NP: Cond = Cond(11);
    pub(super) const L: Cond = Cond(12);
    pub(super) const GE: Cond = Cond(13);
    pub(super) const LE: Cond = Cond(14);
    pub(super) const G: Cond = Cond(15);

    /// The opposite.
    pub(super) const fn not(self) -> Cond {
        Cond(self.0 ^ 1)
    }

    /// What holds of (b, a) if this holds of (a, b).
    pub(super) const fn swapped(self) -> Cond {
        match self {
            Cond::L => Cond::G,
            Cond::G => Cond::L,
            Cond::GE => Cond::LE,
            Cond::LE => Cond::GE,
            Cond::B => Cond::A,
            Cond::A => Cond::B,
            other => other,
        }
    }
}

/// The two-operand arithmetic group; the number is that of the opcode and of the immediate forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alu {
    Add = 0,
    Or = 1,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// Shifts and rotations by an immediate or CL: the number in ModRM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shift {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// The one-operand group of opcode F7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group3 {
    Not = 2,
    Neg = 3,
    Mul = 4,
    Imul = 5,
    Div = 6,
    Idiv = 7,
}

/// Mandatory prefix, opcode map and opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opcode {
    /// 0 none, 1 66, 2 F3, 3 F2: VEX.pp.
    pub(super) prefix: u8,
    /// 0 none, 1 0F, 2 0F 38, 3 0F 3A: VEX.mmmmm.
    pub(super) map: u8,
    pub(super) code: u8,
}

/// Short for an [`Opcode`].
pub(super) const fn opcode(prefix: u8, map: u8, code: u8) -> Opcode {
    Opcode { prefix, map, code }
}

/// A place in the code, to be filled in: the offset of a 32-bit displacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fix(pub(super) u32);

/// An instruction under construction.
struct Bytes {
    bits: u128,
    len: u32,
    /// Place and target of a displacement that counts from the end of the instruction.
    far: Option<(u32, usize)>,
}

impl Bytes {
    #[inline]
    const fn new() -> Self {
        Bytes { bits: 0, len: 0, far: None }
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.bits |= u128::from(byte) << (self.len * 8);
        self.len += 1;
    }

    #[inline]
    fn long(&mut self, value: i32) {
        self.bits |= u128::from(value as u32) << (self.len * 8);
        self.len += 4;
    }

    /// ModRM, SIB and displacement.
    #[inline]
    fn modrm(&mut self, reg: Reg, rm: Rm) {
        let reg = (reg & 7) << 3;
        let mem = match rm {
            Rm::Reg(rm) => return self.byte(0xc0 | reg | rm & 7),
            Rm::Mem(mem) => mem,
            Rm::Far(target) => {
                self.byte(reg | 5);
                self.far = Some((self.len, target));
                return self.long(0);
            }
        };
        let base = mem.base & 7;
        let short = mem.disp == i32::from(mem.disp as i8);
        let mode = match mem.disp {
            0 if base != RBP => 0,
            _ if short => 0x40,
            _ => 0x80,
        };
        match mem.index {
            Some((index, scale)) => {
                self.byte(mode | reg | 4);
                self.byte(scale << 6 | (index & 7) << 3 | base);
            }
            None if base == RSP => {
                self.byte(mode | reg | 4);
                self.byte(0x24);
            }
            None => self.byte(mode | reg | base),
        }
        match mode {
            0 => {}
            0x40 => self.byte(mem.disp as u8),
            _ => self.long(mem.disp),
        }
    }
}

/// Bits R, X and B of REX and VEX.
#[inline]
fn extension(reg: Reg, rm: Rm) -> (u8, u8, u8) {
    match rm {
        Rm::Reg(rm) => (reg >> 3, 0, rm >> 3),
        Rm::Far(_) => (reg >> 3, 0, 0),
        Rm::Mem(mem) => (reg >> 3, mem.index.map_or(0, |(index, _)| index >> 3), mem.base >> 3),
    }
}

/// Code being emitted for a known address.
#[derive(Debug, Default)]
pub(super) struct Code {
    bytes: Vec<u8>,
    at: usize,
}

impl Code {
    /// Starts anew; the first byte will lie at `at`.
    pub(super) fn start(&mut self, at: usize) {
        self.bytes.clear();
        self.at = at;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Offset of what is emitted next.
    #[inline]
    pub(super) fn here(&self) -> u32 {
        self.bytes.len() as u32
    }

    #[inline]
    fn put(&mut self, bytes: &Bytes) {
        let end = self.bytes.len() + bytes.len as usize;
        let mut bits = bytes.bits;
        if let Some((place, target)) = bytes.far {
            let displacement = target.wrapping_sub(self.at + end) as u32;
            bits |= u128::from(displacement) << (place * 8);
        }
        self.bytes.extend_from_slice(&bits.to_le_bytes());
        self.bytes.truncate(end);
    }

    /// Builds an instruction with ModRM. `low_byte` says that `reg` or `rm` names a byte register.
    #[inline]
    fn build(op: Opcode, size: Size, reg: Reg, rm: Rm, low_byte: Option<Reg>) -> Bytes {
        let mut bytes = Bytes::new();
        match op.prefix {
            0 => {}
            1 => bytes.byte(0x66),
            2 => bytes.byte(0xf3),
            _ => bytes.byte(0xf2),
        }
        let (r, x, b) = extension(reg, rm);
        let rex = 0x40 | u8::from(size == Size::Q) << 3 | r << 2 | x << 1 | b;
        if rex != 0x40 || low_byte.is_some_and(|reg| reg >= 4) {
            bytes.byte(rex);
        }
        if op.map != 0 {
            bytes.byte(0x0f);
        }
        match op.map {
            2 => bytes.byte(0x38),
            3 => bytes.byte(0x3a),
            _ => {}
        }
        bytes.byte(op.code);
        bytes.modrm(reg, rm);
        bytes
    }

    /// An instruction with ModRM, by its opcode.
    #[inline]
    pub(super) fn op(&mut self, op: Opcode, size: Size, reg: Reg, rm: Rm) {
        self.put(&Self::build(op, size, reg, rm, None));
    }

    /// The same with an immediate byte.
    #[inline]
    pub(super) fn op_imm8(&mut self, op: Opcode, size: Size, reg: Reg, rm: Rm, imm: u8) {
        let mut bytes = Self::build(op, size, reg, rm, None);
        bytes.byte(imm);
        self.put(&bytes);
    }

    fn build_vex(op: Opcode, size: Size, reg: Reg, second: Reg, rm: Rm) -> Bytes {
        let mut bytes = Bytes::new();
        let (r, x, b) = extension(reg, rm);
        let tail = (!second & 15) << 3 | op.prefix;
        if op.map == 1 && size == Size::L && x == 0 && b == 0 {
            bytes.byte(0xc5);
            bytes.byte((r ^ 1) << 7 | tail);
        } else {
            bytes.byte(0xc4);
            bytes.byte((r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | op.map);
            bytes.byte(u8::from(size == Size::Q) << 7 | tail);
        }
        bytes.byte(op.code);
        bytes.modrm(reg, rm);
        bytes
    }

    /// A VEX-encoded instruction (128 bits or scalar); `second` is the register in VEX.vvvv, 0 if none.
    pub(super) fn vex(&mut self, op: Opcode, size: Size, reg: Reg, second: Reg, rm: Rm) {
        self.put(&Self::build_vex(op, size, reg, second, rm));
    }

    /// The same with an immediate byte.
    pub(super) fn vex_imm8(
        &mut self,
        op: Opcode,
        size: Size,
        reg: Reg,
        second: Reg,
        rm: Rm,
        imm: u8,
    ) {
        let mut bytes = Self::build_vex(op, size, reg, second, rm);
        bytes.byte(imm);
        self.put(&bytes);
    }

    /// `op dst, rm`.
    #[inline]
    pub(super) fn alu(&mut self, op: Alu, size: Size, dst: Reg, rm: Rm) {
        self.op(opcode(0, 0, (op as u8) << 3 | 3), size, dst, rm);
    }

    /// `op [mem], src`.
    #[inline]
    pub(super) fn alu_to_mem(&mut self, op: Alu, size: Size, mem: Mem, src: Reg) {
        self.op(opcode(0, 0, (op as u8) << 3 | 1), size, src, Rm::Mem(mem));
    }

    /// `op rm, imm`.
    #[inline]
    pub(super) fn alu_imm(&mut self, op: Alu, size: Size, rm: Rm, imm: i32) {
        let short = imm == i32::from(imm as i8);
        let code = if short { 0x83 } else { 0x81 };
        let mut bytes = Self::build(opcode(0, 0, code), size, op as u8, rm, None);
        if short {
            bytes.byte(imm as u8);
        } else {
            bytes.long(imm);
        }
        self.put(&bytes);
    }

    /// `test a, b`.
    #[inline]
    pub(super) fn test(&mut self, size: Size, rm: Rm, reg: Reg) {
        self.op(opcode(0, 0, 0x85), size, reg, rm);
    }

    /// `test rm, imm`.
    pub(super) fn test_imm(&mut self, size: Size, rm: Rm, imm: i32) {
        let mut bytes = Self::build(opcode(0, 0, 0xf7), size, 0, rm, None);
        bytes.long(imm);
        self.put(&bytes);
    }

    /// `mov dst, rm`.
    #[inline]
    pub(super) fn mov(&mut self, size: Size, dst: Reg, rm: Rm) {
        self.op(opcode(0, 0, 0x8b), size, dst, rm);
    }

    /// Loads a constant without touching the flags.
    pub(super) fn mov_imm_keeping_flags(&mut self, dst: Reg, value: u64) {
        let mut bytes = Bytes::new();
        if let Ok(value) = u32::try_from(value) {
            if dst >= 8 {
                bytes.byte(0x41);
            }
            bytes.byte(0xb8 | dst & 7);
            bytes.long(value as i32);
        } else if let Ok(value) = i32::try_from(value as i64) {
            bytes = Self::build(opcode(0, 0, 0xc7), Size::Q, 0, Rm::Reg(dst), None);
            bytes.long(value);
        } else {
            bytes.byte(0x48 | dst >> 3);
            bytes.byte(0xb8 | dst & 7);
            bytes.long(value as i32);
            bytes.long((value >> 32) as i32);
        }
        self.put(&bytes);
    }

    /// Loads a constant.
    pub(super) fn mov_imm(&mut self, dst: Reg, value: u64) {
        if value == 0 {
            self.alu(Alu::Xor, Size::L, dst, Rm::Reg(dst));
        } else {
            self.mov_imm_keeping_flags(dst, value);
        }
    }

    /// Stores the low bytes of a register.
    pub(super) fn store(&mut self, width: Width, mem: Mem, src: Reg) {
        let (prefix, code, size) = match width {
            Width::Byte => (0, 0x88, Size::L),
            Width::Half => (1, 0x89, Size::L),
            Width::Word => (0, 0x89, Size::L),
            Width::Double => (0, 0x89, Size::Q),
        };
        let low_byte = (width == Width::Byte).then_some(src);
        self.put(&Self::build(opcode(prefix, 0, code), size, src, Rm::Mem(mem), low_byte));
    }

    /// Stores the low bytes of a sign-extended constant.
    pub(super) fn store_imm(&mut self, width: Width, mem: Mem, imm: i32) {
        let (prefix, code, size) = match width {
            Width::Byte => (0, 0xc6, Size::L),
            Width::Half => (1, 0xc7, Size::L),
            Width::Word => (0, 0xc7, Size::L),
            Width::Double => (0, 0xc7, Size::Q),
        };
        let mut bytes = Self::build(opcode(prefix, 0, code), size, 0, Rm::Mem(mem), None);
        match width {
            Width::Byte => bytes.byte(imm as u8),
            Width::Half => {
                bytes.byte(imm as u8);
                bytes.byte((imm >> 8) as u8);
            }
            Width::Word | Width::Double => bytes.long(imm),
        }
        self.put(&bytes);
    }

    /// Loads or copies the low `width` of `rm`, extended to 64 bits.
    pub(super) fn extend(&mut self, width: Width, signed: bool, dst: Reg, rm: Rm) {
        let low_byte = match rm {
            Rm::Reg(reg) if width == Width::Byte => Some(reg),
            _ => None,
        };
        let (op, size) = match (width, signed) {
            (Width::Byte, false) => (opcode(0, 1, 0xb6), Size::L),
            (Width::Half, false) => (opcode(0, 1, 0xb7), Size::L),
            (Width::Word, false) => (opcode(0, 0, 0x8b), Size::L),
            (Width::Byte, true) => (opcode(0, 1, 0xbe), Size::Q),
            (Width::Half, true) => (opcode(0, 1, 0xbf), Size::Q),
            (Width::Word, true) => (opcode(0, 0, 0x63), Size::Q),
            (Width::Double, _) => (opcode(0, 0, 0x8b), Size::Q),
        };
        self.put(&Self::build(op, size, dst, rm, low_byte));
    }

    /// `lea dst, mem`.
    #[inline]
    pub(super) fn lea(&mut self, size: Size, dst: Reg, mem: Mem) {
        self.op(opcode(0, 0, 0x8d), size, dst, Rm::Mem(mem));
    }

    /// Shift or rotation by a constant.
    pub(super) fn shift_imm(&mut self, op: Shift, size: Size, dst: Reg, amount: u8) {
        if amount == 1 {
            self.op(opcode(0, 0, 0xd1), size, op as u8, Rm::Reg(dst));
        } else {
            self.op_imm8(opcode(0, 0, 0xc1), size, op as u8, Rm::Reg(dst), amount);
        }
    }

    /// Shift or rotation by CL.
    pub(super) fn shift_cl(&mut self, op: Shift, size: Size, dst: Reg) {
        self.op(opcode(0, 0, 0xd3), size, op as u8, Rm::Reg(dst));
    }

    /// An instruction of opcode group 3.
    pub(super) fn group3(&mut self, op: Group3, size: Size, rm: Rm) {
        self.op(opcode(0, 0, 0xf7), size, op as u8, rm);
    }

    /// Sign-extends the accumulator into RDX (or EDX).
    pub(super) fn cqo(&mut self, size: Size) {
        let mut bytes = Bytes::new();
        if size == Size::Q {
            bytes.byte(0x48);
        }
        bytes.byte(0x99);
        self.put(&bytes);
    }

    /// `setcc` on a low byte.
    pub(super) fn setcc(&mut self, cond: Cond, dst: Reg) {
        let op = opcode(0, 1, 0x90 | cond.0);
        self.put(&Self::build(op, Size::L, 0, Rm::Reg(dst), Some(dst)));
    }

    /// `cmovcc dst, rm`.
    pub(super) fn cmov(&mut self, cond: Cond, dst: Reg, rm: Rm) {
        self.op(opcode(0, 1, 0x40 | cond.0), Size::Q, dst, rm);
    }

    /// `bswap dst`.
    pub(super) fn bswap(&mut self, dst: Reg) {
        let mut bytes = Bytes::new();
        bytes.byte(0x48 | dst >> 3);
        bytes.byte(0x0f);
        bytes.byte(0xc8 | dst & 7);
        self.put(&bytes);
    }

    /// `imul dst, rm, imm`.
    pub(super) fn imul_imm(&mut self, size: Size, dst: Reg, rm: Rm, imm: i32) {
        let short = imm == i32::from(imm as i8);
        let code = if short { 0x6b } else { 0x69 };
        let mut bytes = Self::build(opcode(0, 0, code), size, dst, rm, None);
        if short {
            bytes.byte(imm as u8);
        } else {
            bytes.long(imm);
        }
        self.put(&bytes);
    }

    /// `movq`: all of a general-purpose register or 8 bytes of memory into an xmm register, whose upper half is
    /// cleared.
    pub(super) fn movq_to_xmm(&mut self, dst: Reg, rm: Rm) {
        match rm {
            Rm::Reg(_) => self.op(opcode(1, 1, 0x6e), Size::Q, dst, rm),
            Rm::Mem(_) | Rm::Far(_) => self.op(opcode(2, 1, 0x7e), Size::L, dst, rm),
        }
    }

    /// `movd`: the low half of a general-purpose register or 4 bytes of memory into an xmm register, the rest of
    /// which is cleared.
    pub(super) fn movd_to_xmm(&mut self, dst: Reg, rm: Rm) {
        self.op(opcode(1, 1, 0x6e), Size::L, dst, rm);
    }

    /// `movq`: the low half of an xmm register.
    pub(super) fn movq_from_xmm(&mut self, rm: Rm, src: Reg) {
        match rm {
            Rm::Reg(_) => self.op(opcode(1, 1, 0x7e), Size::Q, src, rm),
            Rm::Mem(_) | Rm::Far(_) => self.op(opcode(1, 1, 0xd6), Size::L, src, rm),
        }
    }

    /// `movd`: the low 4 bytes of an xmm register; the upper half of a general-purpose register is cleared.
    pub(super) fn movd_from_xmm(&mut self, rm: Rm, src: Reg) {
        self.op(opcode(1, 1, 0x7e), Size::L, src, rm);
    }

    /// `movaps`: all of an xmm register. The processor only renames it, unlike `movq`.
    pub(super) fn mov_xmm(&mut self, dst: Reg, src: Reg) {
        if dst != src {
            self.op(opcode(0, 1, 0x28), Size::L, dst, Rm::Reg(src));
        }
    }

    /// Bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// `jmp`, to be bound.
    pub(super) fn jmp(&mut self) -> Fix {
        self.raw(&[0xe9, 0, 0, 0, 0]);
        Fix(self.here() - 4)
    }

    /// `jcc`, to be bound.
    pub(super) fn jcc(&mut self, cond: Cond) -> Fix {
        self.raw(&[0x0f, 0x80 | cond.0, 0, 0, 0, 0]);
        Fix(self.here() - 4)
    }

    /// Makes a jump lead to `target`, an offset in this code.
    pub(super) fn bind_to(&mut self, fix: Fix, target: u32) {
        let place = fix.0 as usize;
        let displacement = target.wrapping_sub(fix.0 + 4);
        self.bytes[place..place + 4].copy_from_slice(&displacement.to_le_bytes());
    }

    /// Makes a jump lead here.
    pub(super) fn bind(&mut self, fix: Fix) {
        self.bind_to(fix, self.here());
    }

    /// Makes a jump or call lead to an address within 2 GiB.
    fn bind_far(&mut self, fix: Fix, target: usize) {
        self.bind_to(fix, target.wrapping_sub(self.at) as u32);
    }

    /// `jmp` to an address.
    pub(super) fn jmp_far(&mut self, target: usize) {
        let fix = self.jmp();
        self.bind_far(fix, target);
    }

    /// `jcc` to an address.
    pub(super) fn jcc_far(&mut self, cond: Cond, target: usize) {
        let fix = self.jcc(cond);
        self.bind_far(fix, target);
    }

    /// `call`, to be bound.
    pub(super) fn call(&mut self) -> Fix {
        self.raw(&[0xe8, 0, 0, 0, 0]);
        Fix(self.here() - 4)
    }

    /// `ret`.
    pub(super) fn ret(&mut self) {
        self.raw(&[0xc3]);
    }

    /// `call` to an address.
    pub(super) fn call_far(&mut self, target: usize) {
        let fix = self.call();
        self.bind_far(fix, target);
    }
}
