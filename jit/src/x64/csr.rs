//! The hart's words: control and status registers where they are.

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::csr::fields::mstatus;
use mimic_cpu::riscv::interp::host::Word;

use super::abi::LINES;
use super::alloc::Src;
use super::asm::{Alu, Cond, Fix, Mem, RAX, RBP, RSP, Reg, Rm, Size, opcode};
use super::fp::{self, Const, FFLAGS_AT, STICKY};
use super::{Emitter, Stub, Thunks, cond, exits, region};
use crate::ir::Val;

const fn place(word: Word) -> Mem {
    Mem::new(RBP, word.offset())
}

/// [`Op::Word`](crate::ir::Op::Word).
pub(super) fn read(e: &mut Emitter, i: u32, word: Word) {
    let dst = e.dst();
    if word == Word::Fflags {
        read_flags(e, dst);
        return e.define(i, dst);
    }
    e.code.mov(Size::Q, dst, Rm::Mem(place(word)));
    e.define(i, dst);
}

/// The flags of `fcsr`: what the hart's byte and MXCSR have of them.
fn read_flags(e: &mut Emitter, dst: Reg) {
    let tmp = e.take();
    let mxcsr = Mem::new(RSP, -8);
    fp::store_mxcsr(e, mxcsr);
    let table = Rm::Far(e.constants + FFLAGS_AT);
    let code = &mut e.code;
    code.mov(Size::L, dst, Rm::Mem(mxcsr));
    code.alu_imm(Alu::And, Size::L, Rm::Reg(dst), STICKY as i32);
    // lea.
    code.op(opcode(0, 0, 0x8d), Size::Q, tmp, table);
    code.extend(Width::Byte, false, dst, Rm::Mem(Mem::indexed(tmp, dst, 0, 0)));
    code.extend(Width::Byte, false, tmp, Rm::Mem(place(Word::Fflags)));
    code.alu(Alu::Or, Size::L, dst, Rm::Reg(tmp));
}

/// [`Op::SetWord`](crate::ir::Op::SetWord).
pub(super) fn write(e: &mut Emitter, word: Word, value: Val) {
    let width = if word == Word::Fflags { Width::Byte } else { Width::Double };
    match e.src(value) {
        Src::Imm(imm) => e.code.store_imm(width, place(word), imm),
        src => {
            let from = e.reg_of(src);
            e.code.store(width, place(word), from);
        }
    }
    if word == Word::Fflags {
        let plain = fp::constant(e, Const::Mxcsr);
        fp::load_mxcsr(e, plain);
    }
}

/// An instruction that may have to be performed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Performed {
    needed: Fix,
    insn: exits::Performing,
    next: exits::Resume,
}

/// [`Op::PerformIf`](crate::ir::Op::PerformIf).
pub(super) fn perform_if(e: &mut Emitter, wanted: Val) {
    let holds = cond::condition(e, wanted);
    let needed = e.code.jcc(holds);
    let (insn, next) = (exits::performing(e), exits::after_this(e));
    e.stubs.push(Stub::Performed(Performed { needed, insn, next }));
}

impl Performed {
    /// Emits the call out, and the way to the next instruction.
    pub(super) fn emit(self, e: &mut Emitter, thunks: &Thunks) {
        e.code.bind(self.needed);
        self.insn.call(e, thunks);
        self.next.emit(e, thunks);
    }
}

/// An exit because of an interrupt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attended {
    pending: Fix,
    done: u32,
    next: i64,
}

/// [`Op::Attend`](crate::ir::Op::Attend).
pub(super) fn attend(e: &mut Emitter, i: u32, next: i64) {
    e.clear(RAX, i);
    let code = &mut e.code;
    code.test_imm(Size::L, Rm::Mem(place(Word::Mstatus)), mstatus::SIE as i32);
    let disabled = code.jcc(Cond::E);
    code.mov(Size::Q, RAX, Rm::Mem(Mem::new(RBP, LINES)));
    code.mov(Size::Q, RAX, Rm::Mem(Mem::new(RAX, 0)));
    code.alu(Alu::Or, Size::Q, RAX, Rm::Mem(place(Word::Mip)));
    code.alu(Alu::Or, Size::Q, RAX, Rm::Mem(place(Word::Timer)));
    code.test(Size::Q, Rm::Mem(place(Word::Mie)), RAX);
    let pending = code.jcc(Cond::NE);
    code.bind(disabled);
    e.stubs.push(Stub::Attended(Attended { pending, done: e.insn + 1, next }));
}

impl Attended {
    /// Emits the exit.
    pub(super) fn emit(self, e: &mut Emitter, thunks: &Thunks) {
        e.code.bind(self.pending);
        exits::count(e, self.done);
        region::to_usual_homes(e);
        e.code.mov_imm(RAX, self.next as u64);
        e.code.jmp_far(thunks.attend);
    }
}
