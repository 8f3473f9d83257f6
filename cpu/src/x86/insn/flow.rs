//! From one instruction to the next: inside a block, out of it, and into the block behind a jump.

use super::super::core::{Core, IP_PAGE};
use super::super::decode::{Handler, Op};
use super::super::fault::Stop;
use super::super::interp::CodeCache;
use crate::bus::PAGE_MASK;
use crate::frame::NO_PAGE;

/// Performs the first of `ops` by `f` and, by a tail call, those after it. Returns how many of `ops` have not been
/// completed: zero at the end of the block; after a jump, those behind it; after a [`Stop`] (which sets
/// [`Core::stopped`]), the instruction itself and those behind it. `memory` says whether `f` accesses memory, so
/// that it may have to be the last instruction before the run loop looks at what it caused.
#[inline(always)]
pub(super) fn step(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    memory: bool,
    f: impl Fn(&mut Core, &Op) -> Result<(), Stop>,
) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    if f(core, op).is_err() {
        core.stopped = true;
        return ops.len();
    }
    if memory && core.leave {
        return leave(core, op, rest);
    }
    go_on(core, rest, code)
}

/// Performs the ops behind one that is complete.
#[inline(always)]
pub(super) fn go_on(core: &mut Core, rest: &[Op], code: &CodeCache) -> usize {
    match rest {
        [next, ..] => (next.handler)(core, rest, code),
        [] => 0,
    }
}

/// [`step`] by a short way: `usual` does the whole of an instruction and says so, or does nothing. Then `complete` is
/// asked. It is called in this function's place: nothing has to be kept over a call.
#[inline(always)]
pub(super) fn usually(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    usual: impl Fn(&mut Core, &Op) -> Option<()>,
    complete: Handler,
) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    match usual(core, op) {
        Some(()) => go_on(core, rest, code),
        None => complete(core, ops, code),
    }
}

#[cold]
fn leave(core: &mut Core, op: &Op, rest: &[Op]) -> usize {
    core.leave = false;
    core.next_rip = core.rip_after(op);
    rest.len()
}

/// [`step`] for instructions that leave the block: a jump, or something that the run loop must look at. `f` finds
/// [`Core::next_rip`] behind the instruction.
#[inline(always)]
pub(super) fn ends(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    f: impl Fn(&mut Core, &Op) -> Result<(), Stop>,
) -> usize {
    let _ = code;
    let [op, rest @ ..] = ops else { return 0 };
    let before = core.next_rip;
    core.next_rip = core.rip_after(op);
    if f(core, op).is_err() {
        core.next_rip = before;
        core.stopped = true;
        return ops.len();
    }
    core.leave = false;
    rest.len()
}

/// [`ends`] for jumps, which need no look of the run loop: they go on with the block at their target.
#[inline(always)]
pub(super) fn jumps(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    f: impl Fn(&mut Core, &Op) -> Result<(), Stop>,
) -> usize {
    let [op, rest @ ..] = ops else { return 0 };
    let before = core.next_rip;
    core.next_rip = core.rip_after(op);
    if f(core, op).is_err() {
        core.next_rip = before;
        core.stopped = true;
        return ops.len();
    }
    if core.leave {
        core.leave = false;
        return rest.len();
    }
    let offset = core.next_rip.wrapping_sub(core.gpr(IP_PAGE));
    chain(core, code, offset, rest.len())
}

/// Goes on with the block at `offset` from the beginning of the present page, which is where [`Core::next_rip`] leads,
/// after `undone` ops of the present block were jumped over. What is not at hand, or not to be done without a look at
/// other things, is left to the run loop.
#[inline(always)]
pub(super) fn chain(core: &mut Core, code: &CodeCache, offset: u64, undone: usize) -> usize {
    if offset > PAGE_MASK {
        return chain_away(core, code, undone);
    }
    chain_here(core, code, offset, undone)
}

/// [`chain`] to another page.
#[inline(never)]
fn chain_away(core: &mut Core, code: &CodeCache, undone: usize) -> usize {
    let lin = core.code_linear(core.next_rip);
    // Translations may have been flushed, or the mode may be another one.
    if (core.cpu.retired > core.window) | core.poll | (core.page_lin == NO_PAGE) {
        return undone;
    }
    let Some(page) = code.known_page(lin, core.fetch_class) else { return undone };
    core.now_in_page(lin, page);
    let offset = lin & PAGE_MASK;
    core.set_gpr(IP_PAGE, core.next_rip.wrapping_sub(offset));
    chain_here(core, code, offset, undone)
}

/// [`chain`] to the present page.
#[inline(always)]
fn chain_here(core: &mut Core, code: &CodeCache, offset: u64, undone: usize) -> usize {
    let block = code.at(core.code_page + offset as usize);
    let ops = code.ops(block);
    let retired = core.cpu.retired - undone as u64 + ops.len() as u64;
    let behind = core.next_rip.wrapping_add(block.bytes());
    let Some(first) = ops.first() else { return undone };
    if (retired > core.window) | core.poll | (behind.wrapping_sub(1) > core.code_limit) {
        return undone;
    }
    core.cpu.retired = retired;
    core.block = block;
    core.next_rip = behind & core.lin_mask;
    (first.handler)(core, ops, code)
}

/// [`ends`] for instructions that serialise (SDM vol. 3, 9.3).
#[inline(always)]
pub(super) fn serializes(
    core: &mut Core,
    ops: &[Op],
    code: &CodeCache,
    f: impl Fn(&mut Core, &Op) -> Result<(), Stop>,
) -> usize {
    ends(core, ops, code, |core, op| {
        core.serialize();
        f(core, op)
    })
}
