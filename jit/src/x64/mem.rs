//! Loads and stores: the TLB looked up inline, a call out where it misses.
//!
//! The entry is chosen by the page of the first byte and its tag compared with the page of the last, so that an
//! access that crosses a page misses and a misaligned one inside a page does not. An empty entry's tag is no page's
//! address. Layout of entries: `mimic_cpu::tlb`.

use mimic_cpu::bus::{PAGE_SIZE, Width};
use mimic_cpu::riscv::sem::{Bin, Un};
use mimic_cpu::tlb::TLB_SHIFT;

use super::abi::{ADDEND, READ_TAG, TLB, TLB_MASK, WRITE_TAG};
use super::alloc::{SCRATCH, Src, is_scratch};
use super::asm::{
    Alu, Code, Cond, Fix, Mem, Opcode, RAX, RBP, RCX, RDX, Reg, Rm, Shift, Size, opcode,
};
use super::{Emitter, Stub, Thunks, fp};
use crate::ir::{Op, Val};

const RORX: Opcode = opcode(3, 3, 0xf0);

/// Where a load's value goes, and how it is extended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dst {
    Gpr { reg: Reg, width: Width, signed: bool },
    Xmm(Reg),
}

/// A load that missed the TLB.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowLoad {
    miss: Fix,
    back: u32,
    addr: Reg,
    site: u32,
    dst: Dst,
}

/// A store that missed the TLB.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStore {
    miss: Fix,
    back: u32,
    addr: Reg,
    site: u32,
    value: Src,
}

/// The address as a register and a displacement.
pub(super) fn address(e: &mut Emitter, addr: Val) -> (Reg, i32) {
    if e.alloc.is_deferred(addr)
        && let Op::Bin(Bin::Add, base, offset) = e.ops[addr.0 as usize]
        && let Op::Const(offset) = e.ops[offset.0 as usize]
    {
        return (e.gpr(base), offset as i32);
    }
    (e.gpr(addr), 0)
}

/// Puts the address into RAX unless a home holds it. All scratch registers can be written.
fn settle_address(e: &mut Emitter, (base, disp): (Reg, i32)) -> Reg {
    if disp != 0 {
        e.code.lea(Size::Q, RAX, Mem::new(base, disp));
    } else if !is_scratch(base) {
        return base;
    } else if base != RAX {
        e.code.mov(Size::Q, RAX, Rm::Reg(base));
    }
    RAX
}

/// Looks the address up, which is in a register and, if its base is a home, the sum of that. On a hit, RCX is what to add to it.
fn look_up(e: &mut Emitter, addr: Reg, place: (Reg, i32), width: Width, tag: i32) -> Fix {
    let bmi2 = e.features.bmi2;
    let code = &mut e.code;
    let (base, disp) = match place {
        (base, disp) if !is_scratch(base) => (base, disp),
        _ => (addr, 0),
    };
    match disp.checked_add(width.bytes() as i32 - 1) {
        Some(0) => code.mov(Size::Q, RDX, Rm::Reg(base)),
        Some(last) => code.lea(Size::Q, RDX, Mem::new(base, last)),
        None => code.lea(Size::Q, RDX, Mem::new(addr, width.bytes() as i32 - 1)),
    }
    if bmi2 {
        code.vex_imm8(RORX, Size::Q, RCX, 0, Rm::Reg(addr), TLB_SHIFT as u8);
    } else {
        code.mov(Size::Q, RCX, Rm::Reg(addr));
        code.shift_imm(Shift::Shr, Size::Q, RCX, TLB_SHIFT as u8);
    }
    code.alu(Alu::And, Size::L, RCX, Rm::Mem(Mem::new(RBP, TLB_MASK)));
    code.alu(Alu::Add, Size::Q, RCX, Rm::Mem(Mem::new(RBP, TLB)));
    code.alu_imm(Alu::And, Size::Q, Rm::Reg(RDX), -(PAGE_SIZE as i32));
    code.alu(Alu::Cmp, Size::Q, RDX, Rm::Mem(Mem::new(RCX, tag)));
    let miss = code.jcc(Cond::NE);
    code.mov(Size::Q, RCX, Rm::Mem(Mem::new(RCX, ADDEND)));
    miss
}

