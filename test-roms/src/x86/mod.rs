//! The x86 guests and their manifest.

mod bench;
mod image;
pub mod kvm;
mod stress;
pub(crate) mod tables;

use crate::Oracle::Qemu;
use crate::{Define, Expected, Kind, Rom};

pub(crate) use bench::Loop;
pub(crate) use stress::{Assembled, Suite};

/// One that QEMU 10.0.2 does not always pass: there CPUID does not order loads behind stores, and of code that one
/// processor changes while others execute it the old form may stay.
const fn strict(
    name: &'static str,
    title: &'static str,
    harts: u32,
    define: fn(&mut Suite) -> Assembled,
) -> Rom {
    Rom { verified: &[], ..stress(name, title, harts, define) }
}

/// A conformance ROM for several processors that lasts as long as it is told to.
const fn stress(
    name: &'static str,
    title: &'static str,
    harts: u32,
    define: fn(&mut Suite) -> Assembled,
) -> Rom {
    Rom {
        name,
        title,
        kind: Kind::Conformance,
        harts,
        cpu: None,
        expected: Expected::Pass,
        operations: None,
        insns_estimate: 1_000_000,
        verified: &[Qemu],
        define: Define::X86(define),
    }
}

/// A benchmark for one processor.
const fn bench(name: &'static str, title: &'static str, insns_estimate: u64, define: Loop) -> Rom {
    Rom {
        name,
        title,
        kind: Kind::Benchmark,
        harts: 1,
        cpu: None,
        expected: Expected::Checksum(define.checksum),
        operations: None,
        insns_estimate,
        verified: &[Qemu],
        define: Define::X86Loop(define),
    }
}

