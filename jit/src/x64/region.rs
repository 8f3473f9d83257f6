//! Several blocks emitted as one: jumps between them lead straight from one to the other, and the guest registers that
//! they use most have the host registers.
//!
//! Outside, every guest register is at its usual [home](super::homes): what is called or left for sees nothing of a
//! region's own homes. Two subroutines behind the region's code move what is elsewhere; they change no flags and no
//! scratch registers.

use mimic_cpu::bus::Width;

use super::asm::{Fix, Rm, Size};
use super::homes::{Home, Homes, Uses, in_frame, is_discarded};
use super::{Emitter, Entry};
use crate::ir::Op;
use crate::ir::region::{Part, Region};

/// Gives the host registers to the guest registers that the region uses most.
pub(super) fn choose_homes(homes: &mut Homes, region: &Region) {
    let crossings = region.crossings;
    let mut uses = Uses { weights: [0; 128], written: 0, crossings, executed: 0 };
    for Part { block, times, .. } in &region.parts {
        uses.executed += u64::from(*times) * block.insns.len() as u64;
        for op in &block.ops {
            match *op {
                Op::Get(slot) | Op::Set(slot, _) if !is_discarded(slot) => {
                    if let Some(sum) = uses.weights.get_mut(usize::from(slot)) {
                        *sum = sum.saturating_add(*times);
                    }
                    if matches!(op, Op::Set(..)) {
                        uses.written |= 1 << slot;
                    }
                }
                Op::Perform => uses.crossings = uses.crossings.saturating_add(2 * times),
                _ => {}
            }
        }
    }
    homes.choose(&uses);
}

/// The part that begins at an offset relative to the page.
pub(super) fn part_at(e: &Emitter, target: i64) -> Option<usize> {
    e.parts.iter().position(|part| part.start as i64 == target)
}

/// Makes a jump lead to a part.
pub(super) fn lead_to(e: &mut Emitter, jump: Fix, part: usize) {
    match e.parts[part].at {
        Some(at) => e.code.bind_to(jump, at),
        None => e.to_parts.push((jump, part)),
    }
}

/// Moves guest registers to their usual homes.
pub(super) fn to_usual_homes(e: &mut Emitter) {
    if !e.homes.swaps().is_empty() {
        let call = e.code.call();
        e.to_usual.push(call);
    }
}

/// Moves guest registers back to the region's homes.
pub(super) fn to_own_homes(e: &mut Emitter) {
    if !e.homes.swaps().is_empty() {
        let call = e.code.call();
        e.to_own.push(call);
    }
}

/// Emits the region's entries.
pub(super) fn enter(e: &mut Emitter, region: &Region) {
    for (k, part) in region.parts.iter().enumerate().filter(|(_, part)| part.entry) {
        let mut at = e.parts[k].at.unwrap_or_default();
        if !e.homes.swaps().is_empty() {
            let here = e.code.here();
            to_own_homes(e);
            let jump = e.code.jmp();
            e.code.bind_to(jump, at);
            at = here;
        }
        e.entries.push(Entry { offset: part.block.start, at });
    }
}

/// Emits the subroutines, and binds what leads to parts.
pub(super) fn finish(e: &mut Emitter) {
    for (jump, part) in std::mem::take(&mut e.to_parts) {
        let at = e.parts[part].at.unwrap_or_default();
        e.code.bind_to(jump, at);
    }
    if e.homes.swaps().is_empty() {
        return;
    }
    for own in [false, true] {
        let calls = std::mem::take(if own { &mut e.to_own } else { &mut e.to_usual });
        for call in calls {
            e.code.bind(call);
        }
        for k in 0..e.homes.swaps().len() {
            let swap = e.homes.swaps()[k];
            let (before, after, writes) = match own {
                true => (swap.usual, swap.own, true),
                false => (swap.own, swap.usual, swap.writes),
            };
            let (before, after) = (in_frame(before), in_frame(after));
            match swap.home {
                Home::Gpr(reg) => {
                    if writes {
                        e.code.store(Width::Double, before, reg);
                    }
                    e.code.mov(Size::Q, reg, Rm::Mem(after));
                }
                Home::Xmm(reg) => {
                    if writes {
                        e.code.movq_from_xmm(Rm::Mem(before), reg);
                    }
                    e.code.movq_to_xmm(reg, Rm::Mem(after));
                }
                Home::Frame => {}
            }
        }
        e.code.ret();
    }
}
