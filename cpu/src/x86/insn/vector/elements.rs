//! Moves of some elements: masked moves and gathers (SDM vol. 2, "VMASKMOV", "VPMASKMOV", "VGATHER", "VPGATHER").

use super::{number, read, vector, write};
use crate::x86::core::Core;
use crate::x86::decode::Op;
use crate::x86::fault::Stop;
use crate::x86::insn::{address_mask, effective};
use crate::x86::simd::{SimdOp, V256, gather_index};

/// The linear address of element `i` of a masked move: alignment is not checked, and what is not moved neither (SDM
/// vol. 2, "VMASKMOV").
fn element_address(core: &mut Core, op: &Op, i: usize, size: u8, write: bool) -> Result<u64, Stop> {
    let offset = effective(core, op).wrapping_add(i as u64 * u64::from(size));
    core.linear_unaligned(op.seg, offset & address_mask(op), size.into(), write)
}

fn load_element(core: &mut Core, lin: u64, size: u8) -> Result<u64, Stop> {
    Ok(if size == 4 { core.load::<u32>(lin)?.into() } else { core.load(lin)? })
}

/// The elements that a mask selects.
fn selected(mask: &V256, size: u8, bytes: u8) -> impl Iterator<Item = usize> {
    let signs = mask.signs(size, bytes);
    (0..usize::from(bytes / size)).filter(move |i| signs >> i & 1 != 0)
}

pub(super) fn masked_load(core: &mut Core, op: &Op, entry: &SimdOp, size: u8) -> Result<(), Stop> {
    let mask = read(core, op, entry, entry.a)?;
    let mut value = V256::default();
    for i in selected(&mask, size, entry.width) {
        let lin = element_address(core, op, i, size, false)?;
        value.set_element(i, size, load_element(core, lin, size)?);
    }
    write(core, op, entry, &value)
}

pub(super) fn masked_store(core: &mut Core, op: &Op, entry: &SimdOp, size: u8) -> Result<(), Stop> {
    let mask = read(core, op, entry, entry.a)?;
    let value = read(core, op, entry, entry.b)?;
    // All of them or none.
    for i in selected(&mask, size, entry.memory) {
        let lin = element_address(core, op, i, size, true)?;
        core.probe_write(lin, size.into())?;
    }
    for i in selected(&mask, size, entry.memory) {
        let lin = element_address(core, op, i, size, true)?;
        let element = value.element(i, size);
        match size {
            1 => core.store(lin, element as u8)?,
            4 => core.store(lin, element as u32)?,
            _ => core.store(lin, element)?,
        }
    }
    Ok(())
}

/// What a gather gathers.
#[derive(Clone, Copy)]
pub(super) struct Elements {
    pub(super) element: u8,
    pub(super) index: u8,
    pub(super) count: u8,
}

/// VGATHER and VPGATHER: what has arrived stays when a later element faults, its mask being clear (SDM vol. 2).
pub(super) fn gather(
    core: &mut Core,
    op: &Op,
    entry: &SimdOp,
    elements: Elements,
) -> Result<(), Stop> {
    let Elements { element, index, count } = elements;
    let (to, mask) = (number(op, entry.dst) & 15, number(op, entry.a) & 15);
    let indices = vector(core, op.index);
    let signs = vector(core, mask).signs(element, element * count);
    let base = core.gpr(op.base).wrapping_add(op.disp);
    for i in 0..usize::from(count) {
        if signs >> i & 1 != 0 {
            let index = gather_index(&indices, i, index) << (op.scale & 3);
            let offset = base.wrapping_add(index) & address_mask(op);
            let lin = core.linear_unaligned(op.seg, offset, element.into(), false)?;
            let value = load_element(core, lin, element)?;
            core.cpu.ymm[usize::from(to)].set_element(i, element, value);
        }
        core.cpu.ymm[usize::from(mask)].set_element(i, element, 0);
    }
    core.cpu.ymm[usize::from(mask)] = V256::default();
    core.cpu.ymm[usize::from(to)].bytes_mut()[usize::from(element * count)..].fill(0);
    Ok(())
}
