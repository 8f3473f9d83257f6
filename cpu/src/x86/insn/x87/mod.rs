//! x87 (SDM vol. 1, 5.2): where operands of [`crate::x86::x87`]'s operations come from and go to, #NM and #MF.

use iced_x86::Mnemonic as M;

use super::CodeCache;
use super::branch::condition;
use super::{Addr, Flat, Int, Segmented, effective, step, unit, usually};
use crate::softfloat::Quietness::{Quiet, Signalling};
use crate::softfloat::extended::{F80, Quotient};
use crate::softfloat::{F32, F64};
use crate::x86::core::{Core, ZERO};
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::fault::{Fault, Stop, vector};
use crate::x86::flags::Lazy;
use crate::x86::state::{cr0, gpr, sreg};
use crate::x86::x87::{Arith, Constant, Format, State, Store};

/// A handler from what it does.
macro_rules! handler {
    ($f:expr) => {
        Some(|core: &mut Core, ops: &[Op], code: &CodeCache| step(core, ops, code, true, $f))
    };
}
/// A handler from what it does, and from a short way to that: [`usually`].
macro_rules! usual_handler {
    ($usual:expr, $f:expr) => {{
        #[cold]
        fn complete(core: &mut Core, ops: &[Op], code: &CodeCache) -> usize {
            step(core, ops, code, true, $f)
        }
        Some(|core: &mut Core, ops: &[Op], code: &CodeCache| {
            usually(core, ops, code, $usual, complete)
        })
    }};
}
/// A handler of an operation on registers.
macro_rules! registers {
    ($f:expr) => {
        handler!(|core, op| on_registers(core, op, $f))
    };
    ($usual:expr, $f:expr) => {
        usual_handler!(
            |core, op| {
                usual_begin(core)?;
                let f: fn(&mut State, &Op) -> bool = $usual;
                f(&mut core.cpu.x87, op).then(|| note(core, op))
            },
            |core, op| on_registers(core, op, $f)
        )
    };
}
/// A handler of an operation that reads an operand of a type.
macro_rules! load {
    ($t:ty, $f:expr) => {
        handler!(|core, op| on_loaded::<$t>(core, op, $f))
    };
    ($ins:ident, $t:ty, $usual:expr, $f:expr) => {
        if $ins.flat { load!(usual Flat, $t, $usual, $f) } else { load!(usual Segmented, $t, $usual, $f) }
    };
    (usual $addr:ident, $t:ty, $usual:expr, $f:expr) => {
        usual_handler!(
            |core, op| {
                usual_begin(core)?;
                let lin = $addr::usual_lin(core, op, <$t as Int>::BYTES, false)?;
                let value: $t = core.tlb.load_any(lin)?;
                let f: fn(&mut State, $t) -> bool = $usual;
                f(&mut core.cpu.x87, value).then(|| {
                    note(core, op);
                    note_memory(core, op);
                })
            },
            |core, op| on_loaded::<$t>(core, op, $f)
        )
    };
}
/// A handler of an operation that writes an operand of a type, and pops or not.
macro_rules! store {
    ($t:ty, $pop:literal, $f:expr) => {
        handler!(store!(complete $t, $pop, $f))
    };
    ($ins:ident, $t:ty, $pop:literal, $usual:expr, $f:expr) => {
        if $ins.flat {
            store!(usual Flat, $t, $pop, $usual, $f)
        } else {
            store!(usual Segmented, $t, $pop, $usual, $f)
        }
    };
    (complete $t:ty, $pop:literal, $f:expr) => {
        |core, op| {
            begin(core)?;
            let lin = Segmented::lin(core, op, <$t as Int>::BYTES, true)?;
            let f: fn(&State) -> Store<_> = $f;
            let result = f(&core.cpu.x87);
            if let Some(value) = result.value {
                core.store::<$t>(lin, value as $t)?;
            }
            note(core, op);
            note_memory(core, op);
            core.cpu.x87.complete(&result, $pop);
            Ok(())
        }
    };
    (usual $addr:ident, $t:ty, $pop:literal, $usual:expr, $f:expr) => {
        usual_handler!(
            |core, op| {
                usual_begin(core)?;
                let lin = $addr::usual_lin(core, op, <$t as Int>::BYTES, true)?;
                let f: fn(&State) -> Option<Store<_>> = $usual;
                let result = f(&core.cpu.x87)?;
                if !core.tlb.store_any(lin, result.value? as $t) {
                    return None;
                }
                note(core, op);
                note_memory(core, op);
                core.cpu.x87.complete(&result, $pop);
                Some(())
            },
            store!(complete $t, $pop, $f)
        )
    };
}
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
    transfers(ins).or_else(|| arithmetic(ins)).or_else(|| control(ins))
}

