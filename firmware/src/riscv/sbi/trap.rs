//! Trap entry and exit, dispatch, redirection to S-mode, and the firmware's own end.

use super::layout::{FRAME_MEPC, FRAME_MSTATUS, HART_AREA, csr, err, frame_x};
use super::{DynasmApi, DynasmLabelApi, SbiConfig, base, dbcn, hsm, ipi, rfence, srst, time};
use crate::riscv::privileged::{MRET, WFI};
use crate::riscv::{Asm, rv};

/// `csrrs rd, time, x0` with `rd` = 0.
const RDTIME: i32 = 0xc010_2073_u32 as i32;
/// The bits of an instruction that are not `rd`.
const NOT_RD: i32 = !(0x1f << 7);

/// `->trap`, `->trap_exit`, `->redirect`, `->guard_caught`, `->own_trap`.
pub(super) fn emit(asm: &mut Asm, config: &SbiConfig) {
    entry(asm);
    exit(asm);
    ecall(asm);
    interrupts(asm);
    illegal_instruction(asm);
    redirect(asm);
    own_trap(asm, config);
}

fn entry(asm: &mut Asm) {
    rv!(asm
        ; ->trap:
        ; csrrw sp, mscratch, sp
        ; beqz sp, ->own_trap
        ; sd ra, [sp, frame_x(1)]
    );
    for x in 3..32u8 {
        rv!(asm ; sd X(x), [sp, frame_x(i32::from(x))]);
    }
    rv!(asm
        ; mv tp, sp
        ; csrrw t0, mscratch, zero
        ; sd t0, [tp, frame_x(2)]
        ; csrr t0, mepc
        ; sd t0, [tp, FRAME_MEPC]
        ; csrr t0, mstatus
        ; sd t0, [tp, FRAME_MSTATUS]
        ; addi sp, tp, HART_AREA
        ; csrr t0, mcause
        ; bltz t0, ->interrupt
        ; li.12 t1, csr::CAUSE_ECALL_S
        ; beq t0, t1, ->ecall
        ; li.12 t1, csr::CAUSE_ILLEGAL
        ; beq t0, t1, ->illegal_instruction
        ; j ->redirect
    );
}

fn exit(asm: &mut Asm) {
    rv!(asm
        ; ->trap_exit:
        ; ld t0, [tp, FRAME_MEPC]
        ; csrw mepc, t0
        ; ld t0, [tp, FRAME_MSTATUS]
        ; csrw mstatus, t0
        ; csrw mscratch, tp
        ; ld ra, [tp, frame_x(1)]
        ; ld sp, [tp, frame_x(2)]
        ; ld gp, [tp, frame_x(3)]
    );
    for x in 5..32u8 {
        rv!(asm ; ld X(x), [tp, frame_x(i32::from(x))]);
    }
    rv!(asm
        ; ld tp, [tp, frame_x(4)]
        ; .u32 MRET
    );
}

/// Finds the handler by the extension id in `a7`.
fn ecall(asm: &mut Asm) {
    rv!(asm
        ; ->ecall:
        ; ld t0, [tp, FRAME_MEPC]
        ; addi t0, t0, 4
        ; sd t0, [tp, FRAME_MEPC]
        ; li.12 t0, 16
        ; bgeu a7, t0, >next
        ; j ->legacy
        ; next:
        // Most frequent first. Jumps, since the handlers may lie beyond a branch's 4 KiB.
        ; li.32 t0, ipi::EID
        ; bne a7, t0, >next
        ; j ->ipi
        ; next:
        ; li.32 t0, rfence::EID
        ; bne a7, t0, >next
        ; j ->rfence
        ; next:
        ; li.32 t0, time::EID
        ; bne a7, t0, >next
        ; j ->time
        ; next:
        ; li.32 t0, hsm::EID
        ; bne a7, t0, >next
        ; j ->hsm
        ; next:
        ; li.32 t0, base::EID
        ; bne a7, t0, >next
        ; j ->base
        ; next:
        ; li.32 t0, dbcn::EID
        ; bne a7, t0, >next
        ; j ->dbcn
        ; next:
        ; li.32 t0, srst::EID
        ; bne a7, t0, >next
        ; j ->srst
        ; next:

        ; j ->fail_not_supported
    );
}

/// How calls end; placed amid the handlers, within a branch's reach of all of them.
pub(super) fn emit_answers(asm: &mut Asm) {
    rv!(asm
        ; ->fail_not_supported:
        ; li.12 a0, err::NOT_SUPPORTED
        ; j ->fail
        ; ->fail_invalid_param:
        ; li.12 a0, err::INVALID_PARAM
        ; j ->fail
        ; ->fail_invalid_address:
        ; li.12 a0, err::INVALID_ADDRESS
        ; j ->fail
        ; ->succeed:
        ; li.12 a0, 0
        ; ->fail:
        ; li.12 a1, 0
        ; ->sbi_return:
        ; sd a1, [tp, frame_x(11)]
        ; ->legacy_return: // legacy calls answer in a0 alone
        ; sd a0, [tp, frame_x(10)]
        ; j ->trap_exit
    );
}

