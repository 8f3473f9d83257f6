//! The manifest of the RV64 guests.

mod a;
mod bench;
mod c;
mod cbo;
mod costs;
mod counters;
mod float;
mod fp;
mod i;
mod interrupts;
mod m;
mod operands;
mod page;
mod paging;
mod pmp;
mod process;
mod smc;
mod smp;
mod spaces;
mod stress;
mod traps;
mod zb;
mod zicsr;

use crate::Oracle::{Qemu, Spike};
use crate::suite::Suite;
use crate::{Define, Expected, Kind, Oracle, Rom};

/// Both oracles.
const BOTH: &[Oracle] = &[Spike, Qemu];

/// A conformance ROM for one hart.
const fn checks(
    name: &'static str,
    title: &'static str,
    insns_estimate: u64,
    verified: &'static [Oracle],
    define: fn(&mut Suite),
) -> Rom {
    let (kind, expected) = (Kind::Conformance, Expected::Pass);
    Rom {
        name,
        title,
        kind,
        harts: 1,
        cpu: None,
        operations: None,
        expected,
        insns_estimate,
        verified,
        define: Define::Rv64(define),
    }
}

/// A conformance ROM for several harts that lasts as long as it is told to.
const fn stress(
    name: &'static str,
    title: &'static str,
    harts: u32,
    insns_estimate: u64,
    define: fn(&mut Suite),
) -> Rom {
    Rom { harts, ..checks(name, title, insns_estimate, BOTH, define) }
}

/// A benchmark for one hart.
const fn bench(
    name: &'static str,
    title: &'static str,
    insns_estimate: u64,
    checksum: u64,
    define: fn(&mut Suite),
) -> Rom {
    let (kind, expected) = (Kind::Benchmark, Expected::Checksum(checksum));
    Rom { kind, expected, ..checks(name, title, insns_estimate, BOTH, define) }
}

/// A benchmark of a single cost: the operation is done so often.
const fn cost(
    name: &'static str,
    title: &'static str,
    operations: u64,
    insns_per_operation: u64,
    checksum: u64,
    define: fn(&mut Suite),
) -> Rom {
    let insns_estimate = operations * insns_per_operation;
    Rom { operations: Some(operations), ..bench(name, title, insns_estimate, checksum, define) }
}

