//! Loads, stores and moves (SDM vol. 1, 5.2.1).

use iced_x86::Mnemonic as M;

use super::*;
use crate::softfloat::extended::F80;
use crate::softfloat::{F32, F64};
use crate::x86::insn::branch::condition;
use crate::x86::x87::Constant;

/// The same for ten bytes.
macro_rules! load_ten {
    ($f:expr) => {
        handler!(|core, op| {
            begin(core)?;
            let lin = ten_bytes(core, op, false)?;
            let mut value = [0; 10];
            core.load_bytes(lin, &mut value)?;
            note(core, op);
            note_memory(core, op);
            let f: fn(&mut State, [u8; 10]) = $f;
            f(&mut core.cpu.x87, value);
            Ok(())
        })
    };
}
macro_rules! store_ten {
    ($f:expr) => {
        handler!(|core, op| {
            begin(core)?;
            let lin = ten_bytes(core, op, true)?;
            let f: fn(&State) -> Store<[u8; 10]> = $f;
            let result = f(&core.cpu.x87);
            if let Some(value) = result.value {
                core.store_bytes(lin, &value)?;
            }
            note(core, op);
            note_memory(core, op);
            core.cpu.x87.complete(&result, true);
            Ok(())
        })
    };
}
/// FCMOVcc: a condition as Jcc's opcode has it.
macro_rules! conditional {
    ($c:literal) => {
        handler!(|core, op| {
            begin(core)?;
            note(core, op);
            let holds = condition::<$c>(core.flags);
            core.cpu.x87.fcmov(op.r2, holds);
            Ok(())
        })
    };
}

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    let bytes = memory_bytes(ins);
    match (ins.mnemonic(), bytes) {
        (M::Fld, 0) => registers!(|x87, op| x87.usual_fld(last(op)), |x87, op| x87.fld(last(op))),
        (M::Fld, 4) => {
            load!(ins, u32, |x87, v| x87.usual_fld_memory::<F32>(v.into()), State::fld_m32)
        }
        (M::Fld, 8) => load!(ins, u64, State::usual_fld_memory::<F64>, State::fld_m64),
        (M::Fld, _) => load_ten!(State::fld_m80),
        (M::Fild, 2) => {
            load!(ins, u16, |x87, v| x87.usual_fild(v as i16), |x87, v| x87.fild(v as i16))
        }
        (M::Fild, 4) => {
            load!(ins, u32, |x87, v| x87.usual_fild(v as i32), |x87, v| x87.fild(v as i32))
        }
        (M::Fild, _) => {
            load!(ins, u64, |x87, v| x87.usual_fild(v as i64), |x87, v| x87.fild(v as i64))
        }
        (M::Fbld, _) => load_ten!(State::fbld),
        (M::Fst, 4) => store!(ins, u32, false, State::usual_fst_memory::<F32>, State::fst_m32),
        (M::Fst, 8) => store!(ins, u64, false, State::usual_fst_memory::<F64>, State::fst_m64),
        (M::Fst, _) => {
            registers!(|x87, op| x87.usual_fst(last(op), false), |x87, op| x87.fst(last(op), false))
        }
        (M::Fstp, 0) => registers!(|x87, op| x87.usual_fst(last_of_pair(op), true), |x87, op| x87
            .fst(last_of_pair(op), true)),
        (M::Fstp, 4) => store!(ins, u32, true, State::usual_fst_memory::<F32>, State::fst_m32),
        (M::Fstp, 8) => store!(ins, u64, true, State::usual_fst_memory::<F64>, State::fst_m64),
        (M::Fstp, _) => store_ten!(State::fst_m80),
        (M::Fstpnce, _) => registers!(|x87, op| x87.fstpnce(last_of_pair(op))),
        (M::Fist, 2) => store!(ins, u16, false, State::usual_fist::<i16>, State::fist::<i16>),
        (M::Fist, _) => store!(ins, u32, false, State::usual_fist::<i32>, State::fist::<i32>),
        (M::Fistp, 2) => store!(ins, u16, true, State::usual_fist::<i16>, State::fist::<i16>),
        (M::Fistp, 4) => store!(ins, u32, true, State::usual_fist::<i32>, State::fist::<i32>),
        (M::Fistp, _) => store!(ins, u64, true, State::usual_fist::<i64>, State::fist::<i64>),
        (M::Fisttp, 2) => store!(u16, true, State::fisttp::<i16>),
        (M::Fisttp, 4) => store!(u32, true, State::fisttp::<i32>),
        (M::Fisttp, _) => store!(u64, true, State::fisttp::<i64>),
        (M::Fbstp, _) => store_ten!(State::fbst),
        (M::Fxch, _) => {
            registers!(|x87, op| x87.usual_fxch(last(op)), |x87, op| x87.fxch(last(op)))
        }
        (M::Fld1, _) => registers!(|x87, _| x87.usual_fld_constant(F80::ONE), |x87, _| x87
            .fld_constant(Constant::One)),
        (M::Fldl2t, _) => registers!(|x87, _| x87.fld_constant(Constant::Log2Of10)),
        (M::Fldl2e, _) => registers!(|x87, _| x87.fld_constant(Constant::Log2OfE)),
        (M::Fldpi, _) => registers!(|x87, _| x87.fld_constant(Constant::Pi)),
        (M::Fldlg2, _) => registers!(|x87, _| x87.fld_constant(Constant::Log10Of2)),
        (M::Fldln2, _) => registers!(|x87, _| x87.fld_constant(Constant::LnOf2)),
        (M::Fldz, _) => registers!(|x87, _| x87.usual_fld_constant(F80::ZERO), |x87, _| x87
            .fld_constant(Constant::Zero)),
        (M::Fcmovb, _) => conditional!(2),
        (M::Fcmovnb, _) => conditional!(3),
        (M::Fcmove, _) => conditional!(4),
        (M::Fcmovne, _) => conditional!(5),
        (M::Fcmovbe, _) => conditional!(6),
        (M::Fcmovnbe, _) => conditional!(7),
        (M::Fcmovu, _) => conditional!(10),
        (M::Fcmovnu, _) => conditional!(11),
        _ => None,
    }
}

/// The register of instructions with ST(i), or with ST(i) and ST(0).
#[inline(always)]
fn last_of_pair(op: &Op) -> u8 {
    op.r1
}

/// The linear address of an operand of ten bytes, which counts as aligned at eight (SDM vol. 3, table 7-7).
fn ten_bytes(core: &mut Core, op: &Op, write: bool) -> Result<u64, Stop> {
    let lin = Segmented::lin(core, op, 10, write)?;
    core.check_alignment(lin, 8)?;
    Ok(lin)
}
