//! x87 against the host's: every operation from random states, all bits of registers, status, tag and control word, memory
//! and flags equal. `MIMIC_X86_CASES` says how many states each instruction form starts from.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

#[path = "x87/host.rs"]
#[macro_use]
mod host;
#[path = "x87/operands.rs"]
mod operands;
#[path = "x87/random.rs"]
mod random;

use host::{Machine, Native, Soft, soft};
use mimic_cpu::softfloat::Quietness::{Quiet, Signalling};
use mimic_cpu::softfloat::extended::Quotient;
use mimic_cpu::x86::x87::{Arith, Constant, Format, State, Store};
use operands::{Operand, machine};
use random::Random;

fn cases() -> usize {
    let asked = std::env::var("MIMIC_X86_CASES").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(if cfg!(debug_assertions) { 3_000 } else { 20_000 })
}

/// One form: its name, the operand in memory, both performers.
type Form = (&'static str, Operand, Native, Soft);

fn agree(forms: &[Form]) {
    let mut wrong = Vec::new();
    for &(name, operand, native, perform) in forms {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut failures = 0;
        for _ in 0..cases() {
            let start = machine(&mut random, operand);
            let mut is = start.clone();
            soft(&mut is, perform);
            let is = is.without_pointers();
            let attempt = || {
                let mut expected = start.clone();
                native(&mut expected);
                expected.without_pointers()
            };
            // A switch to another process and back loses the pointers' selectors, so what is wrong must be wrong twice.
            let first = attempt();
            let expected = if is == first { first } else { attempt() };
            if is != expected {
                failures += 1;
                if failures <= 3 {
                    let differences = is.differences(&expected);
                    wrong.push(format!("{name}: from {start}\n  ours has {differences}"));
                }
            }
        }
        if failures != 0 {
            wrong.push(format!("{name}: {failures} of {} wrong", cases()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    println!("{} forms, {} states each", forms.len(), cases());
}

/// A row of forms.
macro_rules! forms {
    ($($operand:ident $insn:literal => |$s:pat_param, $m:pat_param| $perform:expr;)+) => {
        &[$(($insn, Operand::$operand, native!($insn), |$s: &mut State, $m: &mut Machine| $perform)),+]
    };
}

/// The first bytes of memory as a value.
macro_rules! read {
    ($m:ident, $type:ty) => {
        <$type>::from_le_bytes(*$m.memory.first_chunk().unwrap())
    };
}

fn bytes<const N: usize>(m: &Machine) -> [u8; N] {
    *m.memory.first_chunk().unwrap()
}

/// Finishes a store as the core does.
fn write<T: Copy, const N: usize>(
    s: &mut State,
    m: &mut Machine,
    store: Store<T>,
    pop: bool,
    bytes: impl Fn(T) -> [u8; N],
) {
    if let Some(value) = store.value {
        m.memory[..N].copy_from_slice(&bytes(value));
    }
    s.complete(&store, pop);
}

#[test]
fn arithmetic_between_registers() {
    use Arith::*;
    agree(forms! {
        None "fadd st, st(1)" => |s, _| s.arith(Add, 0, 1, false);
        None "fadd st, st(0)" => |s, _| s.arith(Add, 0, 0, false);
        None "fadd st(3), st" => |s, _| s.arith(Add, 3, 0, false);
        None "faddp st(1), st" => |s, _| s.arith(Add, 1, 0, true);
        None "fmul st, st(1)" => |s, _| s.arith(Mul, 0, 1, false);
        None "fmul st(2), st" => |s, _| s.arith(Mul, 2, 0, false);
        None "fmulp st(1), st" => |s, _| s.arith(Mul, 1, 0, true);
        None "fsub st, st(1)" => |s, _| s.arith(Sub, 0, 1, false);
        None "fsub st(2), st" => |s, _| s.arith(Sub, 2, 0, false);
        None "fsubp st(1), st" => |s, _| s.arith(Sub, 1, 0, true);
        None "fsubr st, st(1)" => |s, _| s.arith(Subr, 0, 1, false);
        None "fsubr st(2), st" => |s, _| s.arith(Subr, 2, 0, false);
        None "fsubrp st(1), st" => |s, _| s.arith(Subr, 1, 0, true);
        None "fdiv st, st(1)" => |s, _| s.arith(Div, 0, 1, false);
        None "fdiv st(2), st" => |s, _| s.arith(Div, 2, 0, false);
        None "fdivp st(1), st" => |s, _| s.arith(Div, 1, 0, true);
        None "fdivr st, st(1)" => |s, _| s.arith(Divr, 0, 1, false);
        None "fdivr st(2), st" => |s, _| s.arith(Divr, 2, 0, false);
        None "fdivrp st(1), st" => |s, _| s.arith(Divr, 1, 0, true);
    });
}

#[test]
fn arithmetic_with_memory() {
    use Arith::*;
    agree(forms! {
        F32 "fadd dword ptr [{m}]" => |s, m| s.arith_m32(Add, read!(m, u32));
        F32 "fmul dword ptr [{m}]" => |s, m| s.arith_m32(Mul, read!(m, u32));
        F32 "fsub dword ptr [{m}]" => |s, m| s.arith_m32(Sub, read!(m, u32));
        F32 "fsubr dword ptr [{m}]" => |s, m| s.arith_m32(Subr, read!(m, u32));
        F32 "fdiv dword ptr [{m}]" => |s, m| s.arith_m32(Div, read!(m, u32));
        F32 "fdivr dword ptr [{m}]" => |s, m| s.arith_m32(Divr, read!(m, u32));
        F64 "fadd qword ptr [{m}]" => |s, m| s.arith_m64(Add, read!(m, u64));
        F64 "fmul qword ptr [{m}]" => |s, m| s.arith_m64(Mul, read!(m, u64));
        F64 "fsub qword ptr [{m}]" => |s, m| s.arith_m64(Sub, read!(m, u64));
        F64 "fsubr qword ptr [{m}]" => |s, m| s.arith_m64(Subr, read!(m, u64));
        F64 "fdiv qword ptr [{m}]" => |s, m| s.arith_m64(Div, read!(m, u64));
        F64 "fdivr qword ptr [{m}]" => |s, m| s.arith_m64(Divr, read!(m, u64));
        Int "fiadd word ptr [{m}]" => |s, m| s.arith_int(Add, read!(m, i16));
        Int "fimul word ptr [{m}]" => |s, m| s.arith_int(Mul, read!(m, i16));
        Int "fisub word ptr [{m}]" => |s, m| s.arith_int(Sub, read!(m, i16));
        Int "fisubr word ptr [{m}]" => |s, m| s.arith_int(Subr, read!(m, i16));
        Int "fidiv word ptr [{m}]" => |s, m| s.arith_int(Div, read!(m, i16));
        Int "fidivr word ptr [{m}]" => |s, m| s.arith_int(Divr, read!(m, i16));
        Int "fiadd dword ptr [{m}]" => |s, m| s.arith_int(Add, read!(m, i32));
        Int "fimul dword ptr [{m}]" => |s, m| s.arith_int(Mul, read!(m, i32));
        Int "fisub dword ptr [{m}]" => |s, m| s.arith_int(Sub, read!(m, i32));
        Int "fisubr dword ptr [{m}]" => |s, m| s.arith_int(Subr, read!(m, i32));
        Int "fidiv dword ptr [{m}]" => |s, m| s.arith_int(Div, read!(m, i32));
        Int "fidivr dword ptr [{m}]" => |s, m| s.arith_int(Divr, read!(m, i32));
    });
}

#[test]
fn arithmetic_on_the_top() {
    agree(forms! {
        None "fsqrt" => |s, _| s.fsqrt();
        None "fabs" => |s, _| s.fabs();
        None "fchs" => |s, _| s.fchs();
        None "frndint" => |s, _| s.frndint();
        None "fscale" => |s, _| s.fscale();
        None "fxtract" => |s, _| s.fxtract();
        None "fprem" => |s, _| s.fprem(Quotient::Truncated);
        None "fprem1" => |s, _| s.fprem(Quotient::Nearest);
    });
}

#[test]
fn comparisons() {
    agree(forms! {
        None "fcom st(1)" => |s, _| s.fcom(1, Signalling, 0);
        None "fcom st(0)" => |s, _| s.fcom(0, Signalling, 0);
        None "fcomp st(2)" => |s, _| s.fcom(2, Signalling, 1);
        None "fcompp" => |s, _| s.fcom(1, Signalling, 2);
        None "fucom st(1)" => |s, _| s.fcom(1, Quiet, 0);
        None "fucomp st(1)" => |s, _| s.fcom(1, Quiet, 1);
        None "fucompp" => |s, _| s.fcom(1, Quiet, 2);
        F32 "fcom dword ptr [{m}]" => |s, m| s.fcom_m32(read!(m, u32), false);
        F32 "fcomp dword ptr [{m}]" => |s, m| s.fcom_m32(read!(m, u32), true);
        F64 "fcom qword ptr [{m}]" => |s, m| s.fcom_m64(read!(m, u64), false);
        F64 "fcomp qword ptr [{m}]" => |s, m| s.fcom_m64(read!(m, u64), true);
        Int "ficom word ptr [{m}]" => |s, m| s.ficom(read!(m, i16), false);
        Int "ficomp word ptr [{m}]" => |s, m| s.ficom(read!(m, i16), true);
        Int "ficom dword ptr [{m}]" => |s, m| s.ficom(read!(m, i32), false);
        Int "ficomp dword ptr [{m}]" => |s, m| s.ficom(read!(m, i32), true);
        None "fcomi st, st(1)" => |s, m| m.flags = s.fcomi(1, Signalling, false).into();
        None "fcomip st, st(1)" => |s, m| m.flags = s.fcomi(1, Signalling, true).into();
        None "fucomi st, st(1)" => |s, m| m.flags = s.fcomi(1, Quiet, false).into();
        None "fucomip st, st(1)" => |s, m| m.flags = s.fcomi(1, Quiet, true).into();
        None "ftst" => |s, _| s.ftst();
        None "fxam" => |s, _| s.fxam();
    });
}

#[test]
fn loads() {
    agree(forms! {
        F32 "fld dword ptr [{m}]" => |s, m| s.fld_m32(read!(m, u32));
        F64 "fld qword ptr [{m}]" => |s, m| s.fld_m64(read!(m, u64));
        F80 "fld tbyte ptr [{m}]" => |s, m| s.fld_m80(bytes(m));
        None "fld st(0)" => |s, _| s.fld(0);
        None "fld st(1)" => |s, _| s.fld(1);
        None "fld st(7)" => |s, _| s.fld(7);
        Int "fild word ptr [{m}]" => |s, m| s.fild(read!(m, i16));
        Int "fild dword ptr [{m}]" => |s, m| s.fild(read!(m, i32));
        Int "fild qword ptr [{m}]" => |s, m| s.fild(read!(m, i64));
        Bcd "fbld tbyte ptr [{m}]" => |s, m| s.fbld(bytes(m));
        None "fld1" => |s, _| s.fld_constant(Constant::One);
        None "fldl2t" => |s, _| s.fld_constant(Constant::Log2Of10);
        None "fldl2e" => |s, _| s.fld_constant(Constant::Log2OfE);
        None "fldpi" => |s, _| s.fld_constant(Constant::Pi);
        None "fldlg2" => |s, _| s.fld_constant(Constant::Log10Of2);
        None "fldln2" => |s, _| s.fld_constant(Constant::LnOf2);
        None "fldz" => |s, _| s.fld_constant(Constant::Zero);
    });
}

#[test]
fn stores() {
    agree(forms! {
        None "fst dword ptr [{m}]" => |s, m| write(s, m, s.fst_m32(), false, u32::to_le_bytes);
        None "fstp dword ptr [{m}]" => |s, m| write(s, m, s.fst_m32(), true, u32::to_le_bytes);
        None "fst qword ptr [{m}]" => |s, m| write(s, m, s.fst_m64(), false, u64::to_le_bytes);
        None "fstp qword ptr [{m}]" => |s, m| write(s, m, s.fst_m64(), true, u64::to_le_bytes);
        None "fstp tbyte ptr [{m}]" => |s, m| write(s, m, s.fst_m80(), true, |bytes| bytes);
        None "fist word ptr [{m}]" => |s, m| write(s, m, s.fist(), false, i16::to_le_bytes);
        None "fistp word ptr [{m}]" => |s, m| write(s, m, s.fist(), true, i16::to_le_bytes);
        None "fist dword ptr [{m}]" => |s, m| write(s, m, s.fist(), false, i32::to_le_bytes);
        None "fistp dword ptr [{m}]" => |s, m| write(s, m, s.fist(), true, i32::to_le_bytes);
        None "fistp qword ptr [{m}]" => |s, m| write(s, m, s.fist(), true, i64::to_le_bytes);
        None "fisttp word ptr [{m}]" => |s, m| write(s, m, s.fisttp(), true, i16::to_le_bytes);
        None "fisttp dword ptr [{m}]" => |s, m| write(s, m, s.fisttp(), true, i32::to_le_bytes);
        None "fisttp qword ptr [{m}]" => |s, m| write(s, m, s.fisttp(), true, i64::to_le_bytes);
        None "fbstp tbyte ptr [{m}]" => |s, m| write(s, m, s.fbst(), true, |bytes| bytes);
    });
}

#[test]
fn moves_between_registers() {
    agree(forms! {
        None "fst st(1)" => |s, _| s.fst(1, false);
        None "fst st(0)" => |s, _| s.fst(0, false);
        None "fstp st(3)" => |s, _| s.fst(3, true);
        None "fstp st(0)" => |s, _| s.fst(0, true);
        None "fxch st(1)" => |s, _| s.fxch(1);
        None "fxch st(0)" => |s, _| s.fxch(0);
        None "fxch st(6)" => |s, _| s.fxch(6);
        None "fcmovb st, st(1)" => |s, m| s.fcmov(1, m.flags & 1 != 0);
        None "fcmove st, st(1)" => |s, m| s.fcmov(1, m.flags & 0x40 != 0);
        None "fcmovbe st, st(1)" => |s, m| s.fcmov(1, m.flags & 0x41 != 0);
        None "fcmovu st, st(1)" => |s, m| s.fcmov(1, m.flags & 4 != 0);
        None "fcmovnb st, st(1)" => |s, m| s.fcmov(1, m.flags & 1 == 0);
        None "fcmovne st, st(1)" => |s, m| s.fcmov(1, m.flags & 0x40 == 0);
        None "fcmovnbe st, st(1)" => |s, m| s.fcmov(1, m.flags & 0x41 == 0);
        None "fcmovnu st, st(1)" => |s, m| s.fcmov(1, m.flags & 4 == 0);
    });
}

/// Encodings that the manual does not list, which processors perform as these (AMD APM volume 3, appendix A).
#[test]
fn aliases() {
    agree(forms! {
        None ".byte 0xd9, 0xd9" => |s, _| s.fstpnce(1);
        None ".byte 0xdc, 0xd1" => |s, _| s.fcom(1, Signalling, 0);
        None ".byte 0xdc, 0xd9" => |s, _| s.fcom(1, Signalling, 1);
        None ".byte 0xdd, 0xc9" => |s, _| s.fxch(1);
        None ".byte 0xde, 0xd1" => |s, _| s.fcom(1, Signalling, 1);
        None ".byte 0xdf, 0xc1" => |s, _| s.ffreep(1);
        None ".byte 0xdf, 0xc9" => |s, _| s.fxch(1);
        None ".byte 0xdf, 0xd1" => |s, _| s.fst(1, true);
        None ".byte 0xdf, 0xd9" => |s, _| s.fst(1, true);
        None ".byte 0xdb, 0xe0" => |_, _| {};
        None ".byte 0xdb, 0xe1" => |_, _| {};
        None ".byte 0xdb, 0xe4" => |_, _| {};
    });
}

#[test]
fn control() {
    agree(forms! {
        None "fnop" => |_, _| {};
        None "fninit" => |s, _| s.fninit();
        None "fnclex" => |s, _| s.fnclex();
        Int "fldcw word ptr [{m}]" => |s, m| s.fldcw(read!(m, u16));
        None "fnstcw word ptr [{m}]" => |s, m| m.memory[..2].copy_from_slice(&s.control_word().to_le_bytes());
        None "fnstsw word ptr [{m}]" => |s, m| m.memory[..2].copy_from_slice(&s.status_word().to_le_bytes());
        None "ffree st(2)" => |s, _| s.ffree(2);
        None ".byte 0xdf, 0xc2" => |s, _| s.ffreep(2);
        None "fincstp" => |s, _| s.fincstp();
        None "fdecstp" => |s, _| s.fdecstp();
    });
}

#[test]
fn transcendentals() {
    agree(forms! {
        None "f2xm1" => |s, _| s.f2xm1();
        None "fyl2x" => |s, _| s.fyl2x();
        None "fyl2xp1" => |s, _| s.fyl2xp1();
        None "fpatan" => |s, _| s.fpatan();
        None "fptan" => |s, _| s.fptan();
        None "fsin" => |s, _| s.fsin();
        None "fcos" => |s, _| s.fcos();
        None "fsincos" => |s, _| s.fsincos();
    });
}

/// FNSTENV, as the core does it.
fn store_environment(s: &mut State, m: &mut Machine, format: Format) {
    let len = format.environment_len();
    m.memory[..len].copy_from_slice(&s.environment(format)[..len]);
    s.mask_all();
}

/// FNSAVE, as the core does it.
fn save(s: &mut State, m: &mut Machine, format: Format) {
    m.memory[..format.image_len()].copy_from_slice(&s.save_image(format)[..format.image_len()]);
    s.fninit();
}

/// Any environment and any registers. What FNSTENV tells of the last instruction is what FLDENV loaded.
#[test]
fn images() {
    use Format::{Protected16, Protected32};
    agree(forms! {
        Bytes "fldenv [{m}]" => |s, m| s.fldenv(Protected32, &bytes(m));
        Bytes ".byte 0x66; fldenv [{m}]" => |s, m| s.fldenv(Protected16, &bytes(m));
        Bytes "frstor [{m}]" => |s, m| s.frstor(Protected32, &bytes(m));
        Bytes ".byte 0x66; frstor [{m}]" => |s, m| s.frstor(Protected16, &bytes(m));
        Bytes "fldenv [{m}]; fnstenv [{m}]" => |s, m| {
            s.fldenv(Protected32, &bytes(m));
            store_environment(s, m, Protected32);
        };
        Bytes ".byte 0x66; fldenv [{m}]; .byte 0x66; fnstenv [{m}]" => |s, m| {
            s.fldenv(Protected16, &bytes(m));
            store_environment(s, m, Protected16);
        };
        Bytes "frstor [{m}]; fnsave [{m}]" => |s, m| {
            s.frstor(Protected32, &bytes(m));
            save(s, m, Protected32);
        };
        Bytes ".byte 0x66; frstor [{m}]; .byte 0x66; fnsave [{m}]" => |s, m| {
            s.frstor(Protected16, &bytes(m));
            save(s, m, Protected16);
        };
    });
}

#[test]
fn mmx() {
    agree(forms! {
        None "emms" => |s, _| s.emms();
        None "movq mm3, [{m}]" => |s, m| { s.mmx_enter(); s.set_mm(3, read!(m, u64)) };
        Int "movq mm7, [{m}]" => |s, m| { s.mmx_enter(); s.set_mm(7, read!(m, u64)) };
        None "movq [{m}], mm5" => |s, m| { s.mmx_enter(); m.memory[..8].copy_from_slice(&s.mm(5).to_le_bytes()) };
        None "paddd mm0, mm1" => |s, _| {
            s.mmx_enter();
            let (a, b) = (s.mm(0), s.mm(1));
            let low = (a as u32).wrapping_add(b as u32);
            let high = ((a >> 32) as u32).wrapping_add((b >> 32) as u32);
            s.set_mm(0, u64::from(high) << 32 | u64::from(low));
        };
    });
}
