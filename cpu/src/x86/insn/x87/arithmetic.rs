//! Arithmetic, comparisons, transcendental functions (SDM vol. 1, 5.2.2 to 5.2.4).

use iced_x86::Mnemonic as M;

use super::*;
use crate::softfloat::Quietness::{Quiet, Signalling};
use crate::softfloat::extended::{F80, Quotient};
use crate::softfloat::{F32, F64};
use crate::x86::flags::Lazy;
use crate::x86::x87::Arith;

/// All forms of FADD and its like.
macro_rules! arithmetic {
    ($ins:ident, $arith:ident) => {
        match memory_bytes($ins) {
            4 => load!(
                $ins,
                u32,
                |x87, v| x87.usual_arith_memory::<F32>(Arith::$arith, v.into()),
                |x87, v| x87.arith_m32(Arith::$arith, v)
            ),
            8 => load!(
                $ins,
                u64,
                |x87, v| x87.usual_arith_memory::<F64>(Arith::$arith, v),
                |x87, v| x87.arith_m64(Arith::$arith, v)
            ),
            _ => registers!(
                |x87, op| x87.usual_arith(Arith::$arith, op.r1, op.r2, false),
                |x87, op| x87.arith(Arith::$arith, op.r1, op.r2, false)
            ),
        }
    };
    (pop $arith:ident) => {
        registers!(|x87, op| x87.usual_arith(Arith::$arith, op.r1, op.r2, true), |x87, op| x87
            .arith(Arith::$arith, op.r1, op.r2, true))
    };
    (int $ins:ident, $arith:ident) => {
        match memory_bytes($ins) {
            2 => {
                load!($ins, u16, |x87, v| x87.usual_arith_int(Arith::$arith, v as i16), |x87, v| {
                    x87.arith_int(Arith::$arith, v as i16)
                })
            }
            _ => {
                load!($ins, u32, |x87, v| x87.usual_arith_int(Arith::$arith, v as i32), |x87, v| {
                    x87.arith_int(Arith::$arith, v as i32)
                })
            }
        }
    };
}
/// FCOMI and its like.
macro_rules! compare_flags {
    ($quiet:expr, $pop:literal) => {
        usual_handler!(
            |core, op| {
                usual_begin(core)?;
                let flags = core.cpu.x87.usual_fcomi(op.r2, $pop)?;
                note(core, op);
                core.flags = Lazy::from_bits(flags.into());
                Some(())
            },
            |core, op| {
                begin(core)?;
                note(core, op);
                let flags = core.cpu.x87.fcomi(op.r2, $quiet, $pop);
                core.flags = Lazy::from_bits(flags.into());
                Ok(())
            }
        )
    };
}
/// FCOM and FCOMP.
macro_rules! compare {
    ($ins:ident, $pop:literal) => {
        match memory_bytes($ins) {
            4 => load!(u32, |x87, v| x87.fcom_m32(v, $pop)),
            8 => load!(u64, |x87, v| x87.fcom_m64(v, $pop)),
            _ => registers!(|x87, op| x87.usual_fcom(last(op), $pop as u8), |x87, op| x87.fcom(
                last(op),
                Signalling,
                $pop as u8
            )),
        }
    };
}

pub(super) fn lookup(ins: &Ins) -> Option<Handler> {
    match ins.mnemonic() {
        M::Fadd => arithmetic!(ins, Add),
        M::Fmul => arithmetic!(ins, Mul),
        M::Fsub => arithmetic!(ins, Sub),
        M::Fsubr => arithmetic!(ins, Subr),
        M::Fdiv => arithmetic!(ins, Div),
        M::Fdivr => arithmetic!(ins, Divr),
        M::Faddp => arithmetic!(pop Add),
        M::Fmulp => arithmetic!(pop Mul),
        M::Fsubp => arithmetic!(pop Sub),
        M::Fsubrp => arithmetic!(pop Subr),
        M::Fdivp => arithmetic!(pop Div),
        M::Fdivrp => arithmetic!(pop Divr),
        M::Fiadd => arithmetic!(int ins, Add),
        M::Fimul => arithmetic!(int ins, Mul),
        M::Fisub => arithmetic!(int ins, Sub),
        M::Fisubr => arithmetic!(int ins, Subr),
        M::Fidiv => arithmetic!(int ins, Div),
        M::Fidivr => arithmetic!(int ins, Divr),
        M::Fcom => compare!(ins, false),
        M::Fcomp => compare!(ins, true),
        M::Fcompp => registers!(|x87, _| x87.usual_fcom(1, 2), |x87, _| x87.fcom(1, Signalling, 2)),
        M::Fucom => {
            registers!(|x87, op| x87.usual_fcom(last(op), 0), |x87, op| x87.fcom(
                last(op),
                Quiet,
                0
            ))
        }
        M::Fucomp => {
            registers!(|x87, op| x87.usual_fcom(last(op), 1), |x87, op| x87.fcom(
                last(op),
                Quiet,
                1
            ))
        }
        M::Fucompp => registers!(|x87, _| x87.usual_fcom(1, 2), |x87, _| x87.fcom(1, Quiet, 2)),
        M::Ficom if memory_bytes(ins) == 2 => load!(u16, |x87, v| x87.ficom(v as i16, false)),
        M::Ficom => load!(u32, |x87, v| x87.ficom(v as i32, false)),
        M::Ficomp if memory_bytes(ins) == 2 => load!(u16, |x87, v| x87.ficom(v as i16, true)),
        M::Ficomp => load!(u32, |x87, v| x87.ficom(v as i32, true)),
        M::Fcomi => compare_flags!(Signalling, false),
        M::Fcomip => compare_flags!(Signalling, true),
        M::Fucomi => compare_flags!(Quiet, false),
        M::Fucomip => compare_flags!(Quiet, true),
        M::Fabs => registers!(|x87, _| x87.usual_sign(F80::abs), |x87, _| x87.fabs()),
        M::Fchs => registers!(|x87, _| x87.usual_sign(F80::negate), |x87, _| x87.fchs()),
        M::Fsqrt => registers!(|x87, _| x87.usual_sqrt(), |x87, _| x87.fsqrt()),
        M::Frndint => registers!(|x87, _| x87.frndint()),
        M::Fscale => registers!(|x87, _| x87.fscale()),
        M::Fxtract => registers!(|x87, _| x87.fxtract()),
        M::Fprem => registers!(|x87, _| x87.fprem(Quotient::Truncated)),
        M::Fprem1 => registers!(|x87, _| x87.fprem(Quotient::Nearest)),
        M::Ftst => registers!(|x87, _| x87.ftst()),
        M::Fxam => registers!(|x87, _| x87.fxam()),
        M::F2xm1 => registers!(|x87, _| x87.f2xm1()),
        M::Fyl2x => registers!(|x87, _| x87.fyl2x()),
        M::Fyl2xp1 => registers!(|x87, _| x87.fyl2xp1()),
        M::Fpatan => registers!(|x87, _| x87.fpatan()),
        M::Fptan => registers!(|x87, _| x87.fptan()),
        M::Fsin => registers!(|x87, _| x87.fsin()),
        M::Fcos => registers!(|x87, _| x87.fcos()),
        M::Fsincos => registers!(|x87, _| x87.fsincos()),
        _ => None,
    }
}
