//! The operation of each mnemonic. Legacy and VEX mnemonics share a row.

use iced_x86::Mnemonic::{self, *};

use super::family::{Family, Form};
use super::fp::Fp;
use super::op::{Lengths, Run};
use super::vector::{V64, V128, V256, Vector};
use super::{CF, Exceptions, ZF, aes, convert, float, fma, integer as int, sha, shift, shuffle};
use crate::softfloat::Quietness::{Quiet, Signalling};

/// [`test!`]'s flags.
fn test<V: Vector>(a: &V, b: &V, mask: u64) -> (u32, Exceptions) {
    let (mut both, mut alone) = (0, 0);
    for (a, b) in a.words().iter().zip(b.words()) {
        both |= a & b & mask;
        alone |= !a & b & mask;
    }
    let flag = |word: u64, flag: u32| if word == 0 { flag } else { 0 };
    (flag(both, ZF) | flag(alone, CF), Exceptions::empty())
}

fn masked(form: Form, element: u8) -> Run {
    if form.store { Run::MaskedStore(element) } else { Run::MaskedLoad(element) }
}

/// The operation of a mnemonic; `None` for one this module does not perform.
pub(super) fn family(mnemonic: Mnemonic, form: Form) -> Option<Family> {
    Some(match mnemonic {
        // Moves.
        Movaps | Vmovaps | Movapd | Vmovapd | Movups | Vmovups | Movupd | Vmovupd | Movdqa
        | Vmovdqa | Movdqu | Vmovdqu | Lddqu | Vlddqu | Movntps | Vmovntps | Movntpd | Vmovntpd
        | Movntdq | Vmovntdq | Movntdqa | Vmovntdqa | Movd | Vmovd => b!(shuffle::mov),
        Movntq => b!(shuffle::mov),
        Movq | Vmovq => b!(shuffle::low_half),
        Movq2dq | Movdq2q => b!(shuffle::low_half),
        Movss | Vmovss if form.memory => b!(shuffle::mov),
        Movss | Vmovss => xmm!(|a, b, _| shuffle::merge::<u32>(a, b)),
        Movsd | Vmovsd if form.memory => b!(shuffle::mov),
        Movsd | Vmovsd => xmm!(|a, b, _| shuffle::merge::<u64>(a, b)),
        Movlps | Movlpd | Vmovlps | Vmovlpd => {
            if form.store {
                b!(shuffle::mov)
            } else {
                xmm!(|a, b, _| shuffle::merge::<u64>(a, b))
            }
        }
        Movhps | Vmovhps | Movhpd | Vmovhpd => {
            if form.store {
                xmm!(|_, b, _| shuffle::high_half(b))
            } else {
                xmm!(|a, b, _| shuffle::movlhps(a, b))
            }
        }
        Movhlps | Vmovhlps => xmm!(|a, b, _| shuffle::movhlps(a, b)),
        Movlhps | Vmovlhps => xmm!(|a, b, _| shuffle::movlhps(a, b)),
        Movshdup | Vmovshdup => b!(|b| shuffle::duplicate::<_, u32>(b, 1)),
        Movsldup | Vmovsldup => b!(|b| shuffle::duplicate::<_, u32>(b, 0)),
        Movddup | Vmovddup => b!(|b| shuffle::duplicate::<_, u64>(b, 0)),
        Movmskps | Vmovmskps => b!(shuffle::signs::<_, i32>),
        Movmskpd | Vmovmskpd => b!(shuffle::signs::<_, i64>),
        Pmovmskb | Vpmovmskb => b!(shuffle::signs::<_, i8>),

        // Masked moves, gathers.
        Maskmovq | Maskmovdqu | Vmaskmovdqu => Family::Other(Run::MaskedStore(1)),
        Vmaskmovps | Vpmaskmovd => Family::Other(masked(form, 4)),
        Vmaskmovpd | Vpmaskmovq => Family::Other(masked(form, 8)),
        Vpgatherdd | Vgatherdps => Family::Other(Run::Gather { element: 4, index: 4, count: 0 }),
        Vpgatherdq | Vgatherdpd => Family::Other(Run::Gather { element: 8, index: 4, count: 0 }),
        Vpgatherqd | Vgatherqps => Family::Other(Run::Gather { element: 4, index: 8, count: 0 }),
        Vpgatherqq | Vgatherqpd => Family::Other(Run::Gather { element: 8, index: 8, count: 0 }),

        // Integers.
        Paddb | Vpaddb => ab!(int::paddb),
        Paddw | Vpaddw => ab!(int::paddw),
        Paddd | Vpaddd => ab!(int::paddd),
        Paddq | Vpaddq => ab!(int::paddq),
        Paddsb | Vpaddsb => ab!(int::paddsb),
        Paddsw | Vpaddsw => ab!(int::paddsw),
        Paddusb | Vpaddusb => ab!(int::paddusb),
        Paddusw | Vpaddusw => ab!(int::paddusw),
        Psubb | Vpsubb => ab!(int::psubb),
        Psubw | Vpsubw => ab!(int::psubw),
        Psubd | Vpsubd => ab!(int::psubd),
        Psubq | Vpsubq => ab!(int::psubq),
        Psubsb | Vpsubsb => ab!(int::psubsb),
        Psubsw | Vpsubsw => ab!(int::psubsw),
        Psubusb | Vpsubusb => ab!(int::psubusb),
        Psubusw | Vpsubusw => ab!(int::psubusw),
        Pmullw | Vpmullw => ab!(int::pmullw),
        Pmulld | Vpmulld => ab!(int::pmulld),
        Pmulhw | Vpmulhw => ab!(int::pmulhw),
        Pmulhuw | Vpmulhuw => ab!(int::pmulhuw),
        Pmulhrsw | Vpmulhrsw => ab!(int::pmulhrsw),
        Pmuludq | Vpmuludq => ab!(int::pmuludq),
        Pmuldq | Vpmuldq => ab!(int::pmuldq),
        Pmaddwd | Vpmaddwd => ab!(int::pmaddwd),
        Pmaddubsw | Vpmaddubsw => ab!(int::pmaddubsw),
        Pavgb | Vpavgb => ab!(int::pavgb),
        Pavgw | Vpavgw => ab!(int::pavgw),
        Psadbw | Vpsadbw => ab!(int::psadbw),
        Pminsb | Vpminsb => ab!(int::pminsb),
        Pminsw | Vpminsw => ab!(int::pminsw),
        Pminsd | Vpminsd => ab!(int::pminsd),
        Pminub | Vpminub => ab!(int::pminub),
        Pminuw | Vpminuw => ab!(int::pminuw),
        Pminud | Vpminud => ab!(int::pminud),
        Pmaxsb | Vpmaxsb => ab!(int::pmaxsb),
        Pmaxsw | Vpmaxsw => ab!(int::pmaxsw),
        Pmaxsd | Vpmaxsd => ab!(int::pmaxsd),
        Pmaxub | Vpmaxub => ab!(int::pmaxub),
        Pmaxuw | Vpmaxuw => ab!(int::pmaxuw),
        Pmaxud | Vpmaxud => ab!(int::pmaxud),
        Pcmpeqb | Vpcmpeqb => ab!(int::pcmpeqb),
        Pcmpeqw | Vpcmpeqw => ab!(int::pcmpeqw),
        Pcmpeqd | Vpcmpeqd => ab!(int::pcmpeqd),
        Pcmpeqq | Vpcmpeqq => ab!(int::pcmpeqq),
        Pcmpgtb | Vpcmpgtb => ab!(int::pcmpgtb),
        Pcmpgtw | Vpcmpgtw => ab!(int::pcmpgtw),
        Pcmpgtd | Vpcmpgtd => ab!(int::pcmpgtd),
        Pcmpgtq | Vpcmpgtq => ab!(int::pcmpgtq),
        Psignb | Vpsignb => ab!(int::psignb),
        Psignw | Vpsignw => ab!(int::psignw),
        Psignd | Vpsignd => ab!(int::psignd),
        Phaddw | Vphaddw => blocks!(int::phaddw),
        Phaddd | Vphaddd => blocks!(int::phaddd),
        Phaddsw | Vphaddsw => blocks!(int::phaddsw),
        Phsubw | Vphsubw => blocks!(int::phsubw),
        Phsubd | Vphsubd => blocks!(int::phsubd),
        Phsubsw | Vphsubsw => blocks!(int::phsubsw),
        Pand | Vpand | Andps | Vandps | Andpd | Vandpd => ab!(int::pand),
        Pandn | Vpandn | Andnps | Vandnps | Andnpd | Vandnpd => ab!(int::pandn),
        Por | Vpor | Orps | Vorps | Orpd | Vorpd => ab!(int::por),
        Pxor | Vpxor | Xorps | Vxorps | Xorpd | Vxorpd => ab!(int::pxor),
        Pabsb | Vpabsb => b!(int::pabsb),
        Pabsw | Vpabsw => b!(int::pabsw),
        Pabsd | Vpabsd => b!(int::pabsd),
        Mpsadbw | Vmpsadbw => abi!(int::mpsadbw),
        Phminposuw | Vphminposuw => xmm!(|_, b, _| int::phminposuw(b)),
        Ptest | Vptest => test!(u64::MAX),
        Vtestps => test!(0x8000_0000_8000_0000),
        Vtestpd => test!(1 << 63),

        // Shifts.
        Psllw | Vpsllw => shift!(form, shift::psllw),
        Pslld | Vpslld => shift!(form, shift::pslld),
        Psllq | Vpsllq => shift!(form, shift::psllq),
        Psrlw | Vpsrlw => shift!(form, shift::psrlw),
        Psrld | Vpsrld => shift!(form, shift::psrld),
        Psrlq | Vpsrlq => shift!(form, shift::psrlq),
        Psraw | Vpsraw => shift!(form, shift::psraw),
        Psrad | Vpsrad => shift!(form, shift::psrad),
        Pslldq | Vpslldq => xmm_blocks!(|a, i| shift::pslldq(a, i)),
        Psrldq | Vpsrldq => xmm_blocks!(|a, i| shift::psrldq(a, i)),
        Vpsllvd => ab!(shift::vpsllvd),
        Vpsllvq => ab!(shift::vpsllvq),
        Vpsrlvd => ab!(shift::vpsrlvd),
        Vpsrlvq => ab!(shift::vpsrlvq),
        Vpsravd => ab!(shift::vpsravd),

        // Lanes moved.
        Punpcklbw | Vpunpcklbw => blocks!(shuffle::unpack_low::<_, u8>),
        Punpcklwd | Vpunpcklwd => blocks!(shuffle::unpack_low::<_, u16>),
        Punpckldq | Vpunpckldq | Unpcklps | Vunpcklps => blocks!(shuffle::unpack_low::<_, u32>),
        Punpcklqdq | Vpunpcklqdq | Unpcklpd | Vunpcklpd => blocks!(shuffle::unpack_low::<_, u64>),
        Punpckhbw | Vpunpckhbw => blocks!(shuffle::unpack_high::<_, u8>),
        Punpckhwd | Vpunpckhwd => blocks!(shuffle::unpack_high::<_, u16>),
        Punpckhdq | Vpunpckhdq | Unpckhps | Vunpckhps => blocks!(shuffle::unpack_high::<_, u32>),
        Punpckhqdq | Vpunpckhqdq | Unpckhpd | Vunpckhpd => blocks!(shuffle::unpack_high::<_, u64>),
        Packsswb | Vpacksswb => blocks!(shuffle::packsswb),
        Packssdw | Vpackssdw => blocks!(shuffle::packssdw),
        Packuswb | Vpackuswb => blocks!(shuffle::packuswb),
        Packusdw | Vpackusdw => blocks!(shuffle::packusdw),
        Pshufw => bi!(shuffle::shuffle4::<_, u16>),
        Pshufd | Vpshufd => bi!(shuffle::shuffle4::<_, u32>),
        Pshuflw | Vpshuflw => bi!(shuffle::pshuflw),
        Pshufhw | Vpshufhw => bi!(shuffle::pshufhw),
        Pshufb | Vpshufb => blocks!(shuffle::pshufb),
        Shufps | Vshufps => abi!(shuffle::shufps),
        Shufpd | Vshufpd => abi!(shuffle::shufpd),
        Palignr | Vpalignr => blocks!(|a, b, i| shuffle::palignr(a, b, i)),
        Blendps | Vblendps => abi!(shuffle::blend::<_, u32>),
        Blendpd | Vblendpd => abi!(shuffle::blend::<_, u64>),
        Pblendw | Vpblendw => abi!(shuffle::blend::<_, u16>),
        Vpblendd => abi!(shuffle::blend::<_, u32>),
        Pblendvb | Vpblendvb => int3!(|a, b, c| shuffle::pblendvb(a, b, c)),
        Blendvps | Vblendvps => int3!(|a, b, c| shuffle::blendvps(a, b, c)),
        Blendvpd | Vblendvpd => int3!(|a, b, c| shuffle::blendvpd(a, b, c)),
        Insertps | Vinsertps if form.memory => xmm!(|a, b, i| shuffle::insertps_memory(a, b, i)),
        Insertps | Vinsertps => xmm!(|a, b, i| shuffle::insertps(a, b, i)),
        Pinsrb | Vpinsrb => abi!(shuffle::insert::<_, u8>),
        Pinsrw | Vpinsrw => abi!(shuffle::insert::<_, u16>),
        Pinsrd | Vpinsrd => abi!(shuffle::insert::<_, u32>),
        Pinsrq | Vpinsrq => abi!(shuffle::insert::<_, u64>),
        Pextrb | Vpextrb => bi!(shuffle::extract::<_, u8>),
        Pextrw | Vpextrw => bi!(shuffle::extract::<_, u16>),
        Pextrd | Vpextrd | Extractps | Vextractps => bi!(shuffle::extract::<_, u32>),
        Pextrq | Vpextrq => bi!(shuffle::extract::<_, u64>),
        Pmovsxbw | Vpmovsxbw => b!(shuffle::extend::<_, i8, i16>),
        Pmovsxbd | Vpmovsxbd => b!(shuffle::extend::<_, i8, i32>),
        Pmovsxbq | Vpmovsxbq => b!(shuffle::extend::<_, i8, i64>),
        Pmovsxwd | Vpmovsxwd => b!(shuffle::extend::<_, i16, i32>),
        Pmovsxwq | Vpmovsxwq => b!(shuffle::extend::<_, i16, i64>),
        Pmovsxdq | Vpmovsxdq => b!(shuffle::extend::<_, i32, i64>),
        Pmovzxbw | Vpmovzxbw => b!(shuffle::extend::<_, u8, u16>),
        Pmovzxbd | Vpmovzxbd => b!(shuffle::extend::<_, u8, u32>),
        Pmovzxbq | Vpmovzxbq => b!(shuffle::extend::<_, u8, u64>),
        Pmovzxwd | Vpmovzxwd => b!(shuffle::extend::<_, u16, u32>),
        Pmovzxwq | Vpmovzxwq => b!(shuffle::extend::<_, u16, u64>),
        Pmovzxdq | Vpmovzxdq => b!(shuffle::extend::<_, u32, u64>),
        Vpbroadcastb => b!(shuffle::broadcast::<_, u8>),
        Vpbroadcastw => b!(shuffle::broadcast::<_, u16>),
        Vpbroadcastd | Vbroadcastss => b!(shuffle::broadcast::<_, u32>),
        Vpbroadcastq | Vbroadcastsd => b!(shuffle::broadcast::<_, u64>),
        Vbroadcastf128 | Vbroadcasti128 => ymm!(|_, b, _| shuffle::broadcast128(b)),
        Vinsertf128 | Vinserti128 => ymm!(|a, b, i| shuffle::insert128(a, b, i)),
        Vextractf128 | Vextracti128 => ymm!(|_, b, i| shuffle::extract128(b, i)),
        Vperm2f128 | Vperm2i128 => ymm!(|a, b, i| shuffle::vperm2f128(a, b, i)),
        Vpermd | Vpermps => ymm!(|a, b, _| shuffle::vpermd(a, b)),
        Vpermq | Vpermpd => ymm!(|_, b, i| shuffle::shuffle4::<_, u64>(b, i)),
        Vpermilps if form.vector_count => ab!(shuffle::vpermilps),
        Vpermilps => bi!(shuffle::shuffle4::<_, u32>),
        Vpermilpd if form.vector_count => ab!(shuffle::vpermilpd),
        Vpermilpd => bi!(shuffle::vpermilpd_imm),

        // Cryptography, checksums, strings.
        Aesenc | Vaesenc => xmm!(|a, b, _| aes::aesenc(a, b)),
        Aesenclast | Vaesenclast => xmm!(|a, b, _| aes::aesenclast(a, b)),
        Aesdec | Vaesdec => xmm!(|a, b, _| aes::aesdec(a, b)),
        Aesdeclast | Vaesdeclast => xmm!(|a, b, _| aes::aesdeclast(a, b)),
        Aesimc | Vaesimc => xmm!(|_, b, _| aes::aesimc(b)),
        Aeskeygenassist | Vaeskeygenassist => xmm!(|_, b, i| aes::aeskeygenassist(b, i)),
        Pclmulqdq | Vpclmulqdq => xmm!(|a, b, i| shuffle::pclmulqdq(a, b, i)),
        Sha1nexte => xmm!(|a, b, _| sha::sha1nexte(a, b)),
        Sha1msg1 => xmm!(|a, b, _| sha::sha1msg1(a, b)),
        Sha1msg2 => xmm!(|a, b, _| sha::sha1msg2(a, b)),
        Sha256msg1 => xmm!(|a, b, _| sha::sha256msg1(a, b)),
        Sha256msg2 => xmm!(|a, b, _| sha::sha256msg2(a, b)),
        Sha1rnds4 => xmm!(|a, b, i| sha::sha1rnds4(a, b, i)),
        Sha256rnds2 => Family::Int3(
            [|x, y, z| sha::sha256rnds2(V128::low(x), V128::low(y), V128::low(z)).put(x); 3],
        ),
        Crc32 => Family::Other(Run::Crc32(0)),
        Pcmpistri | Vpcmpistri => Family::Other(Run::StringIndex(Lengths::Implicit)),
        Pcmpistrm | Vpcmpistrm => Family::Other(Run::StringMask(Lengths::Implicit)),
        Pcmpestri | Vpcmpestri => Family::Other(Run::StringIndex(Lengths::Explicit32)),
        Pcmpestrm | Vpcmpestrm => Family::Other(Run::StringMask(Lengths::Explicit32)),
        Pcmpestri64 | Vpcmpestri64 => Family::Other(Run::StringIndex(Lengths::Explicit64)),
        Pcmpestrm64 | Vpcmpestrm64 => Family::Other(Run::StringMask(Lengths::Explicit64)),

        // Floating point.
        Addps | Vaddps => packed!(float::add::<f32, _>),
        Addss | Vaddss => scalar!(float::add_scalar::<f32, _>),
        Addpd | Vaddpd => packed!(float::add::<f64, _>),
        Addsd | Vaddsd => scalar!(float::add_scalar::<f64, _>),
        Subps | Vsubps => packed!(float::sub::<f32, _>),
        Subss | Vsubss => scalar!(float::sub_scalar::<f32, _>),
        Subpd | Vsubpd => packed!(float::sub::<f64, _>),
        Subsd | Vsubsd => scalar!(float::sub_scalar::<f64, _>),
        Mulps | Vmulps => packed!(float::mul::<f32, _>),
        Mulss | Vmulss => scalar!(float::mul_scalar::<f32, _>),
        Mulpd | Vmulpd => packed!(float::mul::<f64, _>),
        Mulsd | Vmulsd => scalar!(float::mul_scalar::<f64, _>),
        Divps | Vdivps => packed!(float::div::<f32, _>),
        Divss | Vdivss => scalar!(float::div_scalar::<f32, _>),
        Divpd | Vdivpd => packed!(float::div::<f64, _>),
        Divsd | Vdivsd => scalar!(float::div_scalar::<f64, _>),
        Minps | Vminps => packed!(float::min::<f32, _>),
        Minss | Vminss => scalar!(float::min_scalar::<f32, _>),
        Minpd | Vminpd => packed!(float::min::<f64, _>),
        Minsd | Vminsd => scalar!(float::min_scalar::<f64, _>),
        Maxps | Vmaxps => packed!(float::max::<f32, _>),
        Maxss | Vmaxss => scalar!(float::max_scalar::<f32, _>),
        Maxpd | Vmaxpd => packed!(float::max::<f64, _>),
        Maxsd | Vmaxsd => scalar!(float::max_scalar::<f64, _>),
        Sqrtps | Vsqrtps => packed!(|fp, _, b, _| float::sqrt::<f32, _>(fp, b)),
        Sqrtss | Vsqrtss => scalar!(float::sqrt_scalar::<f32, _>),
        Haddps | Vhaddps => packed!(float::hadd::<f32, _>),
        Hsubps | Vhsubps => packed!(float::hsub::<f32, _>),
        Addsubps | Vaddsubps => packed!(float::addsub::<f32, _>),
        Dpps | Vdpps => packed!(|fp, a, b, i| float::dp::<f32, _>(fp, a, b, i)),
        Roundps | Vroundps => packed!(|fp, _, b, i| float::round::<f32, _>(fp, b, i)),
        Roundss | Vroundss => scalar!(|fp, a, b, i| float::round_scalar::<f32, _>(fp, a, b, i)),
        Cmpps => packed!(|fp, a, b, i| float::cmp::<f32, _>(fp, a, b, i & 7)),
        Vcmpps => packed!(|fp, a, b, i| float::cmp::<f32, _>(fp, a, b, i & 31)),
        Cmpss => scalar!(|fp, a, b, i| float::cmp_scalar::<f32, _>(fp, a, b, i & 7)),
        Vcmpss => scalar!(|fp, a, b, i| float::cmp_scalar::<f32, _>(fp, a, b, i & 31)),
        Comiss | Vcomiss => comis!(f32, Signalling),
        Ucomiss | Vucomiss => comis!(f32, Quiet),
        Sqrtpd | Vsqrtpd => packed!(|fp, _, b, _| float::sqrt::<f64, _>(fp, b)),
        Sqrtsd | Vsqrtsd => scalar!(float::sqrt_scalar::<f64, _>),
        Haddpd | Vhaddpd => packed!(float::hadd::<f64, _>),
        Hsubpd | Vhsubpd => packed!(float::hsub::<f64, _>),
        Addsubpd | Vaddsubpd => packed!(float::addsub::<f64, _>),
        Dppd | Vdppd => packed!(|fp, a, b, i| float::dp::<f64, _>(fp, a, b, i)),
        Roundpd | Vroundpd => packed!(|fp, _, b, i| float::round::<f64, _>(fp, b, i)),
        Roundsd | Vroundsd => scalar!(|fp, a, b, i| float::round_scalar::<f64, _>(fp, a, b, i)),
        Cmppd => packed!(|fp, a, b, i| float::cmp::<f64, _>(fp, a, b, i & 7)),
        Vcmppd => packed!(|fp, a, b, i| float::cmp::<f64, _>(fp, a, b, i & 31)),
        Cmpsd => scalar!(|fp, a, b, i| float::cmp_scalar::<f64, _>(fp, a, b, i & 7)),
        Vcmpsd => scalar!(|fp, a, b, i| float::cmp_scalar::<f64, _>(fp, a, b, i & 31)),
        Comisd | Vcomisd => comis!(f64, Signalling),
        Ucomisd | Vucomisd => comis!(f64, Quiet),
        Rcpps | Vrcpps => b!(float::rcpps),
        Rcpss | Vrcpss => xmm!(|a, b, _| float::rcpss(a, b)),
        Rsqrtps | Vrsqrtps => b!(float::rsqrtps),
        Rsqrtss | Vrsqrtss => xmm!(|a, b, _| float::rsqrtss(a, b)),

        // Conversions.
        Cvtdq2ps | Vcvtdq2ps => packed!(|fp, _, b, _| convert::dq2ps(fp, b)),
        Cvtdq2pd | Vcvtdq2pd => b!(convert::dq2pd),
        Cvtpi2pd => xmm!(|_, b, _| convert::dq2pd(b)),
        Cvtpi2ps => scalar!(convert::pi2ps),
        Cvtps2dq | Vcvtps2dq => packed!(|fp, _, b, _| convert::ps2dq(fp, b, false)),
        Cvttps2dq | Vcvttps2dq => packed!(|fp, _, b, _| convert::ps2dq(fp, b, true)),
        Cvtps2pi => Family::Fp([fp_fn!(V64, |fp, _, b, _| convert::ps2dq(fp, b, false)); 3]),
        Cvttps2pi => Family::Fp([fp_fn!(V64, |fp, _, b, _| convert::ps2dq(fp, b, true)); 3]),
        Cvtpd2dq | Vcvtpd2dq => packed!(|fp, _, b, _| convert::pd2dq(fp, b, false)),
        Cvttpd2dq | Vcvttpd2dq => packed!(|fp, _, b, _| convert::pd2dq(fp, b, true)),
        Cvtpd2pi => scalar!(|fp, _, b, _| convert::pd2dq(fp, b, false)),
        Cvttpd2pi => scalar!(|fp, _, b, _| convert::pd2dq(fp, b, true)),
        Cvtps2pd | Vcvtps2pd => packed!(|fp, _, b, _| convert::ps2pd(fp, b)),
        Cvtpd2ps | Vcvtpd2ps => packed!(|fp, _, b, _| convert::pd2ps(fp, b)),
        Cvtss2sd | Vcvtss2sd => scalar!(convert::ss2sd),
        Cvtsd2ss | Vcvtsd2ss => scalar!(convert::sd2ss),
        Cvtss2si | Vcvtss2si if form.wide => {
            scalar!(|fp, _, b, _| convert::scalar_to_int::<f32, i64>(fp, b, false))
        }
        Cvtss2si | Vcvtss2si => {
            scalar!(|fp, _, b, _| convert::scalar_to_int::<f32, i32>(fp, b, false))
        }
        Cvttss2si | Vcvttss2si if form.wide => {
            scalar!(|fp, _, b, _| convert::scalar_to_int::<f32, i64>(fp, b, true))
        }
        Cvttss2si | Vcvttss2si => {
            scalar!(|fp, _, b, _| convert::scalar_to_int::<f32, i32>(fp, b, true))
        }
        Cvtsd2si | Vcvtsd2si if form.wide => {
            scalar!(|fp, _, b, _| convert::scalar_to_int::<f64, i64>(fp, b, false))
        }
        Cvtsd2si | Vcvtsd2si => {
            scalar!(|fp, _, b, _| convert::scalar_to_int::<f64, i32>(fp, b, false))
        }
        Cvttsd2si | Vcvttsd2si if form.wide => {
            scalar!(|fp, _, b, _| convert::scalar_to_int::<f64, i64>(fp, b, true))
        }
        Cvttsd2si | Vcvttsd2si => {
            scalar!(|fp, _, b, _| convert::scalar_to_int::<f64, i32>(fp, b, true))
        }
        Cvtsi2ss | Vcvtsi2ss if form.wide => scalar!(convert::si2ss64),
        Cvtsi2ss | Vcvtsi2ss => scalar!(convert::si2ss),
        Cvtsi2sd | Vcvtsi2sd if form.wide => scalar!(convert::si2sd64),
        Cvtsi2sd | Vcvtsi2sd => xmm!(|a, b, _| convert::si2sd(a, b)),
        Vcvtph2ps => packed!(|fp, _, b, _| convert::ph2ps(fp, b)),
        Vcvtps2ph => Family::Fp([
            fp_fn!(V256, |fp, _, b, i| convert::ps2ph(fp, b, i, 4)),
            fp_fn!(V256, |fp, _, b, i| convert::ps2ph(fp, b, i, 4)),
            fp_fn!(V256, |fp, _, b, i| convert::ps2ph(fp, b, i, 8)),
        ]),

        // FMA.
        Vfmadd132ps => fma!(packed, FMADD, f32, F132),
        Vfmadd132ss => fma!(scalar, FMADD, f32, F132),
        Vfmadd132pd => fma!(packed, FMADD, f64, F132),
        Vfmadd132sd => fma!(scalar, FMADD, f64, F132),
        Vfmadd213ps => fma!(packed, FMADD, f32, F213),
        Vfmadd213ss => fma!(scalar, FMADD, f32, F213),
        Vfmadd213pd => fma!(packed, FMADD, f64, F213),
        Vfmadd213sd => fma!(scalar, FMADD, f64, F213),
        Vfmadd231ps => fma!(packed, FMADD, f32, F231),
        Vfmadd231ss => fma!(scalar, FMADD, f32, F231),
        Vfmadd231pd => fma!(packed, FMADD, f64, F231),
        Vfmadd231sd => fma!(scalar, FMADD, f64, F231),
        Vfmsub132ps => fma!(packed, FMSUB, f32, F132),
        Vfmsub132ss => fma!(scalar, FMSUB, f32, F132),
        Vfmsub132pd => fma!(packed, FMSUB, f64, F132),
        Vfmsub132sd => fma!(scalar, FMSUB, f64, F132),
        Vfmsub213ps => fma!(packed, FMSUB, f32, F213),
        Vfmsub213ss => fma!(scalar, FMSUB, f32, F213),
        Vfmsub213pd => fma!(packed, FMSUB, f64, F213),
        Vfmsub213sd => fma!(scalar, FMSUB, f64, F213),
        Vfmsub231ps => fma!(packed, FMSUB, f32, F231),
        Vfmsub231ss => fma!(scalar, FMSUB, f32, F231),
        Vfmsub231pd => fma!(packed, FMSUB, f64, F231),
        Vfmsub231sd => fma!(scalar, FMSUB, f64, F231),
        Vfnmadd132ps => fma!(packed, FNMADD, f32, F132),
        Vfnmadd132ss => fma!(scalar, FNMADD, f32, F132),
        Vfnmadd132pd => fma!(packed, FNMADD, f64, F132),
        Vfnmadd132sd => fma!(scalar, FNMADD, f64, F132),
        Vfnmadd213ps => fma!(packed, FNMADD, f32, F213),
        Vfnmadd213ss => fma!(scalar, FNMADD, f32, F213),
        Vfnmadd213pd => fma!(packed, FNMADD, f64, F213),
        Vfnmadd213sd => fma!(scalar, FNMADD, f64, F213),
        Vfnmadd231ps => fma!(packed, FNMADD, f32, F231),
        Vfnmadd231ss => fma!(scalar, FNMADD, f32, F231),
        Vfnmadd231pd => fma!(packed, FNMADD, f64, F231),
        Vfnmadd231sd => fma!(scalar, FNMADD, f64, F231),
        Vfnmsub132ps => fma!(packed, FNMSUB, f32, F132),
        Vfnmsub132ss => fma!(scalar, FNMSUB, f32, F132),
        Vfnmsub132pd => fma!(packed, FNMSUB, f64, F132),
        Vfnmsub132sd => fma!(scalar, FNMSUB, f64, F132),
        Vfnmsub213ps => fma!(packed, FNMSUB, f32, F213),
        Vfnmsub213ss => fma!(scalar, FNMSUB, f32, F213),
        Vfnmsub213pd => fma!(packed, FNMSUB, f64, F213),
        Vfnmsub213sd => fma!(scalar, FNMSUB, f64, F213),
        Vfnmsub231ps => fma!(packed, FNMSUB, f32, F231),
        Vfnmsub231ss => fma!(scalar, FNMSUB, f32, F231),
        Vfnmsub231pd => fma!(packed, FNMSUB, f64, F231),
        Vfnmsub231sd => fma!(scalar, FNMSUB, f64, F231),
        Vfmaddsub132ps => fma!(packed, FMADDSUB, f32, F132),
        Vfmaddsub132pd => fma!(packed, FMADDSUB, f64, F132),
        Vfmaddsub213ps => fma!(packed, FMADDSUB, f32, F213),
        Vfmaddsub213pd => fma!(packed, FMADDSUB, f64, F213),
        Vfmaddsub231ps => fma!(packed, FMADDSUB, f32, F231),
        Vfmaddsub231pd => fma!(packed, FMADDSUB, f64, F231),
        Vfmsubadd132ps => fma!(packed, FMSUBADD, f32, F132),
        Vfmsubadd132pd => fma!(packed, FMSUBADD, f64, F132),
        Vfmsubadd213ps => fma!(packed, FMSUBADD, f32, F213),
        Vfmsubadd213pd => fma!(packed, FMSUBADD, f64, F213),
        Vfmsubadd231ps => fma!(packed, FMSUBADD, f32, F231),
        Vfmsubadd231pd => fma!(packed, FMSUBADD, f64, F231),
        _ => return None,
    })
}