fn transfers(ins: &Ins) -> Option<Handler> {
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

fn arithmetic(ins: &Ins) -> Option<Handler> {
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

fn control(ins: &Ins) -> Option<Handler> {
    match ins.mnemonic() {
        M::Ffree => registers!(|x87, op| x87.ffree(last(op))),
        M::Ffreep => registers!(|x87, op| x87.ffreep(last(op))),
        M::Fincstp => registers!(|x87, _| x87.fincstp()),
        M::Fdecstp => registers!(|x87, _| x87.fdecstp()),
        M::Fnop => registers!(|_, _| ()),
        M::Wait => handler!(|core, _| wait(core)),
        M::Fninit => handler!(|core, _| {
            core.need(unit::X87)?;
            core.cpu.x87.fninit();
            Ok(())
        }),
        M::Fnclex => handler!(|core, _| {
            core.need(unit::X87)?;
            core.cpu.x87.fnclex();
            Ok(())
        }),
        // What the 8087 and the 287 did with interrupts and protection is done no more: nothing.
        M::Fneni | M::Fndisi | M::Fnsetpm => handler!(|core, _| core.need(unit::X87)),
        M::Fldcw => handler!(|core, op| {
            begin(core)?;
            let lin = Segmented::lin(core, op, 2, false)?;
            let control = core.load(lin)?;
            core.cpu.x87.fldcw(control);
            Ok(())
        }),
        M::Fnstcw => handler!(|core, op| {
            core.need(unit::X87)?;
            let lin = Segmented::lin(core, op, 2, true)?;
            core.store(lin, core.cpu.x87.control_word())
        }),
        M::Fnstsw if ins.is_reg(0) => handler!(|core, _| {
            core.need(unit::X87)?;
            u16::put(core, gpr::RAX, core.cpu.x87.status_word());
            Ok(())
        }),
        M::Fnstsw => handler!(|core, op| {
            core.need(unit::X87)?;
            let lin = Segmented::lin(core, op, 2, true)?;
            core.store(lin, core.cpu.x87.status_word())
        }),
        M::Fnstenv => handler!(|core, op| {
            core.need(unit::X87)?;
            let format = format(core, op.size == 28);
            let bytes = core.cpu.x87.environment(format);
            write_image(core, op, &bytes[..format.environment_len()])?;
            core.cpu.x87.mask_all();
            Ok(())
        }),
        M::Fldenv => handler!(|core, op| {
            begin(core)?;
            let format = format(core, op.size == 28);
            let bytes = read_image(core, op, format.environment_len())?;
            core.cpu.x87.fldenv(format, &bytes);
            Ok(())
        }),
        M::Fnsave => handler!(|core, op| {
            core.need(unit::X87)?;
            let format = format(core, op.size == 108);
            let bytes = core.cpu.x87.save_image(format);
            write_image(core, op, &bytes[..format.image_len()])?;
            core.cpu.x87.fninit();
            Ok(())
        }),
        M::Frstor => handler!(|core, op| {
            begin(core)?;
            let format = format(core, op.size == 108);
            let bytes = read_image(core, op, format.image_len())?;
            core.cpu.x87.frstor(format, &bytes);
            Ok(())
        }),
        _ => None,
    }
}

/// Bytes of the memory operand; 0 without one.
fn memory_bytes(ins: &Ins) -> usize {
    if ins.is_mem(0) { ins.bytes(0) } else { 0 }
}

/// The register of instructions with ST(i), or with ST(0) and ST(i).
#[inline(always)]
fn last(op: &Op) -> u8 {
    if op.r2 == ZERO { op.r1 } else { op.r2 }
}

/// The register of instructions with ST(i), or with ST(i) and ST(0).
#[inline(always)]
fn last_of_pair(op: &Op) -> u8 {
    op.r1
}

/// Performs an operation on registers.
#[inline(always)]
fn on_registers(core: &mut Core, op: &Op, f: fn(&mut State, &Op)) -> Result<(), Stop> {
    begin(core)?;
    note(core, op);
    f(&mut core.cpu.x87, op);
    Ok(())
}

/// Performs an operation that reads an operand of a type.
#[inline(always)]
fn on_loaded<T: Int>(core: &mut Core, op: &Op, f: fn(&mut State, T)) -> Result<(), Stop> {
    begin(core)?;
    let lin = Segmented::lin(core, op, T::BYTES, false)?;
    let value = core.load(lin)?;
    note(core, op);
    note_memory(core, op);
    f(&mut core.cpu.x87, value);
    Ok(())
}

/// What every waiting instruction does first.
#[inline(always)]
fn begin(core: &mut Core) -> Result<(), Stop> {
    core.need(unit::X87)?;
    core.no_pending()
}

/// [`begin`] where nothing stands in the way.
#[inline(always)]
fn usual_begin(core: &Core) -> Option<()> {
    (core.units & unit::X87 != 0 && !core.cpu.x87.pending()).then_some(())
}

/// WAIT: #NM only where CR0.MP says so.
fn wait(core: &mut Core) -> Result<(), Stop> {
    const OTHERS: u64 = cr0::MP | cr0::TS;
    if core.cpu.cr0 & OTHERS == OTHERS {
        return Err(core.raise(Fault::new(vector::NM)));
    }
    core.no_pending()
}

/// Notes where the instruction is.
#[inline(always)]
fn note(core: &mut Core, op: &Op) {
    let (cs, ip) = (core.segment(sreg::CS).selector, core.rip(op));
    let pointers = &mut core.cpu.x87.pointers;
    pointers.opcode = op.imm as u16;
    pointers.cs = cs;
    pointers.ip = ip;
}

/// Notes what memory it named.
#[inline(always)]
fn note_memory(core: &mut Core, op: &Op) {
    let (ds, dp) = (core.segment(op.seg).selector, effective(core, op));
    let pointers = &mut core.cpu.x87.pointers;
    pointers.ds = ds;
    pointers.dp = dp;
}

/// The linear address of an operand of ten bytes, which counts as aligned at eight (SDM vol. 3, table 7-7).
fn ten_bytes(core: &mut Core, op: &Op, write: bool) -> Result<u64, Stop> {
    let lin = Segmented::lin(core, op, 10, write)?;
    core.check_alignment(lin, 8)?;
    Ok(lin)
}

/// The layout of an environment.
fn format(core: &Core, wide: bool) -> Format {
    match (core.paragraphs(), wide) {
        (true, false) => Format::Real16,
        (true, true) => Format::Real32,
        (false, false) => Format::Protected16,
        (false, true) => Format::Protected32,
    }
}

fn write_image(core: &mut Core, op: &Op, bytes: &[u8]) -> Result<(), Stop> {
    let lin = Segmented::lin(core, op, bytes.len() as u64, true)?;
    core.store_bytes(lin, bytes)
}

/// The first `len` bytes of an image of at most `N`.
fn read_image<const N: usize>(core: &mut Core, op: &Op, len: usize) -> Result<[u8; N], Stop> {
    let lin = Segmented::lin(core, op, len as u64, false)?;
    let mut bytes = [0; N];
    core.load_bytes(lin, &mut bytes[..len])?;
    Ok(bytes)
}
