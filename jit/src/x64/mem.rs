//! Loads and stores: the TLB looked up inline, a call out where it misses.
//!
//! The entry is chosen by the page of the first byte and its tag compared with the page of the last, so that an
//! access that crosses a page misses and a misaligned one inside a page does not. An empty entry's tag is no page's
//! address. Layout of entries: `mimic_cpu::tlb`. Accesses of a [group](super::groups) are looked up together.

use mimic_cpu::bus::{PAGE_SIZE, Width};
use mimic_cpu::riscv::sem::Bin;
use mimic_cpu::tlb::TLB_SHIFT;

use super::abi::{ADDEND, FP_DIRTY, GroupCheck, READ_TAG, TLB, TLB_MASK, WRITE_TAG};
use super::alloc::{SCRATCH, Src, is_scratch};
use super::asm::{Alu, Cond, Fix, Mem, Opcode, RAX, RBP, RCX, RDX, Reg, Rm, Shift, Size, opcode};
use super::groups::{Group, NO_GROUP, extends_load};
use super::homes::{Home, in_frame, is_discarded};
use super::{Emitter, Stub, Thunks, exits, fp, region};
use crate::ir::{Op, Slot, Val};

const RORX: Opcode = opcode(3, 3, 0xf0);
/// Offsets from a base register that leave room for those inside a page.
const NEAR: std::ops::Range<i32> = -(1 << 30)..1 << 30;

/// Where a load's value goes, and how it is extended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dst {
    Gpr { reg: Reg, width: Width, signed: bool },
    Xmm(Reg, Width),
}

/// An address: a register plus an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    base: Reg,
    disp: i32,
}

/// What must lie in one page: bytes from below an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) below: i32,
    pub(super) len: i32,
}

/// A leader's part of a slow path.
#[derive(Clone, Copy, Debug)]
struct Lead {
    span: Span,
    writes: bool,
    /// The next instruction, where to go on alone.
    next: exits::Resume,
    rest: Rest,
}

/// What is left of a leader's instruction after its access.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    /// The register that the loaded value is for.
    slot: Option<Slot>,
    /// It is a single to be boxed.
    boxed: bool,
    /// The floating-point state is to be marked dirty.
    dirty: bool,
}

impl Rest {
    /// After the load of value `v`.
    fn of(e: &Emitter, v: u32) -> Rest {
        let op = |at: u32| e.ops.get(at as usize).copied();
        let boxed = op(v + 1) == Some(Op::Box(Val(v)));
        let v = v + u32::from(boxed);
        let dirty = op(v + 1) == Some(Op::FpDirty);
        let slot = match op(v + 1 + u32::from(dirty)) {
            Some(Op::Set(slot, of)) if of.0 == v => Some(slot),
            _ => None,
        };
        Rest { slot, boxed, dirty }
    }

    /// Does it with what was loaded.
    fn emit(self, e: &mut Emitter, loaded: Dst) {
        let Some(slot) = self.slot.filter(|&slot| !is_discarded(slot)) else { return };
        if self.dirty {
            e.code.store_imm(Width::Byte, Mem::new(RBP, FP_DIRTY), 1);
        }
        match (loaded, e.homes.of(slot)) {
            (Dst::Gpr { .. }, Home::Gpr(_)) => {}
            (Dst::Gpr { reg, .. }, Home::Xmm(home)) => e.code.movq_to_xmm(home, Rm::Reg(reg)),
            (Dst::Gpr { reg, .. }, Home::Frame) => {
                e.code.store(Width::Double, in_frame(slot), reg);
            }
            (Dst::Xmm(reg, _), home) => {
                if self.boxed {
                    fp::add_box(e, reg, reg);
                }
                match home {
                    Home::Xmm(home) => e.code.mov_xmm(home, reg),
                    Home::Frame => e.code.movq_from_xmm(Rm::Mem(in_frame(slot)), reg),
                    Home::Gpr(home) => e.code.movq_from_xmm(Rm::Reg(home), reg),
                }
            }
        }
    }
}

