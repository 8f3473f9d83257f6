//! Loads, stores and moves (Intel SDM volume 2: FLD, FILD, FBLD, FLD1 and its kin, FST, FIST, FISTTP, FBSTP, FXCH, FCMOVcc).

use super::State;
use crate::softfloat::extended::{self, BCD_INDEFINITE, F80};
use crate::softfloat::format::{is_signalling, is_subnormal};
use crate::softfloat::{Env, F32, F64, Flags, Format, Integer, Rounding};

/// A store on its way to memory: [`State::complete`] finishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Store<T> {
    /// What is written; nothing if an unmasked exception forbids it.
    pub value: Option<T>,
    /// The status word then.
    pub(super) status: u16,
}

/// What FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2 and FLDZ load, in the order of their encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    /// 1.
    One,
    /// log2(10).
    Log2Of10,
    /// log2(e).
    Log2OfE,
    /// Pi.
    Pi,
    /// log10(2).
    Log10Of2,
    /// ln(2).
    LnOf2,
    /// 0.
    Zero,
}

impl Constant {
    /// Exponent, significand truncated to 64 bits and whether what was cut off is above half a unit.
    const fn parts(self) -> (u16, u64, bool) {
        match self {
            Self::One => (0x3fff, 0x8000_0000_0000_0000, false),
            Self::Log2Of10 => (0x4000, 0xd49a_784b_cd1b_8afe, false),
            Self::Log2OfE => (0x3fff, 0xb8aa_3b29_5c17_f0bb, true),
            Self::Pi => (0x4000, 0xc90f_daa2_2168_c234, true),
            Self::Log10Of2 => (0x3ffd, 0x9a20_9a84_fbcf_f798, true),
            Self::LnOf2 => (0x3ffe, 0xb172_17f7_d1cf_79ab, true),
            Self::Zero => (0, 0, false),
        }
    }
}

impl State {
    /// Pushes a value whose load found the given exceptions. An unmasked denormal is pushed all the same.
    #[inline(always)]
    fn load(&mut self, value: F80, flags: Flags) {
        if !self.is_empty(7) {
            if self.overflow() {
                self.push(F80::INDEFINITE);
            }
        } else if self.settle(flags) || flags == Flags::DENORMAL {
            self.push(value);
        }
    }

    #[inline(always)]
    fn load_format<F: Format>(&mut self, bits: u64) {
        let value = extended::from_format::<F>(bits);
        if is_signalling::<F>(bits) {
            self.load(extended::quiet_nan(value), Flags::INVALID);
        } else if is_subnormal::<F>(bits) {
            self.load(value, Flags::DENORMAL);
        } else {
            self.load(value, Flags::empty());
        }
    }

    /// FLD m32fp.
    #[inline(always)]
    pub fn fld_m32(&mut self, bits: u32) {
        self.load_format::<F32>(bits.into());
    }

    /// FLD m64fp.
    #[inline(always)]
    pub fn fld_m64(&mut self, bits: u64) {
        self.load_format::<F64>(bits);
    }

    /// FLD m80fp: any encoding is taken as it is.
    #[inline]
    pub fn fld_m80(&mut self, bytes: [u8; 10]) {
        self.load(F80::from_bytes(bytes), Flags::empty());
    }

    /// FLD ST(i).
    #[inline(always)]
    pub fn fld(&mut self, i: u8) {
        if self.is_empty(i) {
            if self.underflow() {
                self.push(F80::INDEFINITE);
            }
        } else {
            self.load(self.st(i), Flags::empty());
        }
    }

    /// FILD m16int, m32int, m64int.
    #[inline(always)]
    pub fn fild<I: Integer>(&mut self, value: I) {
        self.load(extended::from_int(value), Flags::empty());
    }

    /// FBLD m80bcd.
    pub fn fbld(&mut self, bytes: [u8; 10]) {
        self.load(extended::from_bcd(bytes), Flags::empty());
    }

    /// FLD1 and its kin: rounded by rounding control to 64 bits; never inexact.
    #[inline]
    pub fn fld_constant(&mut self, constant: Constant) {
        let (sign_exp, sig, above_half) = constant.parts();
        let up = match self.env().rounding {
            Rounding::NearestEven | Rounding::NearestMaxMagnitude => above_half,
            Rounding::Up => !matches!(constant, Constant::One | Constant::Zero),
            Rounding::Down | Rounding::TowardZero => false,
        };
        self.load(F80 { sig: sig + u64::from(up), sign_exp }, Flags::empty());
    }

