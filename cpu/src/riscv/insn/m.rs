//! M, integer multiplication and division (unprivileged, chapter 13).

use super::i::{reg, set_word};
use super::table;
use crate::riscv::sem::{Bin, SemExt};

table! {
    /// M.
    rows, s, i;
    mul    R ["0000001 ..... ..... 000 ..... 0110011"] reg(s, i, Bin::Mul);
    mulh   R ["0000001 ..... ..... 001 ..... 0110011"] reg(s, i, Bin::Mulh);
    mulhsu R ["0000001 ..... ..... 010 ..... 0110011"] reg(s, i, Bin::Mulhsu);
    mulhu  R ["0000001 ..... ..... 011 ..... 0110011"] reg(s, i, Bin::Mulhu);
    div    R ["0000001 ..... ..... 100 ..... 0110011"] reg(s, i, Bin::Div);
    divu   R ["0000001 ..... ..... 101 ..... 0110011"] reg(s, i, Bin::Divu);
    rem    R ["0000001 ..... ..... 110 ..... 0110011"] reg(s, i, Bin::Rem);
    remu   R ["0000001 ..... ..... 111 ..... 0110011"] reg(s, i, Bin::Remu);
    mulw   R ["0000001 ..... ..... 000 ..... 0111011"] {
        let (a, b) = (s.x(i.rs1()), s.x(i.rs2()));
        let v = s.mul(a, b);
        set_word(s, i.rd(), v);
    };
    divw   R ["0000001 ..... ..... 100 ..... 0111011"] reg(s, i, Bin::Divw);
    divuw  R ["0000001 ..... ..... 101 ..... 0111011"] reg(s, i, Bin::Divuw);
    remw   R ["0000001 ..... ..... 110 ..... 0111011"] reg(s, i, Bin::Remw);
    remuw  R ["0000001 ..... ..... 111 ..... 0111011"] reg(s, i, Bin::Remuw);
}
