//! I/O ports (SDM vol. 1, chapter 19).

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::{Int, ends, sized};
use crate::bus::Width;
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::state::gpr;

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    match ins.mnemonic() {
        M::In => sized!(
            ins.bytes(0),
            T,
            Some(if ins.is_imm(1) { input::<T, true> } else { input::<T, false> })
        ),
        M::Out => sized!(
            ins.bytes(1),
            T,
            Some(if ins.is_imm(0) { output::<T, true> } else { output::<T, false> })
        ),
        _ => None,
    }
}

impl Core {
    /// Reads an I/O port.
    pub fn port_in(&mut self, port: u16, width: Width) -> u64 {
        self.device_accesses += 1;
        let value = self.bus.port_in(self.cpu.id as usize, port, width);
        self.leave |= self.signals.needs_attention();
        width.zero_extend(value)
    }

    /// Writes an I/O port.
    pub fn port_out(&mut self, port: u16, width: Width, value: u64) {
        self.device_accesses += 1;
        self.bus.port_out(self.cpu.id as usize, port, width, value);
        self.leave |= self.signals.needs_attention();
    }
}

fn input<T: Int, const IMM: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        let port = if IMM { op.imm as u8 as u16 } else { core.gpr(gpr::RDX) as u16 };
        core.check_port(port, T::WIDTH)?;
        let value = core.port_in(port, T::WIDTH);
        T::put(core, gpr::RAX, T::narrow(value));
        Ok(())
    })
}

fn output<T: Int, const IMM: bool>(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
    ends(core, ops, code, |core, op| {
        let port = if IMM { op.imm as u8 as u16 } else { core.gpr(gpr::RDX) as u16 };
        core.check_port(port, T::WIDTH)?;
        core.port_out(port, T::WIDTH, T::get(core, gpr::RAX).widen());
        Ok(())
    })
}
