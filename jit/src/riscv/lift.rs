//! RISC-V instructions become a block: the bodies of the instruction tables, performed on operations instead of values.
//!
//! What has no operations here (environment calls, trap returns, fences of address translation, most control
//! registers, ...) becomes [`Op::Perform`]: a body that asks for
//! such a thing is broken off, and what it has built until then is dropped.

use mimic_cpu::bus::{PAGE_SIZE, Width};
use mimic_cpu::frame::F;
use mimic_cpu::riscv::csr::fields::{envcfg, mstatus};
use mimic_cpu::riscv::csr::{CsrOp, num};
use mimic_cpu::riscv::decode::{Decoder, MAX_BLOCK, insn_len};
use mimic_cpu::riscv::hart::Mode;
use mimic_cpu::riscv::insn::{Args, At, Flow, Instruction, SINK};
use mimic_cpu::riscv::interp::host::Word;
use mimic_cpu::riscv::sem::{Amo, Atomic, Bin, Cbo, Fmt, Fp1, Fp2, PAUSE, Sem, SemExt, Un};
use mimic_cpu::softfloat::Rounding;

use crate::ir::build::Builder;
use crate::ir::opt::Passes;
use crate::ir::{Block, Op, Round, Slot, Val};

/// What a block takes for granted of the hart that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModeKey {
    /// Floating point is on (`mstatus.FS`) and the dynamic rounding mode (`frm`) is to nearest, ties to even.
    pub fp: bool,
    /// The privilege.
    pub mode: Mode,
}

impl ModeKey {
    /// The key's number, below [`MODES`](crate::cache::MODES).
    #[must_use]
    pub fn index(self) -> u8 {
        u8::from(self.fp) | (self.mode as u8) << 1
    }
}

/// The body cannot be expressed in operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLifted;

/// An instruction's body.
pub type Body = fn(&mut Lifter, Args) -> Result<(), NotLifted>;

/// Lifts blocks; keeps its buffers from one to the next.
pub struct Lifter {
    decoder: Decoder<Lifter>,
    build: Builder,
    mode: ModeKey,
    /// Rounding of the current instruction's operation.
    rounding: Rounding,
    /// The current instruction's bits `aq` and `rl`, if it is atomic, are both set.
    sequential: bool,
    /// The block may go on behind the current instruction, although it ends the interpreter's.
    goes_on: bool,
    /// After the current instruction an interrupt may be pending.
    attend: bool,
    /// How the current instruction ends the block.
    end: Option<Op>,
    /// The current instruction has asked for something that has no operation.
    refused: bool,
}

impl Lifter {
    /// A lifter for an emitter that takes what `supports` accepts.
    #[must_use]
    pub fn new(passes: Passes, supports: fn(&Op) -> bool) -> Self {
        Lifter {
            decoder: Decoder::default(),
            build: Builder::new(passes, supports),
            mode: ModeKey { fp: false, mode: Mode::U },
            rounding: Rounding::NearestEven,
            sequential: false,
            goes_on: false,
            attend: false,
            end: None,
            refused: false,
        }
    }

    /// Lifts the block at offset `start` (even, below 4096) of a page, whose 16 bits at an offset `read` gives.
    /// `None` if its first instruction crosses into the next page.
    ///
    /// Blocks are cut as the interpreter cuts them: after [`MAX_BLOCK`] instructions, before an instruction that
    /// crosses into the next page, and after one that [ends](Flow::End) them; but a translated instruction on a control
    /// register that only holds a value ends none.
    pub fn lift_block(
        &mut self,
        read: impl Fn(u64) -> u16,
        start: u64,
        mode: ModeKey,
    ) -> Option<&Block> {
        self.lift_line(read, start, mode, |_| false, |_| false)
    }

    /// Lifts a block that ends before an instruction that `stops` it, too, and goes on behind a jump to an offset
    /// that it `follows`.
    pub fn lift_line(
        &mut self,
        read: impl Fn(u64) -> u16,
        start: u64,
        mode: ModeKey,
        stops: impl Fn(u64) -> bool,
        follows: impl Fn(u64) -> bool,
    ) -> Option<&Block> {
        self.mode = mode;
        self.build.start(start);
        let mut at = start;
        let mut end = None;
        while at < PAGE_SIZE && self.build.len() < MAX_BLOCK && end.is_none() {
            if stops(at) && !self.build.is_empty() {
                break;
            }
            let low = u32::from(read(at));
            let len = insn_len(low);
            if at + len > PAGE_SIZE {
                break;
            }
            let word = if len == 4 { low | u32::from(read(at + 2)) << 16 } else { low };
            end = self.lift(word, At::new(at, len));
            at += len;
            if let Some(Op::Goto(target)) = end
                && let Ok(target) = u64::try_from(target)
                && follows(target)
            {
                (at, end) = (target, None);
            }
        }
        if self.build.is_empty() {
            return None;
        }
        Some(self.build.finish(end.unwrap_or(Op::Goto(at as i64))))
    }

