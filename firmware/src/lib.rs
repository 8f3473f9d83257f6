//! Guest firmware assembled in Rust, and the tables handed to guests.
//!
//! Nothing here runs on the host: every function turns plain data into bytes which the board
//! places into guest memory. Firmware is guest code like any other, so no engine knows of it,
//! and snapshots, the debugger and lockstep see through it.
//!
//! * [`riscv::boot_rom`]: the reset vector at 0x1000 of the `virt` board;
//! * [`riscv::sbi`]: the Supervisor Binary Interface, RISC-V M-mode firmware;
//! * [`riscv::sbi_check`]: an S-mode guest that checks an SBI implementation;
//! * [`fdt`]: the device tree, made from the board's placement list.
//! * [`x86`]: the tables that a PC's firmware leaves in memory.

pub mod fdt;
pub mod riscv;
pub mod x86;
