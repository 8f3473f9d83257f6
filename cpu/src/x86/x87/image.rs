//! The unit's state in memory: FNSTENV/FLDENV, FNSAVE/FRSTOR (Intel SDM volume 1, figures 8-9 to 8-12), FXSAVE/FXRSTOR and
//! the legacy region of XSAVE (tables 10-2 and 13-1).

use super::{Pointers, State};
use crate::softfloat::extended::F80;

/// Size of the registers in an FNSAVE image.
const REGISTERS: usize = 80;
/// Size of the largest environment.
const ENVIRONMENT: usize = 28;

/// Layout of an environment: operand size, and whether pointers are selector and offset (protected mode, also
/// compatibility and 64-bit mode) or linear addresses (real and virtual-8086 mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 14 bytes, linear addresses of 20 bits.
    Real16,
    /// 14 bytes, selector and offset.
    Protected16,
    /// 28 bytes, linear addresses of 32 bits.
    Real32,
    /// 28 bytes, selector and offset.
    Protected32,
}

impl Format {
    /// Size of an FNSTENV image.
    pub const fn environment_len(self) -> usize {
        match self {
            Self::Real16 | Self::Protected16 => 14,
            Self::Real32 | Self::Protected32 => ENVIRONMENT,
        }
    }

    /// Size of an FNSAVE image.
    pub const fn image_len(self) -> usize {
        self.environment_len() + REGISTERS
    }
}

/// An environment's fields below its first three words, as four words of the operand size.
fn pack_pointers(format: Format, p: &Pointers) -> [u32; 4] {
    let linear = |segment: u16, offset: u64| (u32::from(segment) << 4).wrapping_add(offset as u32);
    let opcode = u32::from(p.opcode & 0x7ff);
    match format {
        Format::Protected16 => [p.ip as u32, p.cs.into(), p.dp as u32, p.ds.into()],
        Format::Protected32 => [
            p.ip as u32,
            opcode << 16 | u32::from(p.cs),
            p.dp as u32,
            0xffff_0000 | u32::from(p.ds),
        ],
        Format::Real16 => {
            let (ip, dp) = (linear(p.cs, p.ip), linear(p.ds, p.dp));
            [ip, ip >> 4 & 0xf000 | opcode, dp, dp >> 4 & 0xf000]
        }
        Format::Real32 => {
            let (ip, dp) = (linear(p.cs, p.ip), linear(p.ds, p.dp));
            [
                0xffff_0000 | ip & 0xffff,
                ip >> 4 & 0x0fff_f000 | opcode,
                0xffff_0000 | dp & 0xffff,
                dp >> 4 & 0x0fff_f000,
            ]
        }
    }
}

/// The inverse of [`pack_pointers`]; a linear address becomes an offset in segment 0.
fn unpack_pointers(format: Format, [a, b, c, d]: [u32; 4]) -> Pointers {
    let linear = |low: u32, high: u32| u64::from(low & 0xffff | (high & 0x0fff_f000) << 4);
    match format {
        Format::Protected16 => {
            Pointers { opcode: 0, cs: b as u16, ip: a.into(), ds: d as u16, dp: c.into() }
        }
        Format::Protected32 => Pointers {
            opcode: (b >> 16) as u16 & 0x7ff,
            cs: b as u16,
            ip: a.into(),
            ds: d as u16,
            dp: c.into(),
        },
        Format::Real16 | Format::Real32 => {
            Pointers { opcode: b as u16 & 0x7ff, cs: 0, ip: linear(a, b), ds: 0, dp: linear(c, d) }
        }
    }
}

impl State {
    /// What FNSTENV stores, of which the first [`Format::environment_len`] bytes count; [`State::mask_all`] follows the store.
    pub fn environment(&self, format: Format) -> [u8; ENVIRONMENT] {
        let mut bytes = [0; ENVIRONMENT];
        let head = [self.control_word(), self.status_word(), self.tag_word()];
        let pointers = pack_pointers(format, &self.pointers);
        match format {
            Format::Real16 | Format::Protected16 => {
                let words = head.into_iter().chain(pointers.map(|word| word as u16));
                for (to, word) in bytes.chunks_exact_mut(2).zip(words) {
                    to.copy_from_slice(&word.to_le_bytes());
                }
            }
            Format::Real32 | Format::Protected32 => {
                // The words' reserved halves are ones.
                let words = head.into_iter().map(|word| 0xffff_0000 | u32::from(word));
                for (to, word) in bytes.chunks_exact_mut(4).zip(words.chain(pointers)) {
                    to.copy_from_slice(&word.to_le_bytes());
                }
            }
        }
        bytes
    }

