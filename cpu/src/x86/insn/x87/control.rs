//! Control instructions (SDM vol. 1, 5.2.6).

use iced_x86::Mnemonic as M;

use super::*;
use crate::x86::fault::{Fault, vector};
use crate::x86::state::{cr0, gpr};
use crate::x86::x87::Format;

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    match ins.mnemonic() {
        M::Ffree => registers!(|x87, op| x87.ffree(last(op))),
        M::Ffreep => registers!(|x87, op| x87.ffreep(last(op))),
        M::Fincstp => registers!(|x87, _| x87.fincstp()),
        M::Fdecstp => registers!(|x87, _| x87.fdecstp()),
        M::Fnop => registers!(|_, _| ()),
        M::Wait => handler!(|core, _| wait(core)),
        M::Fninit => handler!(|core, _| {
            core.need(unit::X87)?;
            core.cpu.x87.fninit();
            Ok(())
        }),
        M::Fnclex => handler!(|core, _| {
            core.need(unit::X87)?;
            core.cpu.x87.fnclex();
            Ok(())
        }),
        // What the 8087 and the 287 did with interrupts and protection is done no more: nothing.
        M::Fneni | M::Fndisi | M::Fnsetpm => handler!(|core, _| core.need(unit::X87)),
        M::Fldcw => handler!(|core, op| {
            begin(core)?;
            let lin = Segmented::lin(core, op, 2, false)?;
            let control = core.load(lin)?;
            core.cpu.x87.fldcw(control);
            Ok(())
        }),
        M::Fnstcw => handler!(|core, op| {
            core.need(unit::X87)?;
            let lin = Segmented::lin(core, op, 2, true)?;
            core.store(lin, core.cpu.x87.control_word())
        }),
        M::Fnstsw if ins.is_reg(0) => handler!(|core, _| {
            core.need(unit::X87)?;
            u16::put(core, gpr::RAX, core.cpu.x87.status_word());
            Ok(())
        }),
        M::Fnstsw => handler!(|core, op| {
            core.need(unit::X87)?;
            let lin = Segmented::lin(core, op, 2, true)?;
            core.store(lin, core.cpu.x87.status_word())
        }),
        M::Fnstenv => handler!(|core, op| {
            core.need(unit::X87)?;
            let format = format(core, op.size == 28);
            let bytes = core.cpu.x87.environment(format);
            write_image(core, op, &bytes[..format.environment_len()])?;
            core.cpu.x87.mask_all();
            Ok(())
        }),
        M::Fldenv => handler!(|core, op| {
            begin(core)?;
            let format = format(core, op.size == 28);
            let bytes = read_image(core, op, format.environment_len())?;
            core.cpu.x87.fldenv(format, &bytes);
            Ok(())
        }),
        M::Fnsave => handler!(|core, op| {
            core.need(unit::X87)?;
            let format = format(core, op.size == 108);
            let bytes = core.cpu.x87.save_image(format);
            write_image(core, op, &bytes[..format.image_len()])?;
            core.cpu.x87.fninit();
            Ok(())
        }),
        M::Frstor => handler!(|core, op| {
            begin(core)?;
            let format = format(core, op.size == 108);
            let bytes = read_image(core, op, format.image_len())?;
            core.cpu.x87.frstor(format, &bytes);
            Ok(())
        }),
        _ => None,
    }
}

/// WAIT: #NM only where CR0.MP says so.
fn wait(core: &mut Core) -> Result<(), Stop> {
    const OTHERS: u64 = cr0::MP | cr0::TS;
    if core.cpu.cr0 & OTHERS == OTHERS {
        return Err(core.raise(Fault::new(vector::NM)));
    }
    core.no_pending()
}

/// The layout of an environment.
fn format(core: &Core, wide: bool) -> Format {
    match (core.paragraphs(), wide) {
        (true, false) => Format::Real16,
        (true, true) => Format::Real32,
        (false, false) => Format::Protected16,
        (false, true) => Format::Protected32,
    }
}

fn write_image(core: &mut Core, op: &Op, bytes: &[u8]) -> Result<(), Stop> {
    let lin = Segmented::lin(core, op, bytes.len() as u64, true)?;
    core.store_bytes(lin, bytes)
}

/// The first `len` bytes of an image of at most `N`.
fn read_image<const N: usize>(core: &mut Core, op: &Op, len: usize) -> Result<[u8; N], Stop> {
    let lin = Segmented::lin(core, op, len as u64, false)?;
    let mut bytes = [0; N];
    core.load_bytes(lin, &mut bytes[..len])?;
    Ok(bytes)
}
