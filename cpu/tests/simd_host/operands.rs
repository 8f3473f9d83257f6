//! Operands: numbers at the ends and in the middle of each format, equal ones, short strings, plain noise.

use iced_x86::MemorySize;
use mimic_cpu::x86::simd::{Kind, Mxcsr, Run, SimdOp, V256};

use crate::forms::{Form, INDICES};
use crate::host::{FLAGS, MEMORY, State};
use crate::random::Random;

/// Which floating-point exceptions are masked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Exceptions {
    Masked,
    Any,
}

/// A binary format: widths of exponent and fraction.
#[derive(Clone, Copy)]
struct Format {
    exponent: u32,
    fraction: u32,
}

const HALF: Format = Format { exponent: 5, fraction: 10 };
const SINGLE: Format = Format { exponent: 8, fraction: 23 };
const DOUBLE: Format = Format { exponent: 11, fraction: 52 };

/// The operand sets of a form.
pub(crate) struct Operands<'a> {
    op: &'a SimdOp,
    exceptions: Exceptions,
    /// The format of the form's numbers, if they are such.
    format: Option<Format>,
    random: Random,
}

impl<'a> Operands<'a> {
    pub(crate) fn new(form: &'a Form, exceptions: Exceptions) -> Self {
        use MemorySize as M;
        let format = match form.code.op_code().memory_size().element_type() {
            M::Float16 => Some(HALF),
            M::Float32 => Some(SINGLE),
            M::Float64 => Some(DOUBLE),
            _ => None,
        };
        Self { op: form.op, exceptions, format, random: Random(form.code as u64 + 1) }
    }

    /// The next set: the registers and memory that the instruction looks at, the destination, MXCSR, flags.
    pub(crate) fn next(&mut self, state: &mut State) {
        state.signal = 0;
        state.flags = 0x202 | self.random.next() & FLAGS;
        state.mxcsr = self.mxcsr();
        let style = self.random.next();
        let mut previous = V256::default();
        for operand in [self.op.dst, self.op.a, self.op.b, self.op.c] {
            // Now and then an operand like the last: equal numbers, whole masks.
            let value = match self.random.below(16) {
                0 => previous,
                _ => self.vector(style),
            };
            previous = value;
            let n = usize::from(operand.number);
            match operand.kind {
                Kind::None => {}
                Kind::Mm => state.mm[n + 1] = value.0[0],
                Kind::Vector => state.ymm[n + 1] = value,
                Kind::Xmm0 => state.ymm[0] = value,
                Kind::Gpr8 | Kind::Gpr16 | Kind::Gpr32 | Kind::Gpr64 => {
                    state.gpr = std::array::from_fn(|_| self.integer());
                }
                Kind::Memory => state.memory[MEMORY / 2..][..32].copy_from_slice(value.bytes()),
            }
        }
        match self.op.run {
            Run::StringIndex(_) | Run::StringMask(_) => self.strings(state),
            Run::Gather { .. } => self.indices(state),
            _ => {}
        }
    }

    fn mxcsr(&mut self) -> u32 {
        let random = self.random.next() as u32;
        // Half of the time as most programs leave it: to nearest, PE recorded or not yet.
        let control = match random >> 16 & 3 {
            0 => 0,
            1 => 0x20,
            _ => random & (0x3f | Mxcsr::DAZ | Mxcsr::FTZ | 0x6000),
        };
        let masks = match self.exceptions {
            Exceptions::Masked => 0x1f80,
            Exceptions::Any => (random >> 17 | random >> 23) << 7 & 0x1f80,
        };
        control | masks
    }

    fn vector(&mut self, style: u64) -> V256 {
        let words = match (self.format, style & 3) {
            (Some(format), 0) => std::array::from_fn(|_| {
                self.lanes(format.exponent + format.fraction + 1, |me| me.plain_number(format))
            }),
            (Some(format), 1 | 2) => std::array::from_fn(|_| {
                self.lanes(format.exponent + format.fraction + 1, |me| me.number(format))
            }),
            (_, 3) => std::array::from_fn(|_| self.random.next()),
            (_, 2) => std::array::from_fn(|_| {
                let integer = self.integer();
                integer ^ integer << 32
            }),
            (_, 1) => std::array::from_fn(|_| {
                self.lanes(16, |me| if me.random.next() & 3 == 0 { 0x7fff } else { me.integer() })
            }),
            _ => {
                // Bytes of few values, so that many are equal or zero or at an end of the range.
                std::array::from_fn(|_| {
                    self.lanes(8, |me| me.random.pick(&[0, 1, 0x7f, 0x80, 0xff, 0x61, 0x62, 2]))
                })
            }
        };
        V256(words)
    }

