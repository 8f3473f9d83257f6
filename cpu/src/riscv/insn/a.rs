//! A, atomic instructions (unprivileged, chapter 14). The `aq` and `rl` bits ask for nothing more:
//! every atomic is sequentially consistent. Those that store end a block: what a store causes is looked at before the next
//! instruction.

use super::table;
use crate::bus::Width::{self, Double, Word};
use crate::riscv::sem::{Amo, Sem};

#[inline(always)]
fn amo<S: Sem>(s: &mut S, i: super::R, op: Amo, width: Width) -> Result<(), S::Stop> {
    let (addr, v) = (s.x(i.rs1()), s.x(i.rs2()));
    let old = s.amo(op, addr, width, v)?;
    s.set_x(i.rd(), old);
    Ok(())
}

#[inline(always)]
fn lr<S: Sem>(s: &mut S, i: super::R, width: Width) -> Result<(), S::Stop> {
    let addr = s.x(i.rs1());
    let v = s.load_reserved(addr, width)?;
    s.set_x(i.rd(), v);
    Ok(())
}

#[inline(always)]
fn sc<S: Sem>(s: &mut S, i: super::R, width: Width) -> Result<(), S::Stop> {
    let (addr, v) = (s.x(i.rs1()), s.x(i.rs2()));
    let failed = s.store_conditional(addr, width, v)?;
    s.set_x(i.rd(), failed);
    Ok(())
}

table! {
    /// A.
    rows, s, i;
    lr_w      R      ["00010 .. 00000 ..... 010 ..... 0101111"] lr(s, i, Word)?;
    sc_w      R ends ["00011 .. ..... ..... 010 ..... 0101111"] sc(s, i, Word)?;
    amoswap_w R ends ["00001 .. ..... ..... 010 ..... 0101111"] amo(s, i, Amo::Swap, Word)?;
    amoadd_w  R ends ["00000 .. ..... ..... 010 ..... 0101111"] amo(s, i, Amo::Add, Word)?;
    amoxor_w  R ends ["00100 .. ..... ..... 010 ..... 0101111"] amo(s, i, Amo::Xor, Word)?;
    amoand_w  R ends ["01100 .. ..... ..... 010 ..... 0101111"] amo(s, i, Amo::And, Word)?;
    amoor_w   R ends ["01000 .. ..... ..... 010 ..... 0101111"] amo(s, i, Amo::Or, Word)?;
    amomin_w  R ends ["10000 .. ..... ..... 010 ..... 0101111"] amo(s, i, Amo::Min, Word)?;
    amomax_w  R ends ["10100 .. ..... ..... 010 ..... 0101111"] amo(s, i, Amo::Max, Word)?;
    amominu_w R ends ["11000 .. ..... ..... 010 ..... 0101111"] amo(s, i, Amo::Minu, Word)?;
    amomaxu_w R ends ["11100 .. ..... ..... 010 ..... 0101111"] amo(s, i, Amo::Maxu, Word)?;
    lr_d      R      ["00010 .. 00000 ..... 011 ..... 0101111"] lr(s, i, Double)?;
    sc_d      R ends ["00011 .. ..... ..... 011 ..... 0101111"] sc(s, i, Double)?;
    amoswap_d R ends ["00001 .. ..... ..... 011 ..... 0101111"] amo(s, i, Amo::Swap, Double)?;
    amoadd_d  R ends ["00000 .. ..... ..... 011 ..... 0101111"] amo(s, i, Amo::Add, Double)?;
    amoxor_d  R ends ["00100 .. ..... ..... 011 ..... 0101111"] amo(s, i, Amo::Xor, Double)?;
    amoand_d  R ends ["01100 .. ..... ..... 011 ..... 0101111"] amo(s, i, Amo::And, Double)?;
    amoor_d   R ends ["01000 .. ..... ..... 011 ..... 0101111"] amo(s, i, Amo::Or, Double)?;
    amomin_d  R ends ["10000 .. ..... ..... 011 ..... 0101111"] amo(s, i, Amo::Min, Double)?;
    amomax_d  R ends ["10100 .. ..... ..... 011 ..... 0101111"] amo(s, i, Amo::Max, Double)?;
    amominu_d R ends ["11000 .. ..... ..... 011 ..... 0101111"] amo(s, i, Amo::Minu, Double)?;
    amomaxu_d R ends ["11100 .. ..... ..... 011 ..... 0101111"] amo(s, i, Amo::Maxu, Double)?;
}
