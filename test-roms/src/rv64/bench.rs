//! Benchmarks: fixed work, result compared in the guest. They print nothing; whoever runs them
//! counts instructions and time. Every expected result comes from the same work done by host Rust
//! (the `reference` functions, run again by the tests below) or from a published constant.

use crate::raw;
use crate::suite::reg::*;
use crate::suite::{Mode, SCRATCH, Suite, rv};

/// Iterations of [`int`].
const INT_ROUNDS: u64 = 45_000_000;
/// Result of [`int`].
pub(super) const INT_SUM: u64 = 0x6375_170a_444c_a574;
/// Instructions of [`int`], as `minstret` counts them on Spike.
pub(super) const INT_INSNS: u64 = 989_992_545;

/// Shifts, logic, adds, compares, a data-dependent branch, a load and a store per round.
pub(super) fn int(s: &mut Suite) {
    s.case("checksum");
    s.li(S0, SCRATCH);
    s.li(S1, 0x7ff8);
    s.li(A0, 0x9e37_79b9_7f4a_7c15);
    s.li(A1, 0);
    s.li(A2, INT_ROUNDS);
    let (round, odd, join) = (s.label(), s.label(), s.label());
    rv!(s
        ; =>round
        ; slli t0, a0, 13
        ; xor a0, a0, t0
        ; srli t0, a0, 7
        ; xor a0, a0, t0
        ; slli t0, a0, 17
        ; xor a0, a0, t0
        ; srli t1, a0, 20
        ; and t1, t1, s1
        ; add t1, t1, s0
        ; ld t2, [t1]
        ; add t2, t2, a0
        ; andi t0, t2, 1
        ; bnez t0, =>odd
        ; srli t3, t2, 3
        ; add a1, a1, t3
        ; j =>join
        ; =>odd
        ; xor a1, a1, t2
        ; =>join
        ; addw t4, t2, a1
        ; sltu t3, t2, a1
        ; add a1, a1, t4
        ; sub a1, a1, t3
        ; sd t2, [t1]
        ; addi a2, a2, -1
        ; bnez a2, =>round
    );
    s.check(A1, INT_SUM);
}

/// Upper bound of [`branchy`].
const COLLATZ: u64 = 400_000;
/// Steps of all Collatz sequences that start below [`COLLATZ`].
pub(super) const BRANCHY_SUM: u64 = 48_762_334;
/// Instructions of [`branchy`], as `minstret` counts them on Spike.
pub(super) const BRANCHY_INSNS: u64 = 294_331_603;

/// Collatz sequences: short blocks, branches that no predictor knows.
pub(super) fn branchy(s: &mut Suite) {
    s.case("steps");
    s.li(S0, COLLATZ);
    let (number, step, even, test) = (s.label(), s.label(), s.label(), s.label());
    rv!(s
        ; li.12 a0, 1
        ; li.12 a1, 0
        ; li.12 a4, 1
        ; =>number
        ; mv a2, a0
        ; j =>test
        ; =>step
        ; addi a1, a1, 1
        ; andi t0, a2, 1
        ; beqz t0, =>even
        ; slli t1, a2, 1
        ; add a2, a2, t1
        ; addi a2, a2, 1
        ; j =>test
        ; =>even
        ; srli a2, a2, 1
        ; =>test
        ; bne a2, a4, =>step
        ; addi a0, a0, 1
        ; bltu a0, s0, =>number
    );
    s.check(A1, BRANCHY_SUM);
}

/// Bytes of the sieve, and how often it is run.
const SIEVE: u64 = 4_000_000;
const SIEVE_ROUNDS: u64 = 4;
/// Primes below [`SIEVE`], counted again by the test.
pub(super) const MEM_SUM: u64 = 283_146;
/// Instructions of [`mem`], as `minstret` counts them on Spike.
pub(super) const MEM_INSNS: u64 = 192_775_667;

