//! A guest that changes page tables and code without any fence and sums up what it sees of that. The manual
//! lets a hart see the old or the new; a deterministic machine must always choose the same.

use dynasmrt::riscv::RiscvRelocation;
use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm};

/// Where it runs.
pub(crate) const BASE: u64 = 0x8000_0000;
/// MRET (privileged, 3.3.2).
const MRET: u32 = 0x3020_0073;

/// The guest, for any number of harts, which share page tables, data and code. It never ends.
#[rustfmt::skip] // assembly
pub(crate) fn unfenced() -> Vec<u8> {
    let mut ops = VecAssembler::<RiscvRelocation>::new(BASE as usize);
    dynasm!(ops
        ; .arch riscv64
        ; .feature i,m,a,zicsr
        // The tables: root, middle and leaf level (Sv39), then two pages of data.
        ; auipc s4, 0x10000                // at BASE + 0x10000
        ; li.12 t0, 1
        ; slli t0, t0, 12
        ; add s5, s4, t0
        ; add s6, s5, t0
        ; add s7, s6, t0
        ; add s8, s7, t0
        // The gigabyte at BASE, mapped onto itself: V R W X A D.
        ; li.12 t0, 2
        ; slli t0, t0, 28
        ; ori t0, t0, 0xcf
        ; sd t0, [s4, 16]
        // Address 0x40000: the first page of data, V R W, neither A nor D.
        ; srli t0, s5, 2
        ; ori t0, t0, 1
        ; sd t0, [s4]
        ; srli t0, s6, 2
        ; ori t0, t0, 1
        ; sd t0, [s5]
        ; lui s11, 0x40000
        ; addi s6, s6, 0x200
        ; srli s9, s7, 2
        ; ori s9, s9, 7
        ; srli s10, s8, 2
        ; ori s10, s10, 7
        ; sd s9, [s6]
        ; li.12 t0, 3
        ; sd t0, [s7, 8]
        ; li.12 t0, 5
        ; sd t0, [s8, 8]
        // S-mode may do everything, A and D are set by the hart (menvcfg.ADUE).
        ; li.12 t0, -1
        ; csrw 0x3b0, t0
        ; li.12 t0, 0x1f
        ; csrw 0x3a0, t0
        ; li.12 t0, 1
        ; slli t0, t0, 61
        ; csrs 0x30a, t0
        ; li.12 t0, 1
        ; slli t0, t0, 11
        ; csrs 0x300, t0                // mstatus.MPP = S
        ; li.12 t0, 8
        ; slli t0, t0, 60
        ; srli t1, s4, 12
        ; or t0, t0, t1
        ; csrw 0x180, t0                // satp
        ; auipc t0, 0
        ; addi t0, t0, 16
        ; csrw 0x341, t0                // mepc: behind MRET
        ; .u32 MRET
        ; li.12 s2, 0
        ; li.12 s3, 31
        ; again:
        // A read sets A; cleared, it is set again by the next read or not.
        ; ld t0, [s11, 8]
        ; ld t1, [s6]
        ; andi t2, t1, !0xc0
        ; sd t2, [s6]
        ; ld t0, [s11, 8]
        ; ld t1, [s6]
        ; mul s2, s2, s3
        ; add s2, s2, t1
        // A write sets D, too.
        ; sd s2, [s11, 16]
        ; ld t1, [s6]
        ; mul s2, s2, s3
        ; add s2, s2, t1
        // An AMO clears A.
        ; li.12 t2, !0x40
        ; amoand.d t1, t2, [s6]
        ; ld t0, [s11, 8]
        ; ld t1, [s6]
        ; mul s2, s2, s3
        ; add s2, s2, t1
        // The other page, and back.
        ; sd s10, [s6]
        ; ld t0, [s11, 8]
        ; mul s2, s2, s3
        ; add s2, s2, t0
        ; sd s9, [s6]
        ; ld t0, [s11, 8]
        ; mul s2, s2, s3
        ; add s2, s2, t0
        // Code is written over: the immediate of the addi that follows.
        ; auipc t0, 0
        ; lw t1, [t0, 24]
        ; li.12 t2, 1
        ; slli t2, t2, 20
        ; xor t1, t1, t2
        ; sw t1, [t0, 24]
        ; addi s2, s2, 6
        // The same by an AMO.
        ; auipc t0, 0
        ; addi t0, t0, 12
        ; amoxor.w t1, t2, [t0]
        ; addi s2, s2, 10
        ; j <again
    );
    ops.finalize().expect("the guest assembles")
}