    /// Lifts an instruction. How it ends the block, if it does.
    fn lift(&mut self, word: u32, at: At) -> Option<Op> {
        self.build.begin(at, word);
        (self.rounding, self.end, self.refused) = (Rounding::NearestEven, None, false);
        (self.goes_on, self.attend) = (false, false);
        self.sequential = word >> 25 & 3 == 3;
        let next = Op::Goto((at.offset() + at.bytes()) as i64);
        let Some(insn) = self.decoder.decode(word, at.offset()) else {
            self.build.perform();
            return Some(next);
        };
        let row = &self.decoder.rows()[usize::from(insn.row)];
        let (body, flow) = (row.handler, row.flow);
        let lifted = body(self, insn.args).is_ok();
        if !lifted || self.refused || !self.build.end() {
            self.build.perform();
            self.end = None;
            (self.goes_on, self.attend) = (false, false);
        }
        if self.attend {
            self.build.attend((at.offset() + at.bytes()) as i64);
        }
        match (self.end, flow) {
            (None, Flow::End) if !self.goes_on => Some(next),
            (end, _) => end,
        }
    }

    /// Refuses a floating-point operation in a format or a rounding that has none here. A result that is `exact`
    /// is not rounded.
    fn check_fp(&mut self, fmt: Fmt, exact: bool) {
        self.refused |= fmt == Fmt::H || !exact && self.rounding != Rounding::NearestEven;
    }
}

/// The word behind a register that is read and written without any effect, and its bits that are always zero.
fn plain_csr(csr: u16) -> Option<(Word, i64)> {
    Some(match csr {
        num::MTVEC => (Word::Mtvec, 2),
        num::MSCRATCH => (Word::Mscratch, 0),
        num::MEPC => (Word::Mepc, 1),
        num::MCAUSE => (Word::Mcause, 0),
        num::MTVAL => (Word::Mtval, 0),
        num::STVEC => (Word::Stvec, 2),
        num::SSCRATCH => (Word::Sscratch, 0),
        num::SEPC => (Word::Sepc, 1),
        num::SCAUSE => (Word::Scause, 0),
        num::STVAL => (Word::Stval, 0),
        _ => return None,
    })
}

/// The sets of a FENCE (unprivileged, 2.7).
const INPUT: u8 = 8;
const OUTPUT: u8 = 4;
const READS: u8 = 2;
const WRITES: u8 = 1;

/// Bits of `sstatus` that change what translated code takes for granted, or what loads and stores may do.
const FAR_REACHING: u64 = mstatus::FS | mstatus::SUM | mstatus::MXR;

impl Lifter {
    /// What an instruction makes of a register's value.
    fn csr_value(&mut self, op: CsrOp, old: Val, operand: Val) -> Val {
        match op {
            CsrOp::Write => operand,
            CsrOp::Set => self.or(old, operand),
            CsrOp::Clear => {
                let ones = self.imm(-1);
                let kept = self.xor(operand, ones);
                self.and(old, kept)
            }
        }
    }

    /// An instruction on `sstatus`. What floating point has done shows there, so code with floating point leaves that
    /// to the interpreter; and so does one that would change more than whether interrupts are enabled, and what
    /// the next trap return does.
    fn sstatus(&mut self, op: CsrOp, operand: Option<Val>) -> Result<Val, NotLifted> {
        if self.mode.fp {
            return Err(NotLifted);
        }
        let status = self.build.word(Word::Mstatus);
        if let Some(operand) = operand {
            let near = mstatus::SSTATUS_WRITABLE & !FAR_REACHING;
            let far = self.imm(FAR_REACHING as i64);
            let far = self.and(operand, far);
            let changed = match op {
                CsrOp::Write => {
                    let far_now = self.imm(FAR_REACHING as i64);
                    let far_now = self.and(status, far_now);
                    self.xor(far, far_now)
                }
                CsrOp::Set => {
                    let ones = self.imm(-1);
                    let clear = self.xor(status, ones);
                    self.and(far, clear)
                }
                CsrOp::Clear => self.and(far, status),
            };
            self.build.perform_if(changed);
            let others = self.imm(!near as i64);
            let near = self.imm(near as i64);
            let operand = self.and(operand, near);
            let new = match op {
                CsrOp::Write => {
                    let kept = self.and(status, others);
                    self.or(operand, kept)
                }
                _ => self.csr_value(op, status, operand),
            };
            self.build.set_word(Word::Mstatus, new);
            self.attend = op != CsrOp::Clear;
        } else {
            self.goes_on = true;
        }
        // SD is set where FS is 3: one more carries into the bit above.
        let shown = self.imm(mstatus::SSTATUS as i64);
        let shown = self.and(status, shown);
        let (one, above) = (self.imm(1 << 13), self.imm(1 << 15));
        let sum = self.add(shown, one);
        let dirty = self.and(sum, above);
        let amount = self.imm(48);
        let dirty = self.sll(dirty, amount);
        Ok(self.or(shown, dirty))
    }
}