/// A load that missed the TLB.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowLoad {
    miss: Fix,
    back: u32,
    place: Place,
    site: u32,
    dst: Dst,
    lead: Option<Lead>,
}

/// A store that missed the TLB.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStore {
    miss: Fix,
    back: u32,
    place: Place,
    site: u32,
    value: Src,
    lead: Option<Lead>,
}

impl Place {
    fn plus(self, offset: i32) -> Mem {
        Mem::new(self.base, self.disp + offset)
    }

    /// The memory behind it, with the addend.
    pub(super) fn with(self, addend: Reg) -> Mem {
        Mem::indexed(self.base, addend, 0, self.disp)
    }
}

impl Emitter {
    /// The group of an access, and the value that stands for its addend.
    pub(super) fn group(&self, i: u32) -> Option<(Group, Val)> {
        match self.alloc.values[i as usize].group {
            NO_GROUP => None,
            id => {
                let group = self.alloc.grouping.groups[usize::from(id)];
                Some((group, Val((self.ops.len() + usize::from(id)) as u32)))
            }
        }
    }

    /// An address (or what is added to the page's) into a register, without touching the flags.
    fn load_address(&mut self, dst: Reg, place: Mem, plain: Option<Reg>) {
        match plain {
            Some(r) if r == dst => {}
            Some(r) => self.code.mov(Size::Q, dst, Rm::Reg(r)),
            None => self.code.lea(Size::Q, dst, place),
        }
    }

