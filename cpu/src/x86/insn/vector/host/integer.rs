//! Packed integers, and the operations on bits.

use std::arch::x86_64::*;

use iced_x86::Mnemonic::*;

use super::{MEMORY, run_xmm, run_ymm, shape};
use crate::x86::core::Core;
use crate::x86::decode::{Handler, Ins, Op};
use crate::x86::insn::CodeCache;
use crate::x86::simd::SimdOp;

/// A shift of lanes by an immediate, or by a vector's low half.
macro_rules! shift {
    ($shape:ident, $x:ident, $y:ident) => {
        alone!($shape, |a, _, i| $x(a, _mm_cvtsi32_si128(i.into())), |a, _, i| $y(
            a,
            _mm_cvtsi32_si128(i.into())
        ))
    };
}

/// The choices of an immediate, two bits for each of four lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn choices(imm: u8) -> __m128i {
    _mm_srlv_epi32(_mm_set1_epi32(imm.into()), _mm_setr_epi32(0, 2, 4, 6))
}

#[inline]
#[target_feature(enable = "avx2")]
fn choices_256(imm: u8) -> __m256i {
    _mm256_broadcastsi128_si256(choices(imm))
}

#[inline]
#[target_feature(enable = "avx2")]
fn shuffle4(b: __m128i, imm: u8) -> __m128i {
    _mm_castps_si128(_mm_permutevar_ps(_mm_castsi128_ps(b), choices(imm)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn shuffle4_256(b: __m256i, imm: u8) -> __m256i {
    _mm256_castps_si256(_mm256_permutevar_ps(_mm256_castsi256_ps(b), choices_256(imm)))
}

/// VPERMQ.
#[inline]
#[target_feature(enable = "avx2")]
fn permute_words(b: __m256i, imm: u8) -> __m256i {
    let shifts = _mm256_setr_epi32(0, 0, 2, 2, 4, 4, 6, 6);
    let chosen = _mm256_srlv_epi32(_mm256_set1_epi32(imm.into()), shifts);
    let chosen = _mm256_and_si256(chosen, _mm256_set1_epi32(3));
    let halves = _mm256_setr_epi32(0, 1, 0, 1, 0, 1, 0, 1);
    _mm256_permutevar8x32_epi32(b, _mm256_add_epi32(_mm256_add_epi32(chosen, chosen), halves))
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn lookup(ins: &Ins, entry: &SimdOp) -> Option<Handler> {
    let shape = shape(ins, entry)?;
    match ins.mnemonic() {
        Paddb | Vpaddb => pair!(shape, _mm_add_epi8, _mm256_add_epi8),
        Paddw | Vpaddw => pair!(shape, _mm_add_epi16, _mm256_add_epi16),
        Paddd | Vpaddd => pair!(shape, _mm_add_epi32, _mm256_add_epi32),
        Paddq | Vpaddq => pair!(shape, _mm_add_epi64, _mm256_add_epi64),
        Psubb | Vpsubb => pair!(shape, _mm_sub_epi8, _mm256_sub_epi8),
        Psubw | Vpsubw => pair!(shape, _mm_sub_epi16, _mm256_sub_epi16),
        Psubd | Vpsubd => pair!(shape, _mm_sub_epi32, _mm256_sub_epi32),
        Psubq | Vpsubq => pair!(shape, _mm_sub_epi64, _mm256_sub_epi64),
        Paddusb | Vpaddusb => pair!(shape, _mm_adds_epu8, _mm256_adds_epu8),
        Psubusb | Vpsubusb => pair!(shape, _mm_subs_epu8, _mm256_subs_epu8),
        Pmullw | Vpmullw => pair!(shape, _mm_mullo_epi16, _mm256_mullo_epi16),
        Pmulld | Vpmulld => pair!(shape, _mm_mullo_epi32, _mm256_mullo_epi32),
        Pmulhw | Vpmulhw => pair!(shape, _mm_mulhi_epi16, _mm256_mulhi_epi16),
        Pmulhuw | Vpmulhuw => pair!(shape, _mm_mulhi_epu16, _mm256_mulhi_epu16),
        Pmuludq | Vpmuludq => pair!(shape, _mm_mul_epu32, _mm256_mul_epu32),
        Pmaddwd | Vpmaddwd => pair!(shape, _mm_madd_epi16, _mm256_madd_epi16),
        Pmaddubsw | Vpmaddubsw => pair!(shape, _mm_maddubs_epi16, _mm256_maddubs_epi16),
        Psadbw | Vpsadbw => pair!(shape, _mm_sad_epu8, _mm256_sad_epu8),
        Pavgb | Vpavgb => pair!(shape, _mm_avg_epu8, _mm256_avg_epu8),
        Pminub | Vpminub => pair!(shape, _mm_min_epu8, _mm256_min_epu8),
        Pmaxub | Vpmaxub => pair!(shape, _mm_max_epu8, _mm256_max_epu8),
        Pminsw | Vpminsw => pair!(shape, _mm_min_epi16, _mm256_min_epi16),
        Pmaxsw | Vpmaxsw => pair!(shape, _mm_max_epi16, _mm256_max_epi16),
        Pminsd | Vpminsd => pair!(shape, _mm_min_epi32, _mm256_min_epi32),
        Pmaxsd | Vpmaxsd => pair!(shape, _mm_max_epi32, _mm256_max_epi32),
        Pminud | Vpminud => pair!(shape, _mm_min_epu32, _mm256_min_epu32),
        Pmaxud | Vpmaxud => pair!(shape, _mm_max_epu32, _mm256_max_epu32),
        Pcmpeqb | Vpcmpeqb => pair!(shape, _mm_cmpeq_epi8, _mm256_cmpeq_epi8),
        Pcmpeqw | Vpcmpeqw => pair!(shape, _mm_cmpeq_epi16, _mm256_cmpeq_epi16),
        Pcmpeqd | Vpcmpeqd => pair!(shape, _mm_cmpeq_epi32, _mm256_cmpeq_epi32),
        Pcmpeqq | Vpcmpeqq => pair!(shape, _mm_cmpeq_epi64, _mm256_cmpeq_epi64),
        Pcmpgtb | Vpcmpgtb => pair!(shape, _mm_cmpgt_epi8, _mm256_cmpgt_epi8),
        Pcmpgtw | Vpcmpgtw => pair!(shape, _mm_cmpgt_epi16, _mm256_cmpgt_epi16),
        Pcmpgtd | Vpcmpgtd => pair!(shape, _mm_cmpgt_epi32, _mm256_cmpgt_epi32),
        Pand | Vpand | Andps | Vandps | Andpd | Vandpd => {
            pair!(shape, _mm_and_si128, _mm256_and_si256)
        }
        Pandn | Vpandn | Andnps | Vandnps | Andnpd | Vandnpd => {
            pair!(shape, _mm_andnot_si128, _mm256_andnot_si256)
        }
        Por | Vpor | Orps | Vorps | Orpd | Vorpd => pair!(shape, _mm_or_si128, _mm256_or_si256),
        Pxor | Vpxor | Xorps | Vxorps | Xorpd | Vxorpd => {
            pair!(shape, _mm_xor_si128, _mm256_xor_si256)
        }
        Punpcklbw | Vpunpcklbw => pair!(shape, _mm_unpacklo_epi8, _mm256_unpacklo_epi8),
        Punpcklwd | Vpunpcklwd => pair!(shape, _mm_unpacklo_epi16, _mm256_unpacklo_epi16),
        Punpckldq | Vpunpckldq | Unpcklps | Vunpcklps => {
            pair!(shape, _mm_unpacklo_epi32, _mm256_unpacklo_epi32)
        }
        Punpcklqdq | Vpunpcklqdq | Unpcklpd | Vunpcklpd => {
            pair!(shape, _mm_unpacklo_epi64, _mm256_unpacklo_epi64)
        }
        Punpckhbw | Vpunpckhbw => pair!(shape, _mm_unpackhi_epi8, _mm256_unpackhi_epi8),
        Punpckhwd | Vpunpckhwd => pair!(shape, _mm_unpackhi_epi16, _mm256_unpackhi_epi16),
        Punpckhdq | Vpunpckhdq | Unpckhps | Vunpckhps => {
            pair!(shape, _mm_unpackhi_epi32, _mm256_unpackhi_epi32)
        }
        Punpckhqdq | Vpunpckhqdq | Unpckhpd | Vunpckhpd => {
            pair!(shape, _mm_unpackhi_epi64, _mm256_unpackhi_epi64)
        }
        Packsswb | Vpacksswb => pair!(shape, _mm_packs_epi16, _mm256_packs_epi16),
        Packssdw | Vpackssdw => pair!(shape, _mm_packs_epi32, _mm256_packs_epi32),
        Packuswb | Vpackuswb => pair!(shape, _mm_packus_epi16, _mm256_packus_epi16),
        Pshufb | Vpshufb => pair!(shape, _mm_shuffle_epi8, _mm256_shuffle_epi8),
        Psllw | Vpsllw => shift!(shape, _mm_sll_epi16, _mm256_sll_epi16),
        Pslld | Vpslld => shift!(shape, _mm_sll_epi32, _mm256_sll_epi32),
        Psllq | Vpsllq => shift!(shape, _mm_sll_epi64, _mm256_sll_epi64),
        Psrlw | Vpsrlw => shift!(shape, _mm_srl_epi16, _mm256_srl_epi16),
        Psrld | Vpsrld => shift!(shape, _mm_srl_epi32, _mm256_srl_epi32),
        Psrlq | Vpsrlq => shift!(shape, _mm_srl_epi64, _mm256_srl_epi64),
        Psraw | Vpsraw => shift!(shape, _mm_sra_epi16, _mm256_sra_epi16),
        Psrad | Vpsrad => shift!(shape, _mm_sra_epi32, _mm256_sra_epi32),
        Pshufd | Vpshufd => b!(shape, |_, b, i| shuffle4(b, i), |_, b, i| shuffle4_256(b, i)),
        Shufps | Vshufps => ab!(
            shape,
            |a, b, i| _mm_blend_epi32::<0b1100>(shuffle4(a, i), shuffle4(b, i)),
            |a, b, i| _mm256_blend_epi32::<0b1100_1100>(shuffle4_256(a, i), shuffle4_256(b, i))
        ),
        Vpermq | Vpermpd if shape.ymm => {
            b!(shape, |_, b, _| b, |_, b, i| permute_words(b, i))
        }
        _ => None,
    }
}