    /// A word of lanes of the given width.
    fn lanes(&mut self, width: u32, mut lane: impl FnMut(&mut Self) -> u64) -> u64 {
        (0..64 / width)
            .fold(0, |word, i| word | (lane(self) & (u64::MAX >> (64 - width))) << (i * width))
    }

    /// A number of a format: ends of the range, near one, near the integers' ends, NaNs.
    fn number(&mut self, format: Format) -> u64 {
        let choice = self.random.next();
        let last = (1u64 << format.exponent) - 1;
        let bias = last >> 1;
        let exponent = match choice & 7 {
            0 => choice >> 32 & 1,
            1 => last - (choice >> 32 & 1),
            2..=4 => (bias + (choice >> 32) % 9).saturating_sub(4),
            5 => (bias + 29 + (choice >> 32) % 36).min(last),
            _ => (choice >> 32) % (last + 1),
        };
        let bits = self.random.next();
        let all = (1u64 << format.fraction) - 1;
        let fraction = match choice >> 3 & 7 {
            0 => 0,
            1 => all,
            2 => 1 << (bits % u64::from(format.fraction)),
            3 => all << (bits % u64::from(format.fraction)),
            4 => bits & bits.rotate_left(7) & bits.rotate_left(23),
            _ => bits,
        };
        let sign = choice >> 6 & 1;
        sign << (format.exponent + format.fraction) | exponent << format.fraction | fraction & all
    }

    /// A number as programs have them: of medium size, or zero.
    fn plain_number(&mut self, format: Format) -> u64 {
        let bits = self.random.next();
        if bits & 7 == 0 {
            return 0;
        }
        let bias = (1u64 << (format.exponent - 1)) - 1;
        let exponent = bias - 8 + (bits >> 3) % 17;
        let fraction = self.random.next() & ((1u64 << format.fraction) - 1);
        let short = self.random.below(u64::from(format.fraction) + 1);
        (bits >> 60 & 1) << (format.exponent + format.fraction)
            | exponent << format.fraction
            | fraction >> short << short
    }

    /// An integer of any length.
    fn integer(&mut self) -> u64 {
        let choice = self.random.next();
        let short = self.random.next() >> (choice & 63);
        if choice & 64 != 0 { short.wrapping_neg() } else { short }
    }

    /// Operands for PCMPxSTRx: strings of two letters, lengths around a vector's.
    fn strings(&mut self, state: &mut State) {
        state.gpr = std::array::from_fn(|_| match self.random.below(4) {
            0 => self.integer(),
            _ => self.random.below(40).wrapping_sub(20),
        });
        if self.random.next() & 1 != 0 {
            let wide = self.random.next() & 1 != 0;
            let mut string = || {
                let letters = if wide { 0x0101_0101_0101_0101 } else { 0x0001_0001_0001_0001 };
                std::array::from_fn(|_| {
                    let end = if self.random.below(3) == 0 { 0 } else { u64::MAX };
                    (0x61 * letters + (self.random.next() & letters))
                        & (end | 0xffff << self.random.below(49))
                })
            };
            let (a, b) = (V256(string()), V256(string()));
            state.ymm[1] = a;
            state.ymm[2] = b;
            state.memory[MEMORY / 2..][..32].copy_from_slice(b.bytes());
        }
    }

    /// Indices that stay within the memory.
    fn indices(&mut self, state: &mut State) {
        for byte in &mut state.memory {
            *byte = self.random.next() as u8;
        }
        let Run::Gather { index, .. } = self.op.run else { return };
        for i in 0..32 / usize::from(index) {
            let place = self.random.below(48).wrapping_sub(24);
            state.ymm[INDICES].set_element(i, index, place);
        }
    }
}