/// Sieve of Eratosthenes over bytes: strided stores over 4 MB, then a scan.
pub(super) fn mem(s: &mut Suite) {
    s.case("primes below 4,000,000");
    s.li(S0, SCRATCH);
    s.li(S1, SCRATCH + SIEVE);
    s.li(S5, SIEVE_ROUNDS);
    let again = s.label();
    rv!(s; =>again; mv t0, s0);
    rv!(s
        ; clear:
        ; sd zero, [t0]
        ; addi t0, t0, 8
        ; bltu t0, s1, <clear
        ; li.12 a0, 2
        ; candidate:
        ; add t0, s0, a0
        ; lbu t1, [t0]
        ; bnez t1, >next
        ; mul t2, a0, a0
        ; add t2, t2, s0
        ; li.12 t3, 1
        ; bgeu t2, s1, >next
        ; strike:
        ; sb t3, [t2]
        ; add t2, t2, a0
        ; bltu t2, s1, <strike
        ; next:
        ; addi a0, a0, 1
        ; mul t2, a0, a0
        ; add t2, t2, s0
        ; bltu t2, s1, <candidate
        ; addi t0, s0, 2
        ; li.12 a1, 0
        ; count:
        ; lbu t1, [t0]
        ; xori t1, t1, 1
        ; add a1, a1, t1
        ; addi t0, t0, 1
        ; bltu t0, s1, <count
        ; addi s5, s5, -1
        ; bnez s5, =>again
    );
    s.check(A1, MEM_SUM);
}

/// Order of the matrices of [`fp`], and how often they are multiplied.
const ORDER: u64 = 64;
const FP_ROUNDS: u64 = 100;
/// Bits of the sum of all elements of the product.
pub(super) const FP_SUM: u64 = 0xc06c_42a0_0000_002a;
/// Instructions of [`fp`], as `minstret` counts them on Spike.
pub(super) const FP_INSNS: u64 = 147_111_539;

/// Element of the first (`which` 0) or second matrix.
fn element(which: u64, row: u64, column: u64) -> f64 {
    let k = (row * 37 + column * 11 + which * 5) % 97;
    k as f64 / 16.0 - 3.0 + if which == 1 { 1.0 / 3.0 } else { 0.0 }
}

/// Multiplication of 64 x 64 matrices of doubles; even k by multiply and add, odd k fused.
pub(super) fn fp(s: &mut Suite) {
    let matrix = |which| -> Vec<u64> {
        (0..ORDER).flat_map(|r| (0..ORDER).map(move |c| element(which, r, c).to_bits())).collect()
    };
    let (a, b) = (s.table(&matrix(0)), s.table(&matrix(1)));
    s.case("sum of the product's elements");
    let row_bytes = ORDER as i32 * 8;
    s.li(S5, FP_ROUNDS);
    rv!(s; again:);
    s.li(S0, a);
    s.li(S1, a + ORDER * ORDER * 8);
    rv!(s; fmv.d.x f10, zero; row:);
    s.li(S2, b);
    s.li(S3, b + ORDER * 8);
    rv!(s
        ; column:
        ; mv t0, s0
        ; mv t1, s2
        ; addi t2, t0, row_bytes
        ; fmv.d.x f0, zero
        ; inner:
        ; fld f1, [t0]
        ; fld f2, [t1]
        ; fmul.d f3, f1, f2
        ; fadd.d f0, f0, f3
        ; fld f1, [t0, 8]
        ; fld f2, [t1, row_bytes]
        ; fmadd.d f0, f1, f2, f0
        ; addi t0, t0, 16
        ; addi t1, t1, row_bytes
        ; addi t1, t1, row_bytes
        ; bne t0, t2, <inner
        ; fadd.d f10, f10, f0
        ; addi s2, s2, 8
        ; bne s2, s3, <column
        ; addi s0, s0, row_bytes
        ; bne s0, s1, <row
        ; addi s5, s5, -1
        ; beqz s5, >done
        ; j <again
        ; done:
        ; fmv.x.d a0, f10
    );
    s.check(A0, FP_SUM);
}

/// Argument of [`call`].
const FIB: u64 = 32;
/// The Fibonacci number of [`FIB`] (OEIS A000045).
pub(super) const CALL_SUM: u64 = 2_178_309;
/// Instructions of [`call`], as `minstret` counts them on Spike.
pub(super) const CALL_INSNS: u64 = 74_016_162;

/// Naive Fibonacci: calls, returns, stack traffic.
pub(super) fn call(s: &mut Suite) {
    s.case("fib(32)");
    s.li(SP, SCRATCH + 0x1_0000);
    s.li(A0, FIB);
    let (fib, leaf, over) = (s.label(), s.label(), s.label());
    rv!(s
        ; jal ra, =>fib
        ; j =>over
        ; =>fib
        ; sltiu t0, a0, 2
        ; bnez t0, =>leaf
        ; addi sp, sp, -32
        ; sd ra, [sp, 24]
        ; sd s0, [sp, 16]
        ; sd s1, [sp, 8]
        ; mv s0, a0
        ; addi a0, a0, -1
        ; jal ra, =>fib
        ; mv s1, a0
        ; addi a0, s0, -2
        ; jal ra, =>fib
        ; add a0, a0, s1
        ; ld ra, [sp, 24]
        ; ld s0, [sp, 16]
        ; ld s1, [sp, 8]
        ; addi sp, sp, 32
        ; =>leaf
        ; ret
        ; =>over
    );
    s.check(A0, CALL_SUM);
}