/// Fields of `fcsr` (unprivileged, 20.2).
const FFLAGS_FIELD: i64 = 0x1f;
const FRM_FIELD: i64 = 0xe0;

impl Lifter {
    /// An instruction on `fflags`, `frm` or `fcsr`. Where floating point is translated, `frm` is 0; an instruction that
    /// would change it is left to the interpreter.
    fn fcsr(&mut self, op: CsrOp, csr: u16, operand: Option<Val>) -> Result<Val, NotLifted> {
        if !self.mode.fp {
            return Err(NotLifted);
        }
        let old = match csr {
            num::FRM => self.imm(0),
            _ => self.build.word(Word::Fflags),
        };
        if let Some(operand) = operand {
            let new = self.csr_value(op, old, operand);
            if csr != num::FFLAGS {
                let field = if csr == num::FRM { FRM_FIELD >> 5 } else { FRM_FIELD };
                let field = self.imm(field);
                let rounding = self.and(new, field);
                self.build.perform_if(rounding);
            }
            self.build.mark_fp_dirty();
            if csr != num::FRM {
                let field = self.imm(FFLAGS_FIELD);
                let flags = self.and(new, field);
                self.build.set_word(Word::Fflags, flags);
            }
        }
        self.goes_on = true;
        Ok(old)
    }
}

fn slot_of_f(r: u8) -> Slot {
    F as Slot + (r & 31)
}

impl Sem for Lifter {
    type V = Val;
    type Stop = NotLifted;
    type Handler = Body;

    fn handler<I: Instruction<Self>>() -> Body {
        I::perform
    }

    fn imm(&mut self, value: i64) -> Val {
        self.build.imm(value as u64)
    }
    fn x(&mut self, r: u8) -> Val {
        if r == 0 { self.build.imm(0) } else { self.build.get(r) }
    }
    fn set_x(&mut self, r: u8, v: Val) {
        if r != SINK {
            self.build.set(r, v);
        }
    }
    fn pc(&mut self, at: At, offset: i64) -> Val {
        self.build.pc(at.offset() as i64 + offset)
    }
    fn bin(&mut self, op: Bin, a: Val, b: Val) -> Val {
        self.build.bin(op, a, b)
    }
    fn un(&mut self, op: Un, a: Val) -> Val {
        self.build.un(op, a)
    }
    fn select(&mut self, cond: Val, a: Val, b: Val) -> Val {
        self.build.select(cond, a, b)
    }

    fn jump(&mut self, target: Val) {
        self.end = Some(self.build.jump(target));
    }
    fn jump_by(&mut self, at: At, offset: i64) {
        self.end = Some(Op::Goto(at.offset() as i64 + offset));
    }
    fn branch(&mut self, cond: Val, at: At, offset: i64) {
        self.build.branch(cond, at.offset() as i64 + offset);
    }

    fn load(&mut self, addr: Val, width: Width) -> Result<Val, NotLifted> {
        Ok(self.build.load(addr, width))
    }
    fn store(&mut self, addr: Val, width: Width, value: Val) -> Result<(), NotLifted> {
        self.build.store(addr, width, value);
        Ok(())
    }
    fn load_reserved(&mut self, addr: Val, width: Width) -> Result<Val, NotLifted> {
        if self.sequential {
            // Others are ordered enough as plain loads.
            self.build.fence();
        }
        Ok(self.build.atomic(Atomic::LoadReserved, addr, width, addr))
    }
    fn store_conditional(&mut self, addr: Val, width: Width, value: Val) -> Result<Val, NotLifted> {
        Ok(self.build.atomic(Atomic::StoreConditional, addr, width, value))
    }
    fn amo(&mut self, op: Amo, addr: Val, width: Width, value: Val) -> Result<Val, NotLifted> {
        Ok(self.build.atomic(Atomic::Amo(op), addr, width, value))
    }
    fn cbo(&mut self, op: Cbo, addr: Val) -> Result<(), NotLifted> {
        if op != Cbo::Zero {
            return Err(NotLifted);
        }
        // Who may do it: CMO extensions 1.0, 2.5.2.
        let allowed = match self.mode.mode {
            Mode::M => self.imm(1),
            mode => {
                let mut fields = self.build.word(Word::Menvcfg);
                if mode == Mode::U {
                    let senvcfg = self.build.word(Word::Senvcfg);
                    fields = self.and(fields, senvcfg);
                }
                let field = self.imm(envcfg::CBZE as i64);
                self.and(fields, field)
            }
        };
        self.build.atomic(Atomic::ZeroBlock, addr, Width::Double, allowed);
        Ok(())
    }
    fn fence(&mut self, pred: u8, succ: u8) {
        // PAUSE lets other harts run.
        if (pred, succ) == PAUSE {
            self.refused = true;
        } else if pred & (WRITES | OUTPUT) != 0 && succ & (READS | INPUT) != 0 {
            // The host lets a load overtake a store to another place, and nothing else (Intel SDM volume 3, 9.2.2).
            self.build.fence();
        }
    }
    fn fence_i(&mut self) {
        self.refused = true;
    }