    /// FLDENV.
    pub fn fldenv(&mut self, format: Format, bytes: &[u8; ENVIRONMENT]) {
        let half = |i: usize| u16::from_le_bytes([bytes[i], bytes[i + 1]]);
        let field = |n: usize| match format {
            Format::Real16 | Format::Protected16 => u32::from(half(2 * n)),
            Format::Real32 | Format::Protected32 => {
                u32::from(half(4 * n)) | u32::from(half(4 * n + 2)) << 16
            }
        };
        self.load_words(field(0) as u16, field(1) as u16);
        self.load_tag_word(field(2) as u16);
        self.pointers = unpack_pointers(format, [field(3), field(4), field(5), field(6)]);
    }

    /// What FNSAVE stores, of which the first [`Format::image_len`] bytes count; [`State::fninit`] follows the store.
    pub fn save_image(&self, format: Format) -> [u8; ENVIRONMENT + REGISTERS] {
        let mut bytes = [0; ENVIRONMENT + REGISTERS];
        let len = format.environment_len();
        bytes[..len].copy_from_slice(&self.environment(format)[..len]);
        for (i, to) in bytes[len..len + REGISTERS].chunks_exact_mut(10).enumerate() {
            to.copy_from_slice(&self.st(i as u8).to_bytes());
        }
        bytes
    }

    /// FRSTOR.
    pub fn frstor(&mut self, format: Format, bytes: &[u8; ENVIRONMENT + REGISTERS]) {
        let len = format.environment_len();
        let mut environment = [0; ENVIRONMENT];
        environment[..len].copy_from_slice(&bytes[..len]);
        self.fldenv(format, &environment);
        for (i, from) in bytes[len..len + REGISTERS].as_chunks().0.iter().enumerate() {
            let index = self.index(i as u8);
            self.regs[index] = F80::from_bytes(*from);
        }
    }

    /// Writes the unit's parts of an FXSAVE image, bytes 0 to 23 and 32 to 159 of the legacy region, whose upper six bytes a
    /// register are zero; MXCSR in between is not touched. `wide`: with REX.W, pointers are offsets of 64 bits.
    pub fn fxsave(&self, wide: bool, bytes: &mut [u8; 160]) {
        let p = &self.pointers;
        bytes[0..2].copy_from_slice(&self.control_word().to_le_bytes());
        bytes[2..4].copy_from_slice(&self.status_word().to_le_bytes());
        bytes[4..6].copy_from_slice(&[self.full as u8, 0]);
        bytes[6..8].copy_from_slice(&(p.opcode & 0x7ff).to_le_bytes());
        let pointer = |offset: u64, selector: u16| {
            if wide { offset } else { offset & 0xffff_ffff | u64::from(selector) << 32 }
        };
        bytes[8..16].copy_from_slice(&pointer(p.ip, p.cs).to_le_bytes());
        bytes[16..24].copy_from_slice(&pointer(p.dp, p.ds).to_le_bytes());
        for (i, to) in bytes[32..160].chunks_exact_mut(16).enumerate() {
            to[..10].copy_from_slice(&self.st(i as u8).to_bytes());
            to[10..].fill(0);
        }
    }

    /// Reads the unit's parts of an FXSAVE image.
    pub fn fxrstor(&mut self, wide: bool, bytes: &[u8; 160]) {
        let half = |i: usize| u16::from_le_bytes([bytes[i], bytes[i + 1]]);
        let pointer = |i: usize| {
            let word = |i: usize| u64::from(half(i)) | u64::from(half(i + 2)) << 16;
            if wide { (word(i) | word(i + 4) << 32, 0) } else { (word(i), half(i + 4)) }
        };
        self.load_words(half(0), half(2));
        self.full = bytes[4].into();
        let ((ip, cs), (dp, ds)) = (pointer(8), pointer(16));
        self.pointers = Pointers { opcode: half(6) & 0x7ff, cs, ip, ds, dp };
        for (i, from) in bytes[32..160].as_chunks::<16>().0.iter().enumerate() {
            let index = self.index(i as u8);
            let [value @ .., _, _, _, _, _, _] = *from;
            self.regs[index] = F80::from_bytes(value);
        }
    }

    /// Whether this is the initial configuration, so that XSAVE's XSTATE_BV may have bit 0 clear (Intel SDM volume 1, 13.6).
    pub fn is_initial(&self) -> bool {
        *self == Self::default()
    }
}