    /// The address plus an offset into a register.
    pub(super) fn address_into(&mut self, dst: Reg, place: Place, offset: i32) {
        let plain = (place.disp + offset == 0).then_some(place.base);
        self.load_address(dst, place.plus(offset), plain);
    }
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

/// Lets RCX and RDX be written: puts the address into RAX unless its base is a home, or already there.
pub(super) fn settle_address(e: &mut Emitter, (base, disp): (Reg, i32)) -> Place {
    if (!is_scratch(base) || base == RAX) && NEAR.contains(&disp) {
        return Place { base, disp };
    }
    let plain = (disp == 0).then_some(base);
    e.load_address(RAX, Mem::new(base, disp), plain);
    Place { base: RAX, disp: 0 }
}

/// Looks up the page of a span around an address whose base is RAX or a home; the bits `low` of its last byte's address
/// must be zero. On a hit, RCX is the address of the TLB's entry.
pub(super) fn find(e: &mut Emitter, place: Place, span: Span, low: i32, tag: i32) -> Fix {
    let first = -span.below;
    if place.disp + first == 0 && e.features.bmi2 {
        e.code.vex_imm8(RORX, Size::Q, RCX, 0, Rm::Reg(place.base), TLB_SHIFT as u8);
    } else {
        e.address_into(RCX, place, first);
        e.code.shift_imm(Shift::Shr, Size::Q, RCX, TLB_SHIFT as u8);
    }
    e.address_into(RDX, place, first + span.len - 1);
    let code = &mut e.code;
    code.alu(Alu::And, Size::L, RCX, Rm::Mem(Mem::new(RBP, TLB_MASK)));
    code.alu(Alu::Add, Size::Q, RCX, Rm::Mem(Mem::new(RBP, TLB)));
    code.alu_imm(Alu::And, Size::Q, Rm::Reg(RDX), -(PAGE_SIZE as i32) | low);
    code.alu(Alu::Cmp, Size::Q, RDX, Rm::Mem(Mem::new(RCX, tag)));
    code.jcc(Cond::NE)
}

/// Looks up the page of a span. On a hit, RCX is what to add to addresses of the page.
fn look_up(e: &mut Emitter, place: Place, span: Span, tag: i32) -> Fix {
    let miss = find(e, place, span, 0, tag);
    e.code.mov(Size::Q, RCX, Rm::Mem(Mem::new(RCX, ADDEND)));
    miss
}

/// What an access that is not a later member of a group looks up.
fn check(
    e: &mut Emitter,
    place: Place,
    width: Width,
    stores: bool,
    group: Option<(Group, Val)>,
    rest: Rest,
) -> (Fix, Option<Lead>) {
    let alone = Span { below: 0, len: width.bytes() as i32 };
    let (span, writes) = match group {
        Some((group, _)) => (Span { below: group.below, len: group.len }, group.writes),
        None => (alone, stores),
    };
    let miss = look_up(e, place, span, if writes { WRITE_TAG } else { READ_TAG });
    let lead = group.map(|(_, addend)| {
        e.set_gpr(addend.0, RCX);
        Lead { span, writes, next: exits::after_this(e), rest }
    });
    (miss, lead)
}

fn emit_load(e: &mut Emitter, dst: Dst, from: Mem) {
    match dst {
        Dst::Xmm(reg, Width::Word) => e.code.movd_to_xmm(reg, Rm::Mem(from)),
        Dst::Xmm(reg, _) => e.code.movq_to_xmm(reg, Rm::Mem(from)),
        Dst::Gpr { reg, width, signed } => e.code.extend(width, signed, reg, Rm::Mem(from)),
    }
}

/// [`Op::Load`], with the extension and the move to a guest register that follow it.
pub(super) fn load(e: &mut Emitter, i: u32, addr: Val, width: Width) {
    let (mut value, mut signed) = (i, false);
    if let Some(&Op::Un(extension, Val(of))) = e.ops.get(i as usize + 1)
        && of == i
        && e.alloc.value(Val(i)).uses == 1
        && e.alloc.value(Val(i + 1)).uses != 0
        && let Some(extension) = extends_load(extension, width)
    {
        (value, signed) = (i + 1, extension);
        e.next = i + 2;
    }
    let to_xmm = if signed { None } else { fp::aim_load(e, value, width) };
    if to_xmm.is_none() {
        e.aim(value, i);
    }
    let place = address(e, addr);
    let group = e.group(i);
    let dst = |reg| match to_xmm {
        Some((_, reg)) => Dst::Xmm(reg, width),
        None => Dst::Gpr { reg, width, signed },
    };
    let dst = match group {
        Some((group, addend)) if group.leader != i => {
            let addend = e.addend(addend.0);
            let reg = match to_xmm {
                Some(_) => RAX,
                None => e.dst_over_either(i, Src::Reg(place.0), Src::Reg(addend)),
            };
            let dst = dst(reg);
            emit_load(e, dst, Mem::indexed(place.0, addend, 0, place.1));
            dst
        }
        _ => {
            for r in SCRATCH {
                e.clear(r, i);
            }
            let place = settle_address(e, place);
            let rest = Rest::of(e, value);
            let (miss, lead) = check(e, place, width, false, group, rest);
            let dst = dst(e.target.map_or(RAX, |(_, reg)| reg));
            emit_load(e, dst, place.with(RCX));
            let (site, back) = (e.site(width), e.code.here());
            e.stubs.push(Stub::Load(SlowLoad { miss, back, place, site, dst, lead }));
            dst
        }
    };
    match (to_xmm, dst) {
        (Some((aim, reg)), _) => fp::loaded(e, &aim, reg),
        (None, Dst::Gpr { reg, .. }) => e.define(value, reg),
        (None, Dst::Xmm(..)) => {}
    }
}

/// Stores an operand; `via` may be written if it is neither in a register nor short.
fn emit_store(e: &mut Emitter, width: Width, to: Mem, src: Src, via: Option<Reg>) {
    match src {
        Src::Imm(imm) => e.code.store_imm(width, to, imm),
        Src::Reg(r) => e.code.store(width, to, r),
        Src::Xmm(r) if width == Width::Double => e.code.movq_from_xmm(Rm::Mem(to), r),
        Src::Xmm(r) | Src::Single(r) if width == Width::Word => {
            e.code.movd_from_xmm(Rm::Mem(to), r);
        }
        _ => {
            let r = via.unwrap_or_else(|| e.take());
            e.copy(r, src);
            e.code.store(width, to, r);
        }
    }
}

/// [`Op::Store`].
pub(super) fn store(e: &mut Emitter, i: u32, addr: Val, width: Width, value: Val) {
    let place = address(e, addr);
    let group = e.group(i);
    if let Some((group, addend)) = group
        && group.leader != i
    {
        let src = e.src(value);
        let addend = e.addend(addend.0);
        return emit_store(e, width, Mem::indexed(place.0, addend, 0, place.1), src, None);
    }
    for r in SCRATCH {
        if e.is_in(value, r) {
            e.evict(r);
        } else {
            e.clear(r, i);
        }
    }
    let src = e.src(value);
    let place = settle_address(e, place);
    let (miss, lead) = check(e, place, width, true, group, Rest::default());
    emit_store(e, width, place.with(RCX), src, Some(RDX));
    let (site, back) = (e.site(width), e.code.here());
    e.stubs.push(Stub::Store(SlowStore { miss, back, place, site, value: src, lead }));
}

/// The site of a call out, with what a leader's group must find afterwards.
fn pass_site(e: &mut Emitter, site: u32, lead: Option<Lead>) {
    let check = lead.map_or(0, |lead| {
        GroupCheck { below: lead.span.below as u16, last: lead.span.len as u16 - 1 }.encode()
    });
    e.code.mov_imm(RCX, check | u64::from(site));
}

/// The way back from a call out; for a leader whose group still does not fit, to the next instruction's own block.
fn come_back(e: &mut Emitter, back: u32, lead: Option<Lead>, loaded: Option<Dst>, thunks: &Thunks) {
    let Some(lead) = lead else {
        let jump = e.code.jmp();
        return e.code.bind_to(jump, back);
    };
    let jump = e.code.jcc(Cond::E);
    e.code.bind_to(jump, back);
    if let Some(loaded) = loaded {
        lead.rest.emit(e, loaded);
    }
    lead.next.emit(e, thunks);
}

impl SlowLoad {
    /// Emits the call out and the way back.
    pub(super) fn emit(self, e: &mut Emitter, thunks: &Thunks) {
        e.code.bind(self.miss);
        e.address_into(RAX, self.place, 0);
        pass_site(e, self.site, self.lead);
        region::to_usual_homes(e);
        e.code.call_far(match self.lead {
            None => thunks.load,
            Some(Lead { writes: false, .. }) => thunks.lead_load,
            Some(Lead { writes: true, .. }) => thunks.lead_load_for_write,
        });
        region::to_own_homes(e);
        // Nothing of this touches the flags.
        match self.dst {
            Dst::Xmm(reg, _) => e.code.movq_to_xmm(reg, Rm::Reg(RAX)),
            Dst::Gpr { reg, width, signed } => {
                if signed {
                    e.code.extend(width, true, reg, Rm::Reg(RAX));
                } else if reg != RAX {
                    e.code.mov(Size::Q, reg, Rm::Reg(RAX));
                }
            }
        }
        come_back(e, self.back, self.lead, Some(self.dst), thunks);
    }
}

impl SlowStore {
    /// Emits the call out and the way back.
    pub(super) fn emit(self, e: &mut Emitter, thunks: &Thunks) {
        e.code.bind(self.miss);
        e.copy(RDX, self.value);
        e.address_into(RAX, self.place, 0);
        pass_site(e, self.site, self.lead);
        region::to_usual_homes(e);
        e.code.call_far(if self.lead.is_some() { thunks.lead_store } else { thunks.store });
        region::to_own_homes(e);
        come_back(e, self.back, self.lead, None, thunks);
    }
}