/// Rounds of [`trap`].
const TRAPS: u64 = 1_000_000;
/// Result of [`trap`].
pub(super) const TRAP_SUM: u64 = TRAPS * 8;
/// Instructions of [`trap`], as `minstret` counts them on Spike.
pub(super) const TRAP_INSNS: u64 = 9_000_076;

/// `ecall` from U-mode into a handler that adds up `mcause` and returns by `mret`.
pub(super) fn trap(s: &mut Suite) {
    s.case("sum of causes");
    let (handler, over, done) = (s.label(), s.label(), s.label());
    rv!(s; j =>over);
    s.align(4);
    rv!(s
        ; =>handler
        ; beqz a2, =>done
        ; csrr t0, mcause
        ; add a1, a1, t0
        ; csrr t0, mepc
        ; addi t0, t0, 4
        ; csrw mepc, t0
    );
    s.word(raw::MRET);
    rv!(s; =>over; la t0, =>handler; csrw mtvec, t0; li.12 a1, 0);
    s.li(A2, TRAPS);
    s.enter(Mode::U);
    rv!(s; again:; ecall; addi a2, a2, -1; bnez a2, <again; ecall; =>done);
    s.reset_environment();
    s.check(A1, TRAP_SUM);
}

/// Rounds of [`csr`].
const CSRS: u64 = 10_000_000;
/// Result of [`csr`].
pub(super) const CSR_SUM: u64 = CSRS * (CSRS - 1) / 2;
/// Instructions of [`csr`], as `minstret` counts them on Spike.
pub(super) const CSR_INSNS: u64 = 80_000_044;

/// Swaps, sets, clears and reads of CSRs without side effects.
pub(super) fn csr(s: &mut Suite) {
    s.case("sum of values read back");
    s.li(A2, CSRS);
    rv!(s
        ; li.12 a0, 0
        ; li.12 a1, 0
        ; again:
        ; csrw sscratch, a0
        ; csrrs t0, sscratch, zero
        ; csrrw t1, mscratch, t0
        ; csrrsi t2, sepc, 4
        ; csrrc t3, mscratch, zero
        ; add a1, a1, t3
        ; addi a0, a0, 1
        ; bne a0, a2, <again
    );
    s.check(A1, CSR_SUM);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int_reference() {
        let mut mem = vec![0u64; 0x1000];
        let (mut x, mut acc) = (0x9e37_79b9_7f4a_7c15u64, 0u64);
        for _ in 0..INT_ROUNDS {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let slot = &mut mem[(x >> 23) as usize % 0x1000];
            *slot = slot.wrapping_add(x);
            acc = if *slot % 2 == 1 { acc ^ *slot } else { acc.wrapping_add(*slot >> 3) };
            let low = (*slot as i32).wrapping_add(acc as i32);
            let less = u64::from(*slot < acc);
            acc = acc.wrapping_add(low as u64).wrapping_sub(less);
        }
        assert_eq!(acc, INT_SUM, "{acc:#x}");
    }

    #[test]
    fn branchy_reference() {
        let steps = |mut n: u64| {
            let mut steps = 0;
            while n != 1 {
                n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
                steps += 1;
            }
            steps
        };
        assert_eq!((1..COLLATZ).map(steps).sum::<u64>(), BRANCHY_SUM);
    }

    #[test]
    fn mem_reference() {
        let mut composite = vec![false; SIEVE as usize];
        let mut primes = 0;
        for n in 2..composite.len() {
            if !composite[n] {
                primes += 1;
                (2 * n..composite.len()).step_by(n).for_each(|m| composite[m] = true);
            }
        }
        assert_eq!(primes, MEM_SUM);
    }

    #[test]
    fn fp_reference() {
        let mut sum = 0.0f64;
        for r in 0..ORDER {
            for c in 0..ORDER {
                let mut acc = 0.0f64;
                for k in (0..ORDER).step_by(2) {
                    acc += element(0, r, k) * element(1, k, c);
                    acc = element(0, r, k + 1).mul_add(element(1, k + 1, c), acc);
                }
                sum += acc;
            }
        }
        assert_eq!(sum.to_bits(), FP_SUM, "{:#x}", sum.to_bits());
    }
}