/// [`Op::Load`], with the extension and the move to a guest register that follow it.
pub(super) fn load(e: &mut Emitter, i: u32, addr: Val, width: Width) {
    let (mut value, mut signed) = (i, false);
    if let Some(&Op::Un(extension, Val(of))) = e.ops.get(i as usize + 1)
        && of == i
        && e.alloc.value(Val(i)).uses == 1
        && e.alloc.value(Val(i + 1)).uses != 0
    {
        let fused = match (extension, width) {
            (Un::SextB, Width::Byte) | (Un::SextH, Width::Half) | (Un::SextW, Width::Word) => {
                Some(true)
            }
            (Un::ZextB, Width::Byte)
            | (Un::ZextH, Width::Byte | Width::Half)
            | (Un::ZextW, Width::Byte | Width::Half | Width::Word) => Some(false),
            _ => None,
        };
        if let Some(extension) = fused {
            (value, signed) = (i + 1, extension);
            e.next = i + 2;
        }
    }
    let to_xmm = if signed { None } else { fp::aim_load(e, value, width) };
    if to_xmm.is_none() {
        e.aim(value, i);
    }
    let place = address(e, addr);
    for r in SCRATCH {
        e.clear(r, i);
    }
    let addr = settle_address(e, place);
    let miss = look_up(e, addr, place, width, READ_TAG);
    let from = Mem::indexed(addr, RCX, 0, 0);
    let dst = match (to_xmm, e.target) {
        (Some((_, reg)), _) => Dst::Xmm(reg),
        (None, Some((_, reg))) => Dst::Gpr { reg, width, signed },
        (None, None) => Dst::Gpr { reg: RAX, width, signed },
    };
    match dst {
        Dst::Xmm(reg) if width == Width::Word => e.code.movd_to_xmm(reg, Rm::Mem(from)),
        Dst::Xmm(reg) => e.code.movq_to_xmm(reg, Rm::Mem(from)),
        Dst::Gpr { reg, .. } => e.code.extend(width, signed, reg, Rm::Mem(from)),
    }
    let site = e.site(width);
    let back = e.code.here();
    e.stubs.push(Stub::Load(SlowLoad { miss, back, addr, site, dst }));
    match (to_xmm, dst) {
        (Some((aim, reg)), _) => fp::loaded(e, &aim, reg),
        (None, Dst::Gpr { reg, .. }) => e.define(value, reg),
        (None, Dst::Xmm(_)) => {}
    }
}

/// [`Op::Store`].
pub(super) fn store(e: &mut Emitter, i: u32, addr: Val, width: Width, value: Val) {
    let place = address(e, addr);
    for r in SCRATCH {
        if e.is_in(value, r) {
            e.evict(r);
        } else {
            e.clear(r, i);
        }
    }
    let src = e.src(value);
    let addr = settle_address(e, place);
    let miss = look_up(e, addr, place, width, WRITE_TAG);
    let to = Mem::indexed(addr, RCX, 0, 0);
    match src {
        Src::Imm(imm) => e.code.store_imm(width, to, imm),
        Src::Reg(r) => e.code.store(width, to, r),
        Src::Xmm(r) if width == Width::Double => e.code.movq_from_xmm(Rm::Mem(to), r),
        Src::Xmm(r) | Src::Single(r) if width == Width::Word => {
            e.code.movd_from_xmm(Rm::Mem(to), r);
        }
        _ => {
            e.copy(RDX, src);
            e.code.store(width, to, RDX);
        }
    }
    let site = e.site(width);
    let back = e.code.here();
    e.stubs.push(Stub::Store(SlowStore { miss, back, addr, site, value: src }));
}

fn move_address(code: &mut Code, addr: Reg) {
    if addr != RAX {
        code.mov(Size::Q, RAX, Rm::Reg(addr));
    }
}

impl SlowLoad {
    /// Emits the call out and the way back.
    pub(super) fn emit(self, code: &mut Code, thunks: &Thunks) {
        code.bind(self.miss);
        move_address(code, self.addr);
        code.mov_imm(RCX, u64::from(self.site));
        code.call_far(thunks.load);
        match self.dst {
            Dst::Xmm(reg) => code.movq_to_xmm(reg, Rm::Reg(RAX)),
            Dst::Gpr { reg, width, signed: true } => code.extend(width, true, reg, Rm::Reg(RAX)),
            Dst::Gpr { reg: RAX, .. } => {}
            Dst::Gpr { reg, .. } => code.mov(Size::Q, reg, Rm::Reg(RAX)),
        }
        let jump = code.jmp();
        code.bind_to(jump, self.back);
    }
}

impl SlowStore {
    /// Emits the call out and the way back.
    pub(super) fn emit(self, e: &mut Emitter, thunks: &Thunks) {
        e.code.bind(self.miss);
        e.copy(RDX, self.value);
        move_address(&mut e.code, self.addr);
        e.code.mov_imm(RCX, u64::from(self.site));
        e.code.call_far(thunks.store);
        let jump = e.code.jmp();
        e.code.bind_to(jump, self.back);
    }
}
