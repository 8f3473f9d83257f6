//! System instructions: Zicsr (unprivileged, chapter 6), environment calls, trap returns, WFI, fences of
//! address translation (privileged, 3.3, 10.2, chapter 14), Zawrs (unprivileged, chapter 15).

use super::{SINK, table};
use crate::riscv::csr::CsrOp;
use crate::riscv::sem::Sem;

/// A CSR instruction with its operand in a register. CSRRS and CSRRC with x0 only read.
#[inline(always)]
fn csr_reg<S: Sem>(s: &mut S, i: super::Csr, op: CsrOp) -> Result<(), S::Stop> {
    let operand = (op == CsrOp::Write || i.rs1() != 0).then(|| s.x(i.rs1()));
    let old = s.csr(op, i.csr(), operand)?;
    s.set_x(i.rd(), old);
    Ok(())
}

/// A CSR instruction with a 5-bit immediate operand.
#[inline(always)]
fn csr_imm<S: Sem>(s: &mut S, i: super::Csr, op: CsrOp) -> Result<(), S::Stop> {
    let operand = (op == CsrOp::Write || i.rs1() != 0).then(|| s.imm(i64::from(i.rs1())));
    let old = s.csr(op, i.csr(), operand)?;
    s.set_x(i.rd(), old);
    Ok(())
}

#[inline(always)]
fn sfence<S: Sem>(s: &mut S, i: super::R) -> Result<(), S::Stop> {
    let va = (i.rs1() != 0).then(|| s.x(i.rs1()));
    let asid = (i.rs2() != 0).then(|| s.x(i.rs2()));
    debug_assert_eq!(i.rd(), SINK);
    s.sfence_vma(va, asid)
}

table! {
    /// System instructions.
    rows, s, i;
    csrrw  Csr ends ["............ ..... 001 ..... 1110011"] csr_reg(s, i, CsrOp::Write)?;
    csrrs  Csr ends ["............ ..... 010 ..... 1110011"] csr_reg(s, i, CsrOp::Set)?;
    csrrc  Csr ends ["............ ..... 011 ..... 1110011"] csr_reg(s, i, CsrOp::Clear)?;
    csrrwi Csr ends ["............ ..... 101 ..... 1110011"] csr_imm(s, i, CsrOp::Write)?;
    csrrsi Csr ends ["............ ..... 110 ..... 1110011"] csr_imm(s, i, CsrOp::Set)?;
    csrrci Csr ends ["............ ..... 111 ..... 1110011"] csr_imm(s, i, CsrOp::Clear)?;

    ecall  R ends ["0000000 00000 00000 000 00000 1110011"] Err(s.ecall())?;
    ebreak R ends ["0000000 00001 00000 000 00000 1110011"] Err(s.ebreak(i.at()))?;
    mret   R ends ["0011000 00010 00000 000 00000 1110011"] s.mret()?;
    sret   R ends ["0001000 00010 00000 000 00000 1110011"] s.sret()?;
    wfi    R ends ["0001000 00101 00000 000 00000 1110011"] s.wfi()?;
    wrs_nto R ends ["0000000 01101 00000 000 00000 1110011"] s.wrs(false)?;
    wrs_sto R ends ["0000000 11101 00000 000 00000 1110011"] s.wrs(true)?;

    sfence_vma      R ends ["0001001 ..... ..... 000 00000 1110011"] sfence(s, i)?;
    sinval_vma      R ends ["0001011 ..... ..... 000 00000 1110011"] sfence(s, i)?;
    sfence_w_inval  R ends ["0001100 00000 00000 000 00000 1110011"] s.sfence_order()?;
    sfence_inval_ir R ends ["0001100 00001 00000 000 00000 1110011"] s.sfence_order()?;
}