    fn illegal(&mut self) -> NotLifted {
        NotLifted
    }
    fn need_fp(&mut self) -> Result<(), NotLifted> {
        if self.mode.fp { Ok(()) } else { Err(NotLifted) }
    }
    fn rounding(&mut self, rm: u8) -> Result<(), NotLifted> {
        const DYNAMIC: u8 = 7;
        self.rounding = match rm & 7 {
            DYNAMIC => Rounding::NearestEven,
            rm => Rounding::from_frm(rm).ok_or(NotLifted)?,
        };
        Ok(())
    }
    fn f(&mut self, r: u8) -> Val {
        self.build.get(slot_of_f(r))
    }
    fn set_f(&mut self, r: u8, v: Val) {
        self.build.mark_fp_dirty();
        self.build.set(slot_of_f(r), v);
    }
    fn fp2(&mut self, op: Fp2, fmt: Fmt, a: Val, b: Val) -> Val {
        self.check_fp(fmt, false);
        self.build.fp2(op, fmt, a, b)
    }
    fn fp1(&mut self, op: Fp1, fmt: Fmt, a: Val) -> Val {
        let to_integer =
            matches!(op, Fp1::ToI32 | Fp1::ToU32 | Fp1::ToI64 | Fp1::ToU64 | Fp1::ToI32Mod);
        let round = match self.rounding {
            Rounding::TowardZero if to_integer => Round::Zero,
            Rounding::Down if to_integer => Round::Down,
            Rounding::Up if to_integer => Round::Up,
            _ => Round::Nearest,
        };
        let widens = matches!(op, Fp1::FromI32 | Fp1::FromU32 | Fp1::From(Fmt::S));
        self.check_fp(fmt, round != Round::Nearest || widens && fmt == Fmt::D);
        if let Fp1::From(from) = op {
            self.refused |= from == Fmt::H;
        }
        self.build.fp1(op, fmt, round, a)
    }
    fn fma(&mut self, fmt: Fmt, a: Val, b: Val, c: Val) -> Val {
        self.check_fp(fmt, false);
        self.build.fma(fmt, a, b, c)
    }

    fn csr(&mut self, op: CsrOp, csr: u16, operand: Option<Val>) -> Result<Val, NotLifted> {
        let allowed = u64::from(csr >> 8 & 3) <= self.mode.mode as u64;
        let read_only = csr >> 10 == 3;
        if !self.build.has_csrs() || !allowed || operand.is_some() && read_only {
            return Err(NotLifted);
        }
        if csr == num::SSTATUS {
            return self.sstatus(op, operand);
        }
        if matches!(csr, num::FFLAGS | num::FRM | num::FCSR) {
            return self.fcsr(op, csr, operand);
        }
        let (word, fixed) = plain_csr(csr).ok_or(NotLifted)?;
        let old = self.build.word(word);
        if let Some(operand) = operand {
            let new = self.csr_value(op, old, operand);
            let kept = self.imm(!fixed);
            let new = self.and(new, kept);
            self.build.set_word(word, new);
        }
        self.goes_on = true;
        Ok(old)
    }
    fn ecall(&mut self) -> NotLifted {
        NotLifted
    }
    fn ebreak(&mut self, _: At) -> NotLifted {
        NotLifted
    }
    fn mret(&mut self) -> Result<(), NotLifted> {
        Err(NotLifted)
    }
    fn sret(&mut self) -> Result<(), NotLifted> {
        Err(NotLifted)
    }
    fn wfi(&mut self) -> Result<(), NotLifted> {
        Err(NotLifted)
    }
    fn wrs(&mut self, _: bool) -> Result<(), NotLifted> {
        Err(NotLifted)
    }
    fn sfence_vma(&mut self, _: Option<Val>, _: Option<Val>) -> Result<(), NotLifted> {
        Err(NotLifted)
    }
    fn sfence_order(&mut self) -> Result<(), NotLifted> {
        Err(NotLifted)
    }
}
