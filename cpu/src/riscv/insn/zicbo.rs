//! Cache-block management (CMO extensions 1.0): Zicbom and Zicboz. Zicbop's prefetches are ORI with
//! x0 as destination and need no row.

use super::table;
use crate::riscv::sem::{Cbo, Sem};

#[inline(always)]
fn cbo<S: Sem>(s: &mut S, i: super::R, op: Cbo) -> Result<(), S::Stop> {
    let addr = s.x(i.rs1());
    s.cbo(op, addr)
}

table! {
    /// Zicbom and Zicboz.
    rows, s, i;
    cbo_inval R ["000000000000 ..... 010 00000 0001111"] cbo(s, i, Cbo::Inval)?;
    cbo_clean R ["000000000001 ..... 010 00000 0001111"] cbo(s, i, Cbo::Clean)?;
    cbo_flush R ["000000000010 ..... 010 00000 0001111"] cbo(s, i, Cbo::Flush)?;
    cbo_zero  R ["000000000100 ..... 010 00000 0001111"] cbo(s, i, Cbo::Zero)?;
}