/// The x86 ROMs but for [`tables`].
#[rustfmt::skip] // one row per ROM
pub(crate) static ROMS: &[Rom] = &[
    stress("x86/stress-lock-2", "two processors: every LOCKable form, aligned, in a line, across lines and pages, on a device", 2, stress::forms::define::<2>),
    stress("x86/stress-lock-4", "four processors: every LOCKable form, aligned, in a line, across lines and pages, on a device", 4, stress::forms::define::<4>),
    stress("x86/stress-locks-2", "two processors: ticket, XCHG, BTS and CMPXCHG locks, a stack by CMPXCHG16B", 2, stress::locks::define::<2>),
    stress("x86/stress-locks-4", "four processors: ticket, XCHG, BTS and CMPXCHG locks, a stack by CMPXCHG16B", 4, stress::locks::define::<4>),
    stress("x86/stress-tear-2", "two processors: loads and stores of 2 to 16 bytes are whole", 2, stress::tear::define::<2>),
    stress("x86/stress-tear-4", "four processors: loads and stores of 2 to 16 bytes are whole", 4, stress::tear::define::<4>),
    strict("x86/stress-litmus-2", "two processors: MP, SB, LB, 2+2W, CoRR, with and without fences", 2, stress::litmus::define::<2>),
    strict("x86/stress-litmus-4", "four processors: MP, SB, LB, 2+2W, CoRR, IRIW, with and without fences", 4, stress::litmus::define::<4>),
    stress("x86/stress-shootdown-2", "two processors: pages remapped while in use; INVLPG, CR3, INVPCID by IPI", 2, stress::remote::shootdown::<2>),
    stress("x86/stress-shootdown-4", "four processors: pages remapped while in use; INVLPG, CR3, INVPCID by IPI", 4, stress::remote::shootdown::<4>),
    strict("x86/stress-code-2", "two processors: code patched while in use; IPI, CPUID", 2, stress::remote::code::<2>),
    strict("x86/stress-code-4", "four processors: code patched while in use; IPI, CPUID", 4, stress::remote::code::<4>),
    stress("x86/stress-ipi-2", "two processors: fixed, lowest priority, broadcast IPIs, NMIs, HLT, INIT and start-up", 2, stress::ipi::define::<2>),
    stress("x86/stress-ipi-4", "four processors: fixed, lowest priority, broadcast IPIs, NMIs, HLT, INIT and start-up", 4, stress::ipi::define::<4>),
    bench("x86/bench-int", "64 bits: sums, rotations, a product, a load, a store, a branch", 132_100_000, Loop { bits: 64, rounds: 8_000_000, checksum: 0x918f_03af_becc_edbe, body: bench::integer::wide::int }),
    bench("x86/bench-branchy", "64 bits: calls through a table, branches that no predictor knows", 108_700_000, Loop { bits: 64, rounds: 5_000_000, checksum: 0xdc1e_353c_d48a_2040, body: bench::integer::wide::branchy }),
    bench("x86/bench-mem", "64 bits: loads that depend on loads over 4 MiB, stores over 512 KiB", 110_400_000, Loop { bits: 64, rounds: 8_000_000, checksum: 0x7ccb_aff5_c4a4_8ea7, body: bench::integer::wide::mem }),
    bench("x86/bench-movs", "64 bits: `rep movsd` of 4 KiB, `rep movsb` of 1000 bytes", 3_100_000, Loop { bits: 64, rounds: 300_000, checksum: 0x04cd_5439_c85d_d553, body: bench::strings::movs }),
    bench("x86/bench-stos", "64 bits: `rep stosd` of 4 KiB, `rep stosb` of 1000 bytes", 2_800_000, Loop { bits: 64, rounds: 300_000, checksum: 0x0000_0001_0101_0101, body: bench::strings::stos }),
    bench("x86/bench-scas", "64 bits: `repne scasb`, `repe cmpsb`, `repe scasd` of 1000 steps", 3_500_000, Loop { bits: 64, rounds: 200_000, checksum: 0x689d_d740_0000_0000, body: bench::strings::scas }),
    bench("x86/bench-strings", "64 bits: `rep movsb` of 1 to 16 bytes", 65_100_000, Loop { bits: 64, rounds: 5_000_000, checksum: 0x3453_510e_d48a_2040, body: bench::strings::short }),
    bench("x86/bench-x87", "64 bits: sums, products, quotients, roots and comparisons in 80 bits", 92_100_000, Loop { bits: 64, rounds: 4_000_000, checksum: 0x80e8_cde8_81a4_8946, body: bench::float::x87 }),
    bench("x86/bench-sse", "64 bits: doubles by themselves, four singles at once", 125_100_000, Loop { bits: 64, rounds: 5_000_000, checksum: 0x09eb_3b5b_8bc3_8483, body: bench::float::sse }),
    bench("x86/bench-sse-int", "64 bits: packed integers: sums, products, shuffles, comparisons", 132_100_000, Loop { bits: 64, rounds: 6_000_000, checksum: 0x3b1c_a216_a70d_6e21, body: bench::float::sse_integer_wide }),
    bench("x86/bench-avx", "64 bits: fused multiply-add, integers, shuffles of 256 bits", 104_100_000, Loop { bits: 64, rounds: 8_000_000, checksum: 0x0902_7d43_0080_0000, body: bench::float::avx }),
    bench("x86/bench-int-32", "32 bits: sums, rotations, a product, a load, a store, a branch", 132_100_000, Loop { bits: 32, rounds: 8_000_000, checksum: 0x0e69_6f08_83cf_bffc, body: bench::integer::narrow::int }),
    bench("x86/bench-branchy-32", "32 bits: calls through a table, branches that no predictor knows", 108_700_000, Loop { bits: 32, rounds: 5_000_000, checksum: 0xdc1e_353c_d48a_2040, body: bench::integer::narrow::branchy }),
    bench("x86/bench-mem-32", "32 bits: loads that depend on loads over 4 MiB, stores over 512 KiB", 110_400_000, Loop { bits: 32, rounds: 8_000_000, checksum: 0x7ccb_aff5_c4a4_8ea7, body: bench::integer::narrow::mem }),
    bench("x86/bench-movs-32", "32 bits: `rep movsd` of 4 KiB, `rep movsb` of 1000 bytes", 3_100_000, Loop { bits: 32, rounds: 300_000, checksum: 0x04cd_5439_c85d_d553, body: bench::strings::movs }),
    bench("x86/bench-stos-32", "32 bits: `rep stosd` of 4 KiB, `rep stosb` of 1000 bytes", 2_800_000, Loop { bits: 32, rounds: 300_000, checksum: 0x0000_0001_0101_0101, body: bench::strings::stos }),
    bench("x86/bench-scas-32", "32 bits: `repne scasb`, `repe cmpsb`, `repe scasd` of 1000 steps", 3_500_000, Loop { bits: 32, rounds: 200_000, checksum: 0x689d_d740_0000_0000, body: bench::strings::scas }),
    bench("x86/bench-strings-32", "32 bits: `rep movsb` of 1 to 16 bytes", 65_100_000, Loop { bits: 32, rounds: 5_000_000, checksum: 0x3453_510e_d48a_2040, body: bench::strings::short }),
    bench("x86/bench-x87-32", "32 bits: sums, products, quotients, roots and comparisons in 80 bits", 92_100_000, Loop { bits: 32, rounds: 4_000_000, checksum: 0x80e8_cde8_81a4_8946, body: bench::float::x87 }),
    bench("x86/bench-sse-32", "32 bits: doubles by themselves, four singles at once", 125_100_000, Loop { bits: 32, rounds: 5_000_000, checksum: 0x09eb_3b5b_8bc3_8483, body: bench::float::sse }),
    bench("x86/bench-sse-int-32", "32 bits: packed integers: sums, products, shuffles, comparisons", 132_100_000, Loop { bits: 32, rounds: 6_000_000, checksum: 0x3b1c_a216_a70d_6e21, body: bench::float::sse_integer }),
];