/// All RV64 ROMs.
#[rustfmt::skip] // one row per ROM
pub(crate) static ROMS: &[Rom] = &[
    checks("rv64/i", "RV64I: every instruction, edge operands, misaligned accesses", 580_000, BOTH, i::define),
    checks("rv64/m", "M: multiplication and division", 230_000, BOTH, m::define),
    checks("rv64/a", "A: AMOs, LR/SC", 1_000_000, BOTH, a::define),
    checks("rv64/a-misaligned", "A: misaligned atomics trap", 6_100, &[Spike], a::define_misaligned),
    checks("rv64/f", "F: every instruction, rounding mode and flag; fcsr; mstatus.FS", 2_300_000, BOTH, fp::f),
    checks("rv64/d", "D: every instruction, rounding mode and flag", 2_300_000, BOTH, fp::d),
    checks("rv64/zfa", "Zfa: constants, rounding, quiet comparisons, modular conversion", 440_000, BOTH, fp::zfa),
    checks("rv64/zfhmin", "Zfhmin: half precision conversions, moves, loads, stores", 420_000, BOTH, fp::zfhmin),
    checks("rv64/c", "C: every compressed form, floating-point ones too", 16_000, BOTH, c::define),
    checks("rv64/zcb", "Zcb: more compressed forms", 2_400, BOTH, c::zcb),
    checks("rv64/zba", "Zba: address generation", 170_000, BOTH, zb::zba),
    checks("rv64/zbb", "Zbb: basic bit manipulation", 290_000, BOTH, zb::zbb),
    checks("rv64/zbc", "Zbc: carry-less multiplication", 61_000, BOTH, zb::zbc),
    checks("rv64/zbs", "Zbs: single bits", 190_000, BOTH, zb::zbs),
    checks("rv64/zicond", "Zicond: conditional zero", 41_000, BOTH, zb::zicond),
    checks("rv64/zicbo", "Zicbom, Zicboz, Zicbop, Zawrs: gates, effects, faults", 4_200, BOTH, cbo::define),
    checks("rv64/zicbo-strict", "mtval of block operations that are not enabled", 2_300, &[Spike], cbo::define_strict),
    checks("rv64/zifencei", "self-modifying code", 1_700, BOTH, smc::define),
    checks("rv64/zicntr", "Zicntr, Zihpm: gates, mcountinhibit", 3_400, BOTH, counters::define),
    checks("rv64/minstret", "exact minstret, also over traps, loops and writes; counters 16 to 31", 1_600, &[Spike], counters::define_exact),
    checks("rv64/zicsr", "CSR instructions, access rules, WARL fields, views", 22_000, BOTH, zicsr::define),
    checks("rv64/traps", "exceptions, delegation, returns, TVM, TW, TSR", 9_900, BOTH, traps::define),
    checks("rv64/traps-strict", "mtval of privileged instructions, Svinval in U-mode, read-only bits", 760, &[Spike], traps::define_strict),
    checks("rv64/paging", "Sv39, Sv48, Sv57, Svade, Svadu, Svnapot, Svpbmt, Svinval, fences, ASIDs", 260_000, BOTH, paging::define),
    checks("rv64/paging-strict", "reserved memory type of Svpbmt, tables where no memory is", 1_500, &[Spike], paging::define_strict),
    checks("rv64/spaces", "address spaces that share a page of code whose jumps lead to different frames, ASIDs, no fence", 1_000_000, BOTH, spaces::define),
    checks("rv64/pmp", "PMP modes, priority, partial matches, M-mode, locks", 26_000, BOTH, pmp::define),
    checks("rv64/interrupts", "CLINT, Sstc, delegation, priority, vectors, wfi", 280_000, BOTH, interrupts::define),
    checks("rv64/interrupts-strict", "priority where it is not the number", 3_500, &[Spike], interrupts::define_strict),
    Rom { harts: crate::suite::HARTS as u32, ..checks("rv64/smp", "four harts: AMO, LR/SC, locks, fences, software interrupts", 5_800_000, BOTH, smp::define) },
    stress("rv64/stress-amo-2", "two harts: every AMO, by its results and by what it returns", 2, 1_000_000, stress::atomics::amo::<2>),
    stress("rv64/stress-amo-4", "four harts: every AMO, by its results and by what it returns", 4, 1_000_000, stress::atomics::amo::<4>),
    stress("rv64/stress-lrsc-2", "two harts: LR/SC counters, beside AMOs and on half a doubleword", 2, 1_000_000, stress::atomics::lrsc::<2>),
    stress("rv64/stress-lrsc-4", "four harts: LR/SC counters, beside AMOs and on half a doubleword", 4, 1_000_000, stress::atomics::lrsc::<4>),
    stress("rv64/stress-locks-2", "two harts: spinlocks and ticket locks of AMOs and LR/SC", 2, 1_000_000, stress::atomics::locks::<2>),
    stress("rv64/stress-locks-4", "four harts: spinlocks and ticket locks of AMOs and LR/SC", 4, 1_000_000, stress::atomics::locks::<4>),
    stress("rv64/stress-litmus-2", "two harts: message passing, store and load buffering, IRIW, with and without fences", 2, 1_000_000, stress::litmus::define::<2>),
    stress("rv64/stress-litmus-4", "four harts: message passing, store and load buffering, IRIW, with and without fences", 4, 1_000_000, stress::litmus::define::<4>),
    stress("rv64/stress-sfence-2", "two harts: pages remapped while in use, remote sfence.vma", 2, 1_000_000, stress::remote::sfence::<2>),
    stress("rv64/stress-sfence-4", "four harts: pages remapped while in use, remote sfence.vma", 4, 1_000_000, stress::remote::sfence::<4>),
    stress("rv64/stress-fencei-2", "two harts: code patched while in use, remote fence.i", 2, 1_000_000, stress::remote::fence_i::<2>),
    stress("rv64/stress-fencei-4", "four harts: code patched while in use, remote fence.i", 4, 1_000_000, stress::remote::fence_i::<4>),
    stress("rv64/stress-ipi-2", "two harts: software interrupts and timers, wfi", 2, 1_000_000, stress::ipi::define::<2>),
    stress("rv64/stress-ipi-4", "four harts: software interrupts and timers, wfi", 4, 1_000_000, stress::ipi::define::<4>),
    stress("rv64/stress-share-2", "two harts: code and data in the same pages, all written by all", 2, 1_000_000, stress::share::define::<2>),
    stress("rv64/stress-share-4", "four harts: code and data in the same pages, all written by all", 4, 1_000_000, stress::share::define::<4>),
    bench("rv64/bench-int", "shifts, adds, logic, branches, loads, stores", bench::INT_INSNS, bench::INT_SUM, bench::int),
    bench("rv64/bench-branchy", "Collatz sequences below 400,000", bench::BRANCHY_INSNS, bench::BRANCHY_SUM, bench::branchy),
    bench("rv64/bench-mem", "sieve of Eratosthenes over 4 MB", bench::MEM_INSNS, bench::MEM_SUM, bench::mem),
    bench("rv64/bench-fp", "64 x 64 matrices of doubles", bench::FP_INSNS, bench::FP_SUM, bench::fp),
    bench("rv64/bench-call", "recursive Fibonacci", bench::CALL_INSNS, bench::CALL_SUM, bench::call),
    bench("rv64/bench-trap", "ecall from U-mode and mret", bench::TRAP_INSNS, bench::TRAP_SUM, bench::trap),
    bench("rv64/bench-csr", "CSR swaps, sets and reads", bench::CSR_INSNS, bench::CSR_SUM, bench::csr),
    cost("rv64/bench-ecall", "ecall from U-mode to S-mode and sret", costs::ECALLS, 16, costs::ECALL_SUM, costs::ecall),
    cost("rv64/bench-fault", "load page fault, the page mapped, another one unmapped, two fences, sret", costs::FAULTS, 20, costs::FAULT_SUM, costs::fault),
    cost("rv64/bench-rewrite", "one instruction of a function written over, fence.i, two calls", costs::REWRITES, 15, costs::REWRITE_SUM, costs::rewrite),
    cost("rv64/bench-beside", "store to a page whose code runs in between", costs::BESIDE, 8, costs::beside_sum(costs::BESIDE), costs::beside),
    cost("rv64/bench-beside-fenced", "store to a page whose code runs in between, fence.i", costs::BESIDE_FENCED, 9, costs::beside_sum(costs::BESIDE_FENCED), costs::beside_fenced),
    cost("rv64/bench-switch", "change of address space (ASID, no fence), loads from 8 pages", costs::SWITCHES, 44, costs::SWITCH_SUM, costs::switch),
];