fn interrupts(asm: &mut Asm) {
    rv!(asm
        ; ->interrupt:
        ; slli t0, t0, 1
        ; srli t0, t0, 1
        ; li.12 t1, csr::CAUSE_MSI
        ; bne t0, t1, >not_soft
        ; jal ra, ->serve_mailbox
        ; j ->trap_exit
        ; not_soft:
        ; li.12 t1, csr::CAUSE_MTI
        ; bne t0, t1, ->own_trap // no other interrupt is enabled in M-mode
        ; jal ra, ->timer_expired
        ; j ->trap_exit
    );
}

/// Emulates `rdtime` for harts without the `time` CSR; anything else goes to S-mode.
/// Needs a hart that writes the instruction to `mtval`.
fn illegal_instruction(asm: &mut Asm) {
    rv!(asm
        ; ->illegal_instruction:
        ; csrr t0, mtval
        ; li.32 t1, NOT_RD
        ; and t1, t0, t1
        ; li.32 t2, RDTIME
        ; slli t1, t1, 32
        ; srai t1, t1, 32
        ; bne t1, t2, ->redirect
        // U-mode needs scounteren.TM.
        ; ld t1, [tp, FRAME_MSTATUS]
        ; li.32 t2, csr::MPP
        ; and t1, t1, t2
        ; bnez t1, >allowed
        ; csrr t1, scounteren
        ; andi t1, t1, 2
        ; beqz t1, ->redirect
        ; allowed:
        ; srli t0, t0, 7
        ; andi t0, t0, 0x1f
        ; ld t2, [tp, FRAME_MEPC]
        ; addi t2, t2, 4
        ; sd t2, [tp, FRAME_MEPC]
        ; beqz t0, ->trap_exit
        ; slli t0, t0, 3
        ; add t0, tp, t0
        ; ld t1, ->mtime
        ; ld t1, [t1]
        ; sd t1, [t0]
        ; j ->trap_exit
    );
}

/// Hands the trap in `mcause` and `mtval` to S-mode, as the hart does for a delegated one
/// (Privileged Architecture, "Supervisor Cause Register" and "sstatus").
fn redirect(asm: &mut Asm) {
    rv!(asm
        ; ->redirect:
        ; ld t0, [tp, FRAME_MEPC]
        ; csrw sepc, t0
        ; csrr t0, mcause
        ; csrw scause, t0
        ; csrr t0, mtval
        ; csrw stval, t0
        ; csrr t0, stvec
        ; andi t0, t0, !3 // exceptions enter at the base in vectored mode too
        ; sd t0, [tp, FRAME_MEPC]

        ; ld t0, [tp, FRAME_MSTATUS]
        ; li.32 t1, csr::MPP | csr::SPP | csr::SPIE | csr::SIE
        ; not t1, t1
        ; and t1, t0, t1
        ; andi t2, t0, csr::SIE
        ; slli t2, t2, 4 // SIE to SPIE
        ; or t1, t1, t2
        ; li.32 t2, csr::MPP_S
        ; or t1, t1, t2
        ; and t0, t0, t2 // MPP is S or U
        ; srli t0, t0, 3 // to SPP
        ; or t1, t1, t0
        ; sd t1, [tp, FRAME_MSTATUS]
        ; j ->trap_exit

        // Where `mtvec` points during a guarded access: carries on at s11.
        ; ->guard_caught:
        ; csrw mepc, s11
        ; .u32 MRET
    );
}

/// The firmware itself trapped: print one line, fail the machine.
fn own_trap(asm: &mut Asm, config: &SbiConfig) {
    const S0: u8 = 8;
    const S1: u8 = 9;
    const S2: u8 = 18;
    const S3: u8 = 19;
    rv!(asm
        ; ->own_trap:
        ; la t0, ->park
        ; csrw mtvec, t0
        ; csrr s0, mcause
        ; csrr s1, mepc
        ; csrr s2, mtval
        ; csrr s3, mhartid
        ; la s6, ->own_trap_text
    );
    for register in [S0, S1, S2, S3] {
        rv!(asm ; mv a1, X(register) ; jal s4, ->put_text_and_hex);
    }
    rv!(asm
        ; li.12 a0, i32::from(b'\n')
        ; jal ra, ->uart_put
        ; ld t0, ->finisher
        ; li.32 t1, srst::fail_word(config.trap_code) as i32
        ; sw t1, [t0]
        ; halt:
        ; .u32 WFI
        ; j <halt

        // The text at s6 up to a 0, then a1 in hexadecimal; s6 moves on to the next text. Called
        // by s4, since the stack may be what failed.
        ; ->put_text_and_hex:
        ; lbu a0, [s6]
        ; addi s6, s6, 1
        ; beqz a0, >number
        ; jal ra, ->uart_put
        ; j ->put_text_and_hex
        ; number:
        ; li.12 s5, 60
        ; digit:
        ; srl a0, a1, s5
        ; andi a0, a0, 15
        ; addi a0, a0, i32::from(b'0')
        ; li.12 t0, i32::from(b'9')
        ; ble a0, t0, >decimal
        ; addi a0, a0, i32::from(b'a' - b'9' - 1)
        ; decimal:
        ; jal ra, ->uart_put
        ; addi s5, s5, -4
        ; bgez s5, <digit
        ; jr s4

        ; ->own_trap_text:
        ; .bytes b"mimic-sbi: trap in M-mode: mcause \0, mepc \0, mtval \0, hart \0"
        ; .align 4
    );
}
