//! The arithmetic flags, kept as what they are computed from.
//!
//! Most instructions set flags that nobody reads. So they leave their result and the carries out of its bits, and a
//! flag is computed when it is asked for: zero, sign and parity from the result, the others from the carries.

/// EFLAGS (SDM vol. 1, 3.4.3).
pub mod bit {
    /// Carry.
    pub const CF: u64 = 1;
    /// Always one.
    pub const FIXED: u64 = 1 << 1;
    /// Parity of the low byte.
    pub const PF: u64 = 1 << 2;
    /// Carry out of bit 3.
    pub const AF: u64 = 1 << 4;
    /// Zero.
    pub const ZF: u64 = 1 << 6;
    /// Sign.
    pub const SF: u64 = 1 << 7;
    /// Trap: single step.
    pub const TF: u64 = 1 << 8;
    /// Interrupts enabled.
    pub const IF: u64 = 1 << 9;
    /// String instructions go downwards.
    pub const DF: u64 = 1 << 10;
    /// Overflow.
    pub const OF: u64 = 1 << 11;
    /// I/O privilege level: two bits.
    pub const IOPL: u64 = 3 << 12;
    /// Nested task.
    pub const NT: u64 = 1 << 14;
    /// Resume: no instruction breakpoint at the next instruction.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Alignment check, and access to user pages under SMAP.
    pub const AC: u64 = 1 << 18;
    /// Virtual interrupt flag.
    pub const VIF: u64 = 1 << 19;
    /// Virtual interrupt pending.
    pub const VIP: u64 = 1 << 20;
    /// CPUID exists.
    pub const ID: u64 = 1 << 21;
    /// The flags that arithmetic sets.
    pub const ARITH: u64 = CF | PF | AF | ZF | SF | OF;
}

/// The arithmetic flags.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lazy {
    /// The result, sign-extended: zero if ZF.
    result: u64,
    /// Bit 63 is CF, bit 62 is CF xor OF, bit 3 is AF; bit 0 is SF xor the result's sign; bits 8 to 15 are to be
    /// xored to the result's low byte before its parity is taken.
    aux: u64,
}

const CARRY: u64 = 1 << 63;
const PARTIAL: u64 = 1 << 62;
const ADJUST: u64 = 1 << 3;
const SIGN_DELTA: u64 = 1;
const PARITY_SHIFT: u32 = 8;

impl Lazy {
    /// Flags of a result (sign-extended to 64 bits) with CF, OF and AF clear: logic.
    #[inline(always)]
    #[must_use]
    pub fn logic(result: u64) -> Self {
        Lazy { result, aux: 0 }
    }

    /// Flags of a result of `bits` bits (sign-extended to 64 bits) and the carries out of each of its bits.
    #[inline(always)]
    #[must_use]
    pub fn carries(result: u64, carries: u64, bits: u32) -> Self {
        let top = if bits == 64 {
            carries & !(SIGN_DELTA | 0xff << PARITY_SHIFT)
        } else {
            carries << (64 - bits) & (CARRY | PARTIAL) | carries & ADJUST
        };
        Lazy { result, aux: top }
    }

    /// The same with CF replaced: INC and DEC.
    #[inline(always)]
    #[must_use]
    pub fn with_carry(self, cf: bool) -> Self {
        let flip = (self.aux >> 63 ^ u64::from(cf)) & 1;
        // OF is the xor of the two bits and stays.
        Lazy { result: self.result, aux: self.aux ^ (flip << 63 | flip << 62) }
    }

    /// The same with CF and OF replaced: rotations.
    #[inline(always)]
    #[must_use]
    pub fn with_carry_overflow(self, cf: bool, of: bool) -> Self {
        let aux = self.aux & !(CARRY | PARTIAL) | u64::from(cf) << 63 | u64::from(cf ^ of) << 62;
        Lazy { result: self.result, aux }
    }

    /// Flags of a result with CF and OF as given and AF and ZF clear, whatever the result: multiplications.
    #[inline(always)]
    #[must_use]
    pub fn product(result: u64, cf: bool, of: bool) -> Self {
        // A value that is not zero has the sign and the parity of zero.
        Lazy::result(if result == 0 { 1 << PARITY_SHIFT } else { result }, cf, of)
    }

    /// Flags of a result with CF and OF as given and AF clear.
    #[inline(always)]
    #[must_use]
    pub fn result(result: u64, cf: bool, of: bool) -> Self {
        let (cf, of) = (u64::from(cf), u64::from(of));
        Lazy { result, aux: cf << 63 | (cf ^ of) << 62 }
    }

    /// Flags as the bits of EFLAGS; the others are ignored.
    #[must_use]
    pub fn from_bits(flags: u64) -> Self {
        let is = |bit| u64::from(flags & bit != 0);
        // A result that is not zero has low byte zero (even parity) and sign zero.
        let result = if flags & bit::ZF != 0 { 0 } else { 1 << 8 };
        let aux = is(bit::CF) << 63
            | (is(bit::CF) ^ is(bit::OF)) << 62
            | is(bit::AF) << 3
            | is(bit::SF)
            | (is(bit::PF) ^ 1) << PARITY_SHIFT;
        Lazy { result, aux }
    }

    /// The bits of EFLAGS.
    #[must_use]
    pub fn bits(self) -> u64 {
        u64::from(self.cf())
            | u64::from(self.pf()) << 2
            | u64::from(self.af()) << 4
            | u64::from(self.zf()) << 6
            | u64::from(self.sf()) << 7
            | u64::from(self.of()) << 11
    }

    /// Replaces the flags in `mask` by those of `flags`, both as bits of EFLAGS.
    pub fn replace(&mut self, mask: u64, flags: u64) {
        *self = Lazy::from_bits(self.bits() & !mask | flags & mask);
    }

    /// Carry.
    #[inline(always)]
    #[must_use]
    pub fn cf(self) -> bool {
        self.aux >> 63 != 0
    }

    /// Parity.
    #[inline(always)]
    #[must_use]
    pub fn pf(self) -> bool {
        ((self.result ^ self.aux >> PARITY_SHIFT) as u8).count_ones() & 1 == 0
    }

    /// Adjust.
    #[inline(always)]
    #[must_use]
    pub fn af(self) -> bool {
        self.aux & ADJUST != 0
    }

    /// Zero.
    #[inline(always)]
    #[must_use]
    pub fn zf(self) -> bool {
        self.result == 0
    }

    /// Sign.
    #[inline(always)]
    #[must_use]
    pub fn sf(self) -> bool {
        (self.result >> 63 ^ self.aux & SIGN_DELTA) != 0
    }

    /// Overflow.
    #[inline(always)]
    #[must_use]
    pub fn of(self) -> bool {
        (self.aux ^ self.aux << 1) >> 63 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_flags_survives() {
        let each = [bit::CF, bit::PF, bit::AF, bit::ZF, bit::SF, bit::OF];
        for set in 0..64 {
            let flags = (0..6).filter(|i| set >> i & 1 != 0).fold(0, |all, i| all | each[i]);
            assert_eq!(Lazy::from_bits(flags).bits(), flags);
            for cf in [false, true] {
                let expected = flags & !bit::CF | u64::from(cf);
                assert_eq!(Lazy::from_bits(flags).with_carry(cf).bits(), expected);
            }
        }
    }
}
