//! What differs between the instruction sets under gdb.

use gdbstub::arch::Arch;

use crate::machine::MachineHandle;

/// An instruction set as gdb knows it: its registers, and how the machine's harts have them.
pub(super) trait Guest: Arch<Usize = u64, BreakpointKind = usize> {
    /// gdb's name of such computers.
    const TRIPLE: &'static str;
    /// The registers of a `g` packet; `None` after the end of the run, here and below.
    fn core(machine: &MachineHandle, hart: usize) -> Option<Self::Registers>;
    /// Sets them.
    fn set_core(machine: &MachineHandle, hart: usize, core: Self::Registers) -> Option<()>;
    /// A register, little-endian, as many bytes as it has.
    fn read(machine: &MachineHandle, hart: usize, register: Self::RegId) -> Option<Vec<u8>>;
    /// Sets a register. Whether it can be set, and to so many bytes.
    fn write(machine: &MachineHandle, hart: usize, register: Self::RegId, bytes: &[u8]) -> bool;
}
