//! Shifts: by one count for all lanes, by a count per lane, by bytes (Intel SDM volume 2, PSLLW/PSLLD/PSLLQ and so on,
//! VPSLLVD/VPSLLVQ and so on, PSLLDQ).

use super::vector::{V128, Vector};

/// One count for all lanes; from the lanes' width on, zeros or signs are all that is left.
macro_rules! shifts {
    ($($name:ident: $type:ident by $shift:ident;)*) => {$(
        #[inline(always)]
        pub(super) fn $name<V: Vector>(a: V, count: u64) -> V {
            shifts!(@ $shift, $type, a, count)
        }
    )*};
    (@ shl, $type:ident, $a:ident, $count:ident) => {
        if $count >= u64::from($type::BITS) { V::default() } else { $a.map::<$type>(|a| a << $count) }
    };
    (@ shr, $type:ident, $a:ident, $count:ident) => {
        if $count >= u64::from($type::BITS) { V::default() } else { $a.map::<$type>(|a| a >> $count) }
    };
    (@ sar, $type:ident, $a:ident, $count:ident) => {{
        let count = $count.min(u64::from($type::BITS) - 1);
        $a.map::<$type>(|a| a >> count)
    }};
}
shifts! {
    psllw: u16 by shl;
    pslld: u32 by shl;
    psllq: u64 by shl;
    psrlw: u16 by shr;
    psrld: u32 by shr;
    psrlq: u64 by shr;
    psraw: i16 by sar;
    psrad: i32 by sar;
}

#[inline(always)]
pub(super) fn vpsllvd<V: Vector>(a: V, b: V) -> V {
    a.zip::<u32>(b, |a, count| a.checked_shl(count).unwrap_or(0))
}

#[inline(always)]
pub(super) fn vpsrlvd<V: Vector>(a: V, b: V) -> V {
    a.zip::<u32>(b, |a, count| a.checked_shr(count).unwrap_or(0))
}

#[inline(always)]
pub(super) fn vpsravd<V: Vector>(a: V, b: V) -> V {
    a.zip::<u32>(b, |a, count| ((a as i32) >> count.min(31)) as u32)
}

#[inline(always)]
pub(super) fn vpsllvq<V: Vector>(a: V, b: V) -> V {
    a.zip::<u64>(b, |a, count| if count < 64 { a << count } else { 0 })
}

#[inline(always)]
pub(super) fn vpsrlvq<V: Vector>(a: V, b: V) -> V {
    a.zip::<u64>(b, |a, count| if count < 64 { a >> count } else { 0 })
}

#[inline(always)]
pub(super) fn pslldq(a: V128, imm: u8) -> V128 {
    V128::from_u128(a.to_u128().checked_shl(u32::from(imm) * 8).unwrap_or(0))
}

#[inline(always)]
pub(super) fn psrldq(a: V128, imm: u8) -> V128 {
    V128::from_u128(a.to_u128().checked_shr(u32::from(imm) * 8).unwrap_or(0))
}
