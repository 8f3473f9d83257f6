//! Flag control (SDM vol. 1, 5.1.11); STI and CLI, too.

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::{Int, ends, step};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::flags::bit;
use crate::x86::state::{Shadow, cr4, gpr};

/// Where AH begins in RAX.
const AH: u32 = 8;

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    Some(match ins.mnemonic() {
        M::Clc => change::<{ bit::CF }, 0>,
        M::Stc => change::<{ bit::CF }, { bit::CF }>,
        M::Cmc => cmc,
        M::Cld => direction::<false>,
        M::Std => direction::<true>,
        M::Lahf => lahf,
        M::Sahf => sahf,
        M::Cli => cli,
        M::Sti => sti,
        M::Salc => salc,
        _ => return None,
    })
}

fn change<const MASK: u64, const TO: u64>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        core.flags.replace(MASK, TO);
        Ok(())
    })
}

fn cmc(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        core.flags = core.flags.with_carry(!core.flags.cf());
        Ok(())
    })
}

fn direction<const DOWN: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        core.cpu.rflags = core.cpu.rflags & !bit::DF | if DOWN { bit::DF } else { 0 };
        Ok(())
    })
}

fn lahf(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        let flags = core.rflags() & 0xff;
        let rax = core.gpr(gpr::RAX);
        core.set_gpr(gpr::RAX, rax & !(0xff << AH) | flags << AH);
        Ok(())
    })
}

fn sahf(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        let flags = core.gpr(gpr::RAX) >> AH;
        core.flags.replace(bit::ARITH & 0xff, flags);
        Ok(())
    })
}

/// SALC, which the SDM leaves out: AL becomes all carries (APM vol. 3, appendix A, has its opcode D6 as invalid in
/// 64-bit mode).
fn salc(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        let al = if core.flags.cf() { 0xff } else { 0 };
        u8::put(core, gpr::RAX, al);
        Ok(())
    })
}

/// What CLI and STI may do to interrupts.
enum Control {
    /// They change IF.
    Real,
    /// They change VIF: virtual-8086 extensions, protected-mode virtual interrupts.
    Virtual,
    Denied,
}

fn control(core: &Core) -> Control {
    let iopl = core.iopl();
    if !core.protected() || core.cpu.cpl <= iopl {
        return Control::Real;
    }
    let extension = if core.v86() { cr4::VME } else { cr4::PVI };
    if core.cpu.cpl == 3 && core.cpu.cr4 & extension != 0 {
        Control::Virtual
    } else {
        Control::Denied
    }
}

fn cli(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    step(core, ops, code, false, |core, _| {
        match control(core) {
            Control::Real => core.cpu.rflags &= !bit::IF,
            Control::Virtual => core.cpu.rflags &= !bit::VIF,
            Control::Denied => return Err(core.gp(0)),
        }
        Ok(())
    })
}

fn sti(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, _| {
        match control(core) {
            Control::Real => {
                if !core.has_flag(bit::IF) {
                    core.cpu.rflags |= bit::IF;
                    core.cpu.shadow = Shadow::Sti;
                    core.poll = true;
                }
            }
            Control::Virtual if core.has_flag(bit::VIP) => return Err(core.gp(0)),
            Control::Virtual => core.cpu.rflags |= bit::VIF,
            Control::Denied => return Err(core.gp(0)),
        }
        Ok(())
    })
}
