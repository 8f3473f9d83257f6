//! Floating-point arithmetic.

use std::arch::asm;
use std::arch::x86_64::*;

use iced_x86::Mnemonic::*;

use super::mxcsr::*;
use super::{MEMORY, shape};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::insn::CodeCache;
use crate::x86::simd::{Kind, Mxcsr, Operand, SimdOp};

#[target_feature(enable = "avx2,fma")]
pub(super) fn lookup(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    let shape = shape(ins, entry)?;
    /// Whether there is a first source, bytes of a memory operand and whether they are aligned, then what is done quickly
    /// and exactly with 128 and with 256 bits.
    macro_rules! forms {
        ($a:literal, $bytes:literal, $aligned:literal, $qx:expr, $x:expr, $qy:expr, $y:expr) => {
            match (shape.vex, shape.ymm, shape.memory) {
                _ if shape.vex && shape.a != $a || shape.alone => None,
                (false, _, false) => {
                    handler!(|c, o, d| fp_xmm::<false, 2, 16, false>(c, o, d, $qx, $x))
                }
                (false, _, true) => {
                    handler!(|c, o, d| fp_xmm::<false, MEMORY, $bytes, $aligned>(c, o, d, $qx, $x))
                }
                (true, false, false) => {
                    handler!(|c, o, d| {
                        fp_xmm::<true, { if $a { 3 } else { 2 } }, 16, false>(c, o, d, $qx, $x)
                    })
                }
                (true, false, true) => {
                    handler!(|c, o, d| fp_xmm::<true, MEMORY, $bytes, false>(c, o, d, $qx, $x))
                }
                (true, true, false) => {
                    handler!(|c, o, d| {
                        fp_ymm::<{ if $a { 3 } else { 2 } }, false>(c, o, d, $qy, $y)
                    })
                }
                (true, true, true) => {
                    handler!(|c, o, d| fp_ymm::<MEMORY, false>(c, o, d, $qy, $y))
                }
            }
        };
    }
    /// A packed operation: by name, type and intrinsics.
    macro_rules! packed {
        ($insn:literal, ps, $x:ident, $y:ident) => {
            packed!(@ $insn, $x, $y, _mm_castsi128_ps, _mm_castps_si128, _mm_min_ps, abs_ps, sound_ps, 0xf,
                _mm256_castsi256_ps, _mm256_castps_si256, _mm256_min_ps, abs_ps_256, sound_ps_256, 0xff)
        };
        ($insn:literal, pd, $x:ident, $y:ident) => {
            packed!(@ $insn, $x, $y, _mm_castsi128_pd, _mm_castpd_si128, _mm_min_pd, abs_pd, sound_pd, 3,
                _mm256_castsi256_pd, _mm256_castpd_si256, _mm256_min_pd, abs_pd_256, sound_pd_256, 0xf)
        };
        (@ $insn:literal, $x:ident, $y:ident, $from:ident, $to:ident, $min:ident, $abs:ident, $sound:ident, $lanes:literal,
            $from_256:ident, $to_256:ident, $min_256:ident, $abs_256:ident, $sound_256:ident, $lanes_256:literal) => {
            forms!(
                true,
                16,
                true,
                |a, b| {
                    let (a, b) = ($from(a), $from(b));
                    let r = $x(a, b);
                    ($to(r), $sound($min($abs(b), $abs(a)), r, $lanes))
                },
                |m, a, b| under_mxcsr!(concat!($insn, " {a}, {a}, {b}"), xmm_reg, |m, a, b|),
                |a, b| {
                    let (a, b) = ($from_256(a), $from_256(b));
                    let r = $y(a, b);
                    ($to_256(r), $sound_256($min_256($abs_256(b), $abs_256(a)), r, $lanes_256))
                },
                |m, a, b| under_mxcsr!(concat!($insn, " {a:y}, {a:y}, {b:y}"), ymm_reg, |m, a, b|)
            )
        };
        (of $insn:literal) => {
            forms!(
                false,
                16,
                true,
                |_, b| (b, false),
                |m, a, b| under_mxcsr!(concat!($insn, " {a}, {b}"), xmm_reg, |m, a, b|),
                |_, b| (b, false),
                |m, a, b| under_mxcsr!(concat!($insn, " {a:y}, {b:y}"), ymm_reg, |m, a, b|)
            )
        };
    }
    /// A scalar operation.
    macro_rules! scalar {
        ($insn:literal, ss, $x:ident) => {
            scalar!(4, $insn, |a, b| {
                let (a, b) = (_mm_castsi128_ps(a), _mm_castsi128_ps(b));
                let r = $x(a, b);
                (_mm_castps_si128(r), sound_ps(_mm_min_ps(abs_ps(b), abs_ps(a)), r, 1))
            })
        };
        ($insn:literal, sd, $x:ident) => {
            scalar!(8, $insn, |a, b| {
                let (a, b) = (_mm_castsi128_pd(a), _mm_castsi128_pd(b));
                let r = $x(a, b);
                (_mm_castpd_si128(r), sound_pd(_mm_min_pd(abs_pd(b), abs_pd(a)), r, 1))
            })
        };
        ($bytes:literal, $insn:literal, $quick:expr) => {
            forms!(
                true,
                $bytes,
                false,
                $quick,
                |m, a, b| under_mxcsr!(concat!($insn, " {a}, {a}, {b}"), xmm_reg, |m, a, b|),
                |a, _| (a, true),
                |m, a, _| (a, m)
            )
        };
    }
    match ins.mnemonic() {
        Addps | Vaddps => packed!("vaddps", ps, _mm_add_ps, _mm256_add_ps),
        Addpd | Vaddpd => packed!("vaddpd", pd, _mm_add_pd, _mm256_add_pd),
        Addss | Vaddss => scalar!("vaddss", ss, _mm_add_ss),
        Addsd | Vaddsd => scalar!("vaddsd", sd, _mm_add_sd),
        Subps | Vsubps => packed!("vsubps", ps, _mm_sub_ps, _mm256_sub_ps),
        Subpd | Vsubpd => packed!("vsubpd", pd, _mm_sub_pd, _mm256_sub_pd),
        Subss | Vsubss => scalar!("vsubss", ss, _mm_sub_ss),
        Subsd | Vsubsd => scalar!("vsubsd", sd, _mm_sub_sd),
        Mulps | Vmulps => packed!("vmulps", ps, _mm_mul_ps, _mm256_mul_ps),
        Mulpd | Vmulpd => packed!("vmulpd", pd, _mm_mul_pd, _mm256_mul_pd),
        Mulss | Vmulss => scalar!("vmulss", ss, _mm_mul_ss),
        Mulsd | Vmulsd => scalar!("vmulsd", sd, _mm_mul_sd),
        Divps | Vdivps => packed!("vdivps", ps, _mm_div_ps, _mm256_div_ps),
        Divpd | Vdivpd => packed!("vdivpd", pd, _mm_div_pd, _mm256_div_pd),
        Divss | Vdivss => scalar!("vdivss", ss, _mm_div_ss),
        Divsd | Vdivsd => scalar!("vdivsd", sd, _mm_div_sd),
        Minps | Vminps => packed!("vminps", ps, _mm_min_ps, _mm256_min_ps),
        Minpd | Vminpd => packed!("vminpd", pd, _mm_min_pd, _mm256_min_pd),
        Minss | Vminss => scalar!("vminss", ss, _mm_min_ss),
        Minsd | Vminsd => scalar!("vminsd", sd, _mm_min_sd),
        Maxps | Vmaxps => packed!("vmaxps", ps, _mm_max_ps, _mm256_max_ps),
        Maxpd | Vmaxpd => packed!("vmaxpd", pd, _mm_max_pd, _mm256_max_pd),
        Maxss | Vmaxss => scalar!("vmaxss", ss, _mm_max_ss),
        Maxsd | Vmaxsd => scalar!("vmaxsd", sd, _mm_max_sd),
        Sqrtss | Vsqrtss => scalar!(4, "vsqrtss", |a, b| {
            let (a, b) = (_mm_castsi128_ps(a), _mm_castsi128_ps(b));
            let r = _mm_move_ss(a, _mm_sqrt_ss(b));
            (_mm_castps_si128(r), sound_ps(b, r, 1))
        }),
        Sqrtsd | Vsqrtsd => scalar!(8, "vsqrtsd", |a, b| {
            let (a, b) = (_mm_castsi128_pd(a), _mm_castsi128_pd(b));
            let r = _mm_sqrt_sd(a, b);
            (_mm_castpd_si128(r), sound_pd(b, r, 1))
        }),
        Cvtss2sd | Vcvtss2sd => scalar!(4, "vcvtss2sd", |a, b| {
            let b = _mm_castsi128_ps(b);
            (_mm_castpd_si128(_mm_cvtss_sd(_mm_castsi128_pd(a), b)), sound_ps(abs_ps(b), b, 1))
        }),
        Cvtsd2ss | Vcvtsd2ss => scalar!(8, "vcvtsd2ss", |a, b| {
            let r = _mm_cvtsd_ss(_mm_castsi128_ps(a), _mm_castsi128_pd(b));
            // A number above the smallest of the narrower format is normal in the wider one.
            (_mm_castps_si128(r), sound_ps(abs_ps(r), r, 1))
        }),
        Sqrtps | Vsqrtps => packed!(of "vsqrtps"),
        Sqrtpd | Vsqrtpd => packed!(of "vsqrtpd"),
        Cvtdq2ps | Vcvtdq2ps => packed!(of "vcvtdq2ps"),
        Cvtps2dq | Vcvtps2dq => packed!(of "vcvtps2dq"),
        Cvttps2dq | Vcvttps2dq => packed!(of "vcvttps2dq"),
        _ => None,
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn fused_multiply(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    let register = |number| Operand { kind: Kind::Vector, number };
    if entry.dst != register(0) || entry.a != register(0) || entry.b != register(1) {
        return None;
    }
    let memory = entry.c.kind == Kind::Memory;
    macro_rules! of {
        // Packed: by name, order of the operands, type and intrinsics.
        ($insn:literal, $order:literal, ps, $x:ident, $y:ident) => {
            of!(@ $insn, $order, $x, $y, _mm_castsi128_ps, _mm_castps_si128, _mm_min_ps, abs_ps, sound_ps, 0xf,
                _mm256_castsi256_ps, _mm256_castps_si256, _mm256_min_ps, abs_ps_256, sound_ps_256, 0xff)
        };
        ($insn:literal, $order:literal, pd, $x:ident, $y:ident) => {
            of!(@ $insn, $order, $x, $y, _mm_castsi128_pd, _mm_castpd_si128, _mm_min_pd, abs_pd, sound_pd, 3,
                _mm256_castsi256_pd, _mm256_castpd_si256, _mm256_min_pd, abs_pd_256, sound_pd_256, 0xf)
        };
        (@ $insn:literal, $order:literal, $x:ident, $y:ident, $from:ident, $to:ident, $min:ident, $abs:ident,
            $sound:ident, $lanes:literal, $from_256:ident, $to_256:ident, $min_256:ident, $abs_256:ident,
            $sound_256:ident, $lanes_256:literal) => {
            match (entry.width, memory) {
                (16, false) => of!(^ fma_xmm::<3, 16, $order>, xmm_reg, concat!($insn, " {a}, {b}, {z}"), $x, $from, $to,
                    $min, $abs, $sound, $lanes),
                (16, true) => of!(^ fma_xmm::<MEMORY, 16, $order>, xmm_reg, concat!($insn, " {a}, {b}, {z}"), $x, $from,
                    $to, $min, $abs, $sound, $lanes),
                (_, false) => of!(^ fma_ymm::<3, $order>, ymm_reg, concat!($insn, " {a:y}, {b:y}, {z:y}"), $y, $from_256,
                    $to_256, $min_256, $abs_256, $sound_256, $lanes_256),
                (_, true) => of!(^ fma_ymm::<MEMORY, $order>, ymm_reg, concat!($insn, " {a:y}, {b:y}, {z:y}"), $y,
                    $from_256, $to_256, $min_256, $abs_256, $sound_256, $lanes_256),
            }
        };
        (^ $run:expr, $class:ident, $insn:expr, $x:ident, $from:ident, $to:ident, $min:ident, $abs:ident, $sound:ident,
            $lanes:literal) => {
            handler!(|c, o, d| $run(
                c,
                o,
                d,
                |x, y, z| {
                    let (x, y, z) = ($from(x), $from(y), $from(z));
                    let r = $x(x, y, z);
                    ($to(r), $sound($min($min($abs(x), $abs(y)), $abs(z)), r, $lanes))
                },
                |m, a, b, z| under_mxcsr!($insn, $class, |m, a, b, z|)
            ))
        };
        // Scalar: by name and bytes.
        ($insn:literal, $bytes:literal) => {
            if memory {
                handler!(|c, o, d| fma_xmm::<MEMORY, $bytes, 0>(c, o, d, |x, _, _| (x, false), |m, a, b, z| {
                    under_mxcsr!(concat!($insn, " {a}, {b}, {z}"), xmm_reg, |m, a, b, z|)
                }))
            } else {
                handler!(|c, o, d| fma_xmm::<3, 16, 0>(c, o, d, |x, _, _| (x, false), |m, a, b, z| {
                    under_mxcsr!(concat!($insn, " {a}, {b}, {z}"), xmm_reg, |m, a, b, z|)
                }))
            }
        };
    }
    match ins.mnemonic() {
        Vfmadd132ps => of!("vfmadd132ps", 132, ps, _mm_fmadd_ps, _mm256_fmadd_ps),
        Vfmadd213ps => of!("vfmadd213ps", 213, ps, _mm_fmadd_ps, _mm256_fmadd_ps),
        Vfmadd231ps => of!("vfmadd231ps", 231, ps, _mm_fmadd_ps, _mm256_fmadd_ps),
        Vfmadd132pd => of!("vfmadd132pd", 132, pd, _mm_fmadd_pd, _mm256_fmadd_pd),
        Vfmadd213pd => of!("vfmadd213pd", 213, pd, _mm_fmadd_pd, _mm256_fmadd_pd),
        Vfmadd231pd => of!("vfmadd231pd", 231, pd, _mm_fmadd_pd, _mm256_fmadd_pd),
        Vfmadd132ss => of!("vfmadd132ss", 4),
        Vfmadd213ss => of!("vfmadd213ss", 4),
        Vfmadd231ss => of!("vfmadd231ss", 4),
        Vfmadd132sd => of!("vfmadd132sd", 8),
        Vfmadd213sd => of!("vfmadd213sd", 8),
        Vfmadd231sd => of!("vfmadd231sd", 8),
        Vfmsub132ps => of!("vfmsub132ps", 132, ps, _mm_fmsub_ps, _mm256_fmsub_ps),
        Vfmsub213ps => of!("vfmsub213ps", 213, ps, _mm_fmsub_ps, _mm256_fmsub_ps),
        Vfmsub231ps => of!("vfmsub231ps", 231, ps, _mm_fmsub_ps, _mm256_fmsub_ps),
        Vfmsub132pd => of!("vfmsub132pd", 132, pd, _mm_fmsub_pd, _mm256_fmsub_pd),
        Vfmsub213pd => of!("vfmsub213pd", 213, pd, _mm_fmsub_pd, _mm256_fmsub_pd),
        Vfmsub231pd => of!("vfmsub231pd", 231, pd, _mm_fmsub_pd, _mm256_fmsub_pd),
        Vfmsub132ss => of!("vfmsub132ss", 4),
        Vfmsub213ss => of!("vfmsub213ss", 4),
        Vfmsub231ss => of!("vfmsub231ss", 4),
        Vfmsub132sd => of!("vfmsub132sd", 8),
        Vfmsub213sd => of!("vfmsub213sd", 8),
        Vfmsub231sd => of!("vfmsub231sd", 8),
        Vfnmadd132ps => of!("vfnmadd132ps", 132, ps, _mm_fnmadd_ps, _mm256_fnmadd_ps),
        Vfnmadd213ps => of!("vfnmadd213ps", 213, ps, _mm_fnmadd_ps, _mm256_fnmadd_ps),
        Vfnmadd231ps => of!("vfnmadd231ps", 231, ps, _mm_fnmadd_ps, _mm256_fnmadd_ps),
        Vfnmadd132pd => of!("vfnmadd132pd", 132, pd, _mm_fnmadd_pd, _mm256_fnmadd_pd),
        Vfnmadd213pd => of!("vfnmadd213pd", 213, pd, _mm_fnmadd_pd, _mm256_fnmadd_pd),
        Vfnmadd231pd => of!("vfnmadd231pd", 231, pd, _mm_fnmadd_pd, _mm256_fnmadd_pd),
        Vfnmadd132ss => of!("vfnmadd132ss", 4),
        Vfnmadd213ss => of!("vfnmadd213ss", 4),
        Vfnmadd231ss => of!("vfnmadd231ss", 4),
        Vfnmadd132sd => of!("vfnmadd132sd", 8),
        Vfnmadd213sd => of!("vfnmadd213sd", 8),
        Vfnmadd231sd => of!("vfnmadd231sd", 8),
        Vfnmsub132ps => of!("vfnmsub132ps", 132, ps, _mm_fnmsub_ps, _mm256_fnmsub_ps),
        Vfnmsub213ps => of!("vfnmsub213ps", 213, ps, _mm_fnmsub_ps, _mm256_fnmsub_ps),
        Vfnmsub231ps => of!("vfnmsub231ps", 231, ps, _mm_fnmsub_ps, _mm256_fnmsub_ps),
        Vfnmsub132pd => of!("vfnmsub132pd", 132, pd, _mm_fnmsub_pd, _mm256_fnmsub_pd),
        Vfnmsub213pd => of!("vfnmsub213pd", 213, pd, _mm_fnmsub_pd, _mm256_fnmsub_pd),
        Vfnmsub231pd => of!("vfnmsub231pd", 231, pd, _mm_fnmsub_pd, _mm256_fnmsub_pd),
        Vfnmsub132ss => of!("vfnmsub132ss", 4),
        Vfnmsub213ss => of!("vfnmsub213ss", 4),
        Vfnmsub231ss => of!("vfnmsub231ss", 4),
        Vfnmsub132sd => of!("vfnmsub132sd", 8),
        Vfnmsub213sd => of!("vfnmsub213sd", 8),
        Vfnmsub231sd => of!("vfnmsub231sd", 8),
        _ => None,
    }
}