    /// ST(0) converted for a store; `indefinite` is what an invalid operation stores.
    #[inline(always)]
    fn store<T>(
        &self,
        indefinite: T,
        convert: impl FnOnce(&mut Env, F80) -> Option<T>,
    ) -> Store<T> {
        if self.is_empty(0) {
            let (status, stored) = self.stack_faulted(false);
            return Store { value: stored.then_some(indefinite), status };
        }
        let mut env = self.env();
        let value = convert(&mut env, self.st(0)).unwrap_or(indefinite);
        // A result that the destination does not hold is not stored with an adjusted exponent, but not at all.
        let fits = !env.traps(env.flags & (Flags::OVERFLOW | Flags::UNDERFLOW));
        if !fits {
            env.flags &= Flags::OVERFLOW | Flags::UNDERFLOW;
        }
        let (status, stored) = self.settled(env.flags);
        Store { value: (stored && fits).then_some(value), status }
    }

    /// FST(P) m32fp.
    #[inline(never)]
    pub fn fst_m32(&self) -> Store<u32> {
        self.store(0xffc0_0000, |env, a| Some(extended::to_format::<F32>(env, a) as u32))
    }

    /// FST(P) m64fp.
    #[inline(never)]
    pub fn fst_m64(&self) -> Store<u64> {
        self.store(0xfff8_0000_0000_0000, |env, a| Some(extended::to_format::<F64>(env, a)))
    }

    /// FSTP m80fp: any encoding is stored as it is.
    #[inline]
    pub fn fst_m80(&self) -> Store<[u8; 10]> {
        self.store(F80::INDEFINITE.to_bytes(), |_, a| Some(a.to_bytes()))
    }

    /// FIST(P) m16int, m32int, m64int.
    #[inline(never)]
    pub fn fist<I: Integer>(&self) -> Store<I> {
        self.store(I::INDEFINITE, |env, a| extended::to_int(env, a))
    }

    /// FISTTP m16int, m32int, m64int.
    #[inline]
    pub fn fisttp<I: Integer>(&self) -> Store<I> {
        self.store(I::INDEFINITE, |env, a| {
            env.rounding = Rounding::TowardZero;
            extended::to_int(env, a)
        })
    }

    /// FBSTP m80bcd.
    pub fn fbst(&self) -> Store<[u8; 10]> {
        self.store(BCD_INDEFINITE, extended::to_bcd)
    }

    /// Finishes a store once its value, if any, is in memory: notes its exceptions, and pops if it is of the popping form.
    #[inline]
    pub fn complete<T>(&mut self, store: &Store<T>, pop: bool) {
        self.status = store.status;
        if pop && store.value.is_some() {
            self.pop();
        }
    }

    /// FST(P) ST(i).
    #[inline(always)]
    pub fn fst(&mut self, i: u8, pop: bool) {
        if self.is_empty(0) {
            if !self.underflow() {
                return;
            }
            self.put(i, F80::INDEFINITE);
        } else {
            self.settle(Flags::empty());
            self.put(i, self.st(0));
        }
        if pop {
            self.pop();
        }
    }

    /// FSTPNCE ST(i), an old alias of FSTP that nothing stops: an empty ST(0) is popped and not stored.
    pub fn fstpnce(&mut self, i: u8) {
        if self.is_empty(0) {
            self.settle(Flags::empty());
            self.pop();
        } else {
            self.fst(i, true);
        }
    }

    /// FXCH ST(i).
    #[inline(always)]
    pub fn fxch(&mut self, i: u8) {
        let (mut a, mut b) = (self.st(0), self.st(i));
        if self.is_empty(0) || self.is_empty(i) {
            if !self.underflow() {
                return;
            }
            if self.is_empty(0) {
                a = F80::INDEFINITE;
            }
            if self.is_empty(i) {
                b = F80::INDEFINITE;
            }
        } else {
            self.settle(Flags::empty());
        }
        self.put(0, b);
        self.put(i, a);
    }

    /// FCMOVcc ST(0), ST(i), `condition` being what cc tells of the flags.
    #[inline]
    pub fn fcmov(&mut self, i: u8, condition: bool) {
        if self.is_empty(0) || self.is_empty(i) {
            if self.underflow() {
                self.put(0, F80::INDEFINITE);
            }
            return;
        }
        if condition {
            self.put(0, self.st(i));
        }
    }
}
