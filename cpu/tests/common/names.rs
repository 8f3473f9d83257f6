//! A [`Sem`] that performs nothing: the instruction tables as data.

use mimic_cpu::bus::Width;
use mimic_cpu::riscv::csr::CsrOp;
use mimic_cpu::riscv::insn::{At, Instruction};
use mimic_cpu::riscv::sem::{Amo, Bin, Cbo, Fmt, Fp1, Fp2, Sem, Un};

/// Rows of [`Names`] are names, formats and patterns; their bodies are never performed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Names {}

/// A body ended early.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop;

impl Sem for Names {
    type V = ();
    type Stop = Stop;
    type Handler = ();

    fn handler<I: Instruction<Self>>() {}

    fn imm(&mut self, _: i64) {}
    fn x(&mut self, _: u8) {}
    fn set_x(&mut self, _: u8, (): ()) {}
    fn pc(&mut self, _: At, _: i64) {}
    fn bin(&mut self, _: Bin, (): (), (): ()) {}
    fn un(&mut self, _: Un, (): ()) {}
    fn select(&mut self, (): (), (): (), (): ()) {}
    fn jump(&mut self, (): ()) {}
    fn jump_by(&mut self, _: At, _: i64) {}
    fn branch(&mut self, (): (), _: At, _: i64) {}
    fn load(&mut self, (): (), _: Width) -> Result<(), Stop> {
        Ok(())
    }
    fn store(&mut self, (): (), _: Width, (): ()) -> Result<(), Stop> {
        Ok(())
    }
    fn load_reserved(&mut self, (): (), _: Width) -> Result<(), Stop> {
        Ok(())
    }
    fn store_conditional(&mut self, (): (), _: Width, (): ()) -> Result<(), Stop> {
        Ok(())
    }
    fn amo(&mut self, _: Amo, (): (), _: Width, (): ()) -> Result<(), Stop> {
        Ok(())
    }
    fn cbo(&mut self, _: Cbo, (): ()) -> Result<(), Stop> {
        Ok(())
    }
    fn fence(&mut self, _: u8, _: u8) {}
    fn fence_i(&mut self) {}
    fn illegal(&mut self) -> Stop {
        Stop
    }
    fn need_fp(&mut self) -> Result<(), Stop> {
        Ok(())
    }
    fn rounding(&mut self, _: u8) -> Result<(), Stop> {
        Ok(())
    }
    fn f(&mut self, _: u8) {}
    fn set_f(&mut self, _: u8, (): ()) {}
    fn fp2(&mut self, _: Fp2, _: Fmt, (): (), (): ()) {}
    fn fp1(&mut self, _: Fp1, _: Fmt, (): ()) {}
    fn fma(&mut self, _: Fmt, (): (), (): (), (): ()) {}
    fn csr(&mut self, _: CsrOp, _: u16, _: Option<()>) -> Result<(), Stop> {
        Ok(())
    }
    fn ecall(&mut self) -> Stop {
        Stop
    }
    fn ebreak(&mut self, _: At) -> Stop {
        Stop
    }
    fn mret(&mut self) -> Result<(), Stop> {
        Ok(())
    }
    fn sret(&mut self) -> Result<(), Stop> {
        Ok(())
    }
    fn wfi(&mut self) -> Result<(), Stop> {
        Ok(())
    }
    fn wrs(&mut self, _: bool) -> Result<(), Stop> {
        Ok(())
    }
    fn sfence_vma(&mut self, _: Option<()>, _: Option<()>) -> Result<(), Stop> {
        Ok(())
    }
    fn sfence_order(&mut self) -> Result<(), Stop> {
        Ok(())
    }
}
