//! What a guest cannot see of itself: exact budgets, when interrupts are taken, when stores become code,
//! and instructions that cross pages. Expected values come from the manuals and from counting.

#[path = "common/asm.rs"]
mod asm;
mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use asm::assemble;
use common::{DEVICE, RAM, TestBus, interp, open_hart, run};
use mimic_cpu::bus::Width::{Double, Half, Word};
use mimic_cpu::bus::{CpuBus as _, Request};
use mimic_cpu::riscv::hart::{Hart, Mode};
use mimic_cpu::run::Exit;

const HANDLER: u64 = RAM + 0x1000;
const DATA: u64 = RAM + 0x2000;
const MTI: u64 = 1 << 7;
const INTERRUPT: u64 = 1 << 63;
const MRET: u32 = 0x3020_0073;
const WFI: u32 = 0x1050_0073;

/// A loop with branches that are and are not taken, memory accesses and environment calls, which a
/// handler skips.
fn busy_machine() -> (Hart, Arc<TestBus>) {
    let bus = TestBus::new(4, 0);
    let main = assemble!(
        ; again:
        ; addi a1, a1, 1
        ; andi a2, a1, 1
        ; beqz a2, >even
        ; c.addi a3, 3
        ; even:
        ; sd a1, [s0, 8]
        ; ld a4, [s0, 5]
        ; xor a5, a5, a4
        ; bltu a1, a0, >call
        ; mul a5, a5, a1
        ; bnez a3, >skip
        ; call:
        ; ecall
        ; skip:
        ; bne a1, a0, <again
        ; amoadd.d a6, a1, [s0]
        ; csrr a7, 0xb02
        ; j <again
    );
    let handler = assemble!(
        ; csrr t0, 0x341
        ; addi t0, t0, 4
        ; csrw 0x341, t0
        ; .u32 MRET
    );
    bus.put_bytes(RAM, &main);
    bus.put_bytes(HANDLER, &handler);
    let mut hart = open_hart(RAM);
    hart.mtvec = HANDLER;
    hart.x[8] = DATA;
    hart.x[10] = 5;
    (hart, bus)
}

/// States after 0, 1, 2, ... instructions.
fn steps(count: usize) -> Vec<Hart> {
    let (hart, bus) = busy_machine();
    let (mut interp, _) = interp(hart, &bus);
    let mut all = vec![interp.hart()];
    for _ in 0..count {
        assert_eq!(run(&mut interp, 1), Exit::Budget);
        all.push(interp.hart());
    }
    all
}

#[test]
fn a_budget_is_used_up_exactly() {
    let steps = steps(256);
    for (index, hart) in steps.iter().enumerate() {
        assert_eq!(hart.retired, index as u64);
        assert_eq!(hart.minstret.value(hart.retired), index as u64);
    }
    for n in 1..=64 {
        let (hart, bus) = busy_machine();
        let (mut interp, _) = interp(hart, &bus);
        let mut done = 0;
        while done + n <= 256 {
            assert_eq!(run(&mut interp, n as u64), Exit::Budget);
            done += n;
            assert_eq!(interp.hart(), steps[done], "{done} instructions in runs of {n}");
        }
    }
    let (hart, bus) = busy_machine();
    let (mut interp, _) = interp(hart, &bus);
    assert_eq!(run(&mut interp, 0), Exit::Budget);
    assert_eq!(interp.hart(), steps[0]);
}

#[test]
fn a_hart_goes_on_in_another_interpreter() {
    let steps = steps(128);
    let (mut hart, bus) = busy_machine();
    for hop in 0..128 / 7 {
        let (mut interp, _) = interp(hart, &bus);
        run(&mut interp, 7);
        hart = interp.hart();
        assert_eq!(hart, steps[7 * (hop + 1)]);
    }
}

#[test]
fn an_interrupt_is_taken_between_any_two_instructions() {
    let steps = steps(64);
    for n in 0..64u64 {
        let (mut hart, bus) = busy_machine();
        hart.mie = MTI;
        hart.mstatus |= 1 << 3; // MIE
        let (mut interp, signals) = interp(hart, &bus);
        run(&mut interp, n);
        let before = interp.hart();
        assert_eq!((before.pc, before.x), (steps[n as usize].pc, steps[n as usize].x));
        signals.set_lines(MTI, true);
        run(&mut interp, 1);
        let after = interp.hart();
        if before.mstatus & 1 << 3 == 0 {
            // In the handler they are off; its MRET turns them on.
            assert_eq!(after.mcause == INTERRUPT | 7, before.pc == HANDLER + 12);
            continue;
        }
        assert_eq!((after.mcause, after.mepc), (INTERRUPT | 7, before.pc));
        assert_eq!((after.pc, after.retired), (HANDLER + 4, n + 1));
        assert_eq!(after.x[10..], before.x[10..]);
    }
}

#[test]
fn an_interrupt_that_a_store_raises_is_taken_right_behind_it() {
    let bus = TestBus::new(4, 0);
    bus.put_bytes(
        RAM,
        &assemble!(
            ; sw a0, [a1]
            ; addi a2, a2, 1
            ; addi a2, a2, 1
            ; addi a2, a2, 1
            ; spin:
            ; j <spin
        ),
    );
    let mut hart = open_hart(RAM);
    hart.mtvec = HANDLER | 1;
    bus.put_words(HANDLER + 4 * 7, &[0x6f]);
    hart.mie = MTI;
    hart.mstatus |= 1 << 3;
    (hart.x[10], hart.x[11]) = (MTI, DEVICE);
    let (mut interp, signals) = interp(hart, &bus);
    *bus.drives.lock().unwrap() = Some(signals);
    run(&mut interp, 100);
    let hart = interp.hart();
    assert_eq!((hart.mcause, hart.pc), (INTERRUPT | 7, HANDLER + 4 * 7), "vectored");
    // It may not wait for the end of the block: where that is differs between engines.
    assert_eq!((hart.mepc, hart.x[12]), (RAM + 4, 0));
    assert_eq!(hart.retired, 100);
}

/// The load itself is over, its register written and the device read once.
#[test]
fn an_interrupt_that_a_load_raises_is_taken_right_behind_it() {
    for (load, bytes) in [(0x0005_a503, 4), (0x4188, 2)] {
        // lw a0, 0(a1) and c.lw a0, 0(a1); c.addi a2, 1 twice; c.j .
        let bus = TestBus::new(4, 0);
        bus.store(RAM, Half, load & 0xffff);
        bus.store(RAM + 2, Half, load >> 16);
        for (at, half) in [(0, 0x0605), (2, 0x0605), (4, 0xa001)] {
            bus.store(RAM + bytes + at, Half, half);
        }
        let mut hart = open_hart(RAM);
        hart.mtvec = HANDLER;
        bus.put_words(HANDLER, &[0x6f]);
        hart.mie = MTI;
        hart.mstatus |= 1 << 3;
        hart.x[11] = DEVICE;
        bus.device.store(MTI, Ordering::SeqCst);
        let (mut interp, signals) = interp(hart, &bus);
        *bus.drives.lock().unwrap() = Some(signals);
        run(&mut interp, 100);
        let hart = interp.hart();
        assert_eq!((hart.mcause, hart.mepc), (INTERRUPT | 7, RAM + bytes));
        assert_eq!((hart.x[10], hart.x[12], hart.retired), (MTI, 0, 100));
        assert_eq!(interp.counters().device_accesses, 1);
    }
}

/// Enabling a pending interrupt takes effect before the next instruction (privileged, 3.1.9: evaluated after
/// every xRET and every write to the CSRs involved).
#[test]
fn an_interrupt_enabled_by_a_csr_write_comes_at_once() {
    for (csr, value) in [("mstatus", 1 << 3), ("mie", 1 << 1), ("mip", 1 << 1)] {
        let bus = TestBus::new(4, 0);
        let word = match csr {
            "mstatus" => 0x3005_2073, // csrrs x0, mstatus, a0
            "mie" => 0x3045_2073,     // csrrs x0, mie, a0
            _ => 0x3445_2073,         // csrrs x0, mip, a0
        };
        bus.put_words(RAM, &[0x0015_8593, word, 0x0015_8593, 0x0015_8593]); // addi a1, a1, 1 around it
        bus.put_words(HANDLER, &[0x6f]);
        let mut hart = open_hart(RAM);
        hart.mtvec = HANDLER;
        hart.x[10] = value;
        hart.mstatus |= if csr == "mstatus" { 0 } else { 1 << 3 };
        hart.mie = if csr == "mie" { 0 } else { 1 << 1 };
        hart.mip = if csr == "mip" { 0 } else { 1 << 1 };
        let (mut interp, _) = interp(hart, &bus);
        run(&mut interp, 4);
        let hart = interp.hart();
        assert_eq!((hart.mcause, hart.mepc, hart.x[11]), (INTERRUPT | 1, RAM + 8, 1), "{csr}");
    }
}

#[test]
fn wfi_halts_until_an_enabled_interrupt_is_pending() {
    let bus = TestBus::new(4, 0);
    bus.put_words(RAM, &[WFI, 0x0015_8593, 0x6f]); // addi a1, a1, 1; j .
    bus.put_words(HANDLER, &[0x6f]);
    for mie in [0, 1 << 3] {
        let mut hart = open_hart(RAM);
        (hart.mtvec, hart.mie) = (HANDLER, MTI);
        hart.mstatus |= mie;
        let (mut interp, signals) = interp(hart, &bus);
        assert_eq!(run(&mut interp, 10), Exit::Halted);
        assert_eq!(run(&mut interp, 10), Exit::Halted);
        let hart = interp.hart();
        assert_eq!((hart.waiting, hart.pc, hart.retired), (true, RAM + 4, 1));
        // One that is not enabled does not count.
        signals.set_lines(1 << 11, true);
        assert_eq!(run(&mut interp, 10), Exit::Halted);
        signals.set_lines(MTI, true);
        assert_eq!(run(&mut interp, 2), Exit::Budget);
        let hart = interp.hart();
        assert!(!hart.waiting);
        if mie == 0 {
            // Execution resumes, without a trap (privileged, 3.3.3).
            assert_eq!((hart.x[11], hart.mcause, hart.pc), (1, 0, RAM + 8));
        } else {
            assert_eq!((hart.x[11], hart.mcause, hart.mepc), (0, INTERRUPT | 7, RAM + 4));
        }
    }
}

#[test]
fn a_kick_ends_a_run_without_a_budget() {
    let (hart, bus) = busy_machine();
    let (mut interp, signals) = interp(hart, &bus);
    signals.kick();
    assert_eq!(interp.run(mimic_cpu::run::Budget { insns: None }), Exit::Budget);
    let thread = std::thread::spawn(move || interp.run(mimic_cpu::run::Budget { insns: None }));
    // What it has retired by then is up to the host.
    std::thread::sleep(std::time::Duration::from_millis(20));
    signals.kick();
    assert_eq!(thread.join().unwrap(), Exit::Budget);
}

#[test]
fn a_handler_that_faults_itself_is_reported() {
    // A vector where nothing is, and one where there is memory but no instruction.
    for mtvec in [0, HANDLER] {
        let bus = TestBus::new(4, 0);
        bus.put_words(RAM, &[0x13, 0x13]); // two nops, then zeros
        let mut hart = open_hart(RAM);
        hart.mtvec = mtvec;
        let (mut interp, _) = interp(hart, &bus);
        for _ in 0..2 {
            let Exit::Dead(text) = run(&mut interp, 1_000_000) else { panic!("not noticed") };
            assert!(text.contains(&format!("{mtvec:#x}")), "{text}");
        }
        assert_eq!(interp.retired(), 2);
    }
    // A handler that does something before it faults is no loop without end, as far as we know.
    let bus = TestBus::new(4, 0);
    bus.put_words(HANDLER, &[0x13]);
    let mut hart = open_hart(RAM);
    hart.mtvec = HANDLER;
    let (mut interp, _) = interp(hart, &bus);
    assert_eq!(run(&mut interp, 300_000), Exit::Budget);
    assert_eq!(interp.retired(), 300_000);
}

/// Performs a store that changes an instruction, `fence.i`, and the changed instruction.
/// The same if the bus has forgotten which pages were written to.
fn patched(store: &[u32], target: u64, old: &[u32], new: u64, prepare: impl Fn(&mut Hart)) -> Hart {
    let [told, not_told] = [false, true].map(|forgetful| {
        let bus = TestBus::new(8, 0);
        bus.forgetful.store(forgetful, Ordering::SeqCst);
        patched_on(&bus, store, target, old, new, &prepare)
    });
    assert_eq!(told, not_told);
    told
}

fn patched_on(
    bus: &Arc<TestBus>,
    store: &[u32],
    target: u64,
    old: &[u32],
    new: u64,
    prepare: impl Fn(&mut Hart),
) -> Hart {
    // The target is executed once before, so that it has been decoded: jalr ra, 0(a0).
    let mut code = vec![0x0005_00e7];
    code.extend(store);
    code.extend([0x0000_100f, 0x0005_00e7, 0x6f]); // fence.i; jalr ra, 0(a0); j .
    bus.put_words(RAM, &code);
    bus.put_words(HANDLER, &[0x6f]);
    bus.put_words(target & !3, &[0; 4]);
    bus.put_words(target, old);
    let mut hart = open_hart(RAM);
    hart.mtvec = HANDLER;
    (hart.x[10], hart.x[11], hart.x[12]) = (target, target, new);
    prepare(&mut hart);
    let (mut interp, _) = interp(hart, bus);
    run(&mut interp, 40);
    interp.hart()
}

#[test]
fn stores_become_code_at_fence_i() {
    let old = [0x0016_8693, 0x0000_8067]; // addi a3, a3, 1; ret
    let new = 0x0406_8693; // addi a3, a3, 64
    let targets = [
        ("the same page", RAM + 0x100),
        ("another page", RAM + 0x3100),
        ("across two pages", RAM + 0x4ffe),
    ];
    for (place, target) in targets {
        // sw a2, 0(a1)
        let hart = patched(&[0x00c5_a023], target, &old, new, |_| {});
        assert_eq!((hart.x[13], hart.mcause), (65, 0), "{place}, by a word");
        // sh a2, 0(a1); srli a2, a2, 16; sh a2, 2(a1)
        let halves = [0x00c5_9023, 0x0106_5613, 0x00c5_9123];
        let hart = patched(&halves, target, &old, new, |_| {});
        assert_eq!((hart.x[13], hart.mcause), (65, 0), "{place}, by halves");
        // Only the immediate's upper bits change: addi a3, a3, 64 by its high half alone.
        let high = [0x0106_5613, 0x00c5_9123];
        let hart = patched(&high, target, &old, new, |_| {});
        assert_eq!((hart.x[13], hart.mcause), (65, 0), "{place}, by the high half");
    }
    let target = RAM + 0x3100;
    // amoswap.w x0, a2, (a1)
    let hart = patched(&[0x08c5_a02f], target, &old, new, |_| {});
    assert_eq!((hart.x[13], hart.mcause), (65, 0), "by an AMO");
    // lr.w x0, (a1); sc.w x0, a2, (a1)
    let hart = patched(&[0x1005_a02f, 0x18c5_a02f], target, &old, new, |_| {});
    assert_eq!((hart.x[13], hart.mcause), (65, 0), "by LR and SC");
    // fsw fa2, 0(a1)
    let hart = patched(&[0x00c5_a027], target, &old, 0, |hart| hart.f[12] = new);
    assert_eq!((hart.x[13], hart.mcause), (65, 0), "by a floating-point store");
    // cbo.zero (a1) leaves no instruction.
    let hart = patched(&[0x0045_a00f], target, &old, 0, |_| {});
    assert_eq!((hart.x[13], hart.mcause, hart.mepc), (1, 1 << 1, target), "by CBO.ZERO");
}

/// Sv39 tables for S-mode at three pages from `RAM + 0x5000`: virtual pages from 0x10000 on lead to
/// `frames`, an absent one nowhere.
fn map(bus: &TestBus, hart: &mut Hart, frames: &[Option<u64>]) {
    let tables = [RAM + 0x5000, RAM + 0x6000, RAM + 0x7000];
    for pair in tables.windows(2) {
        bus.store(pair[0], Double, pair[1] >> 12 << 10 | 1);
    }
    for (index, frame) in frames.iter().enumerate() {
        let entry = frame.map_or(0, |frame| frame >> 12 << 10 | 0xcf); // D A X W R V
        bus.store(tables[2] + 8 * (0x10 + index as u64), Double, entry);
    }
    hart.satp = 8 << 60 | tables[0] >> 12;
    hart.mode = Mode::S;
}

#[test]
fn an_instruction_may_lie_in_two_frames() {
    let bus = TestBus::new(8, 0);
    let mut hart = open_hart(0x10ffe);
    map(&bus, &mut hart, &[Some(RAM), Some(RAM + 0x3000)]);
    // addi a3, a3, 64, whose second half lies behind a frame in between; there c.nop follows.
    bus.store(RAM + 0xffe, Half, 0x8693);
    bus.store(RAM + 0x1000, Half, 0xffff);
    bus.store(RAM + 0x3000, Half, 0x0406);
    bus.store(RAM + 0x3002, Half, 0x0001);
    let (mut interp, _) = interp(hart, &bus);
    run(&mut interp, 2);
    let hart = interp.hart();
    assert_eq!((hart.x[13], hart.pc, hart.retired, hart.mcause), (64, 0x11004, 2, 0));
}

#[test]
fn a_fault_on_the_second_half_names_its_page() {
    let bus = TestBus::new(8, 0);
    let mut hart = open_hart(0x10ffc);
    hart.mtvec = HANDLER;
    bus.put_words(HANDLER, &[0x6f]);
    map(&bus, &mut hart, &[Some(RAM), None]);
    bus.store(RAM + 0xffc, Half, 0x0001);
    bus.store(RAM + 0xffe, Half, 0x8693);
    let (mut faulting, _) = interp(hart.clone(), &bus);
    run(&mut faulting, 2);
    let found = faulting.hart();
    // Privileged, 3.1.16: mtval is the address of the portion that faulted, mepc the instruction's.
    assert_eq!((found.mcause, found.mepc, found.mtval), (12, 0x10ffe, 0x11000));

    // The same by PMP: the second frame may be read, not executed. Physical, so without paging.
    let mut hart = open_hart(RAM + 0x2ffe);
    hart.mtvec = HANDLER;
    (hart.satp, hart.mode) = (0, Mode::S);
    hart.pmp.write_addr(0, (RAM + 0x3000) >> 2 | 0x1ff);
    hart.pmp.write_addr(1, u64::MAX);
    hart.pmp.write_cfg(0, 0x1f19);
    bus.store(RAM + 0x2ffe, Half, 0x8693);
    let (mut faulting, _) = interp(hart, &bus);
    run(&mut faulting, 1);
    let found = faulting.hart();
    assert_eq!((found.mcause, found.mepc, found.mtval), (1, RAM + 0x2ffe, RAM + 0x3000));
}

#[test]
fn an_illegal_instruction_across_pages_shows_all_its_bits() {
    let bus = TestBus::new(8, 0);
    bus.put_words(RAM + 0xffe, &[0xfeed_007b]); // custom-3, which nobody uses
    bus.put_words(RAM + 0x2000, &[0x6f]);
    let mut hart = open_hart(RAM + 0xffe);
    hart.mtvec = RAM + 0x2000;
    let (mut interp, _) = interp(hart, &bus);
    run(&mut interp, 1);
    let hart = interp.hart();
    assert_eq!((hart.mcause, hart.mepc, hart.mtval), (2, RAM + 0xffe, 0xfeed_007b));
}

/// Unprivileged, 14.2 and 14.4: misaligned atomics raise address-misaligned exceptions.
#[test]
fn misaligned_atomics_trap() {
    let cases = [
        (0x1005_a52f, 4), // lr.w a0, (a1)
        (0x18c5_a52f, 6), // sc.w a0, a2, (a1)
        (0x00c5_a52f, 6), // amoadd.w a0, a2, (a1)
        (0x1005_b52f, 4), // lr.d
        (0x18c5_b52f, 6), // sc.d
        (0x00c5_b52f, 6), // amoadd.d
    ];
    for (word, cause) in cases {
        for offset in [1, 2, 3, 4, 5, 6, 7] {
            let aligned = offset == 4 && word >> 12 & 7 == 2;
            let bus = TestBus::new(4, 0);
            bus.put_words(RAM, &[word, 0x6f]);
            bus.put_words(HANDLER, &[0x6f]);
            let mut hart = open_hart(RAM);
            hart.mtvec = HANDLER;
            hart.x[11] = DATA + offset;
            let (mut interp, _) = interp(hart, &bus);
            run(&mut interp, 1);
            let hart = interp.hart();
            let expected = if aligned { (0, 0) } else { (cause, DATA + offset) };
            assert_eq!((hart.mcause, hart.mtval), expected, "{word:#x} at +{offset}");
        }
    }
}

/// Privileged, 3.1.14 and 10.1.7: the lowest bit of `mepc` and `sepc` is always zero.
#[test]
fn exception_program_counters_are_even() {
    for csr in [0x341, 0x141] {
        let bus = TestBus::new(4, 0);
        // csrrw x0, csr, a0; csrrs a1, csr, x0
        bus.put_words(RAM, &[csr << 20 | 0x0005_1073, csr << 20 | 0x0000_25f3]);
        let mut hart = open_hart(RAM);
        hart.x[10] = u64::MAX;
        let (mut interp, _) = interp(hart, &bus);
        run(&mut interp, 2);
        assert_eq!(interp.hart().x[11], u64::MAX - 1);
    }
}

/// A store to a page that holds code is seen by loads at once, fence or not.
#[test]
fn watched_pages_still_hold_what_was_stored() {
    let bus = TestBus::new(4, 0);
    // Aligned and not, into the page that is executed.
    bus.put_bytes(
        RAM,
        &assemble!(
            ; sd a1, [a0, 0x100]
            ; sw a1, [a0, 0x109]
            ; sd a1, [a0, 0x203]
            ; ld a2, [a0, 0x203]
        ),
    );
    let mut hart = open_hart(RAM);
    (hart.x[10], hart.x[11]) = (RAM, 0x1122_3344_5566_7788);
    let (mut interp, _) = interp(hart, &bus);
    run(&mut interp, 4);
    assert_eq!(interp.hart().x[12], 0x1122_3344_5566_7788);
    assert_eq!(bus.load(RAM + 0x100, Double), 0x1122_3344_5566_7788);
    assert_eq!(bus.load(RAM + 0x108, Double), 0x55_6677_8800);
    assert_eq!(bus.load(RAM + 0x204, Word), 0x4455_6677);
}

#[test]
fn a_hart_gives_up_the_right_to_write_a_page_when_asked() {
    let bus = TestBus::new(4, 0);
    bus.put_bytes(RAM, &assemble!(; again: ; sd a1, [a0] ; addi a1, a1, 1 ; j <again));
    let mut hart = open_hart(RAM);
    hart.x[10] = DATA;
    let (mut interp, signals) = interp(hart, &bus);
    run(&mut interp, 3);
    assert_eq!(bus.reported(), []);
    // Another hart reads code from the page.
    bus.watch_code(1, DATA);
    bus.requests.lock().unwrap().push(Request::WriteProtect(DATA));
    signals.call_attention();
    run(&mut interp, 0);
    assert_eq!(bus.acknowledged.load(Ordering::SeqCst), 1, "before anything is executed");
    run(&mut interp, 3);
    assert_eq!(bus.reported(), [DATA]);
    run(&mut interp, 6);
    assert_eq!(bus.reported(), [DATA], "once it is reported it is watched no more");
    assert_eq!(bus.load(DATA, Double), 3);
}

#[test]
fn a_hart_forgets_translations_when_asked() {
    let bus = TestBus::new(8, 0);
    bus.put_bytes(RAM, &assemble!(; again: ; ld a1, [a0] ; j <again));
    bus.put_bytes(RAM + 0x3000, &assemble!(; again: ; ld a2, [a0] ; j <again));
    bus.store(DATA, Double, 1);
    bus.store(RAM + 0x4000, Double, 2);
    let mut hart = open_hart(0x10000);
    map(&bus, &mut hart, &[Some(RAM), Some(DATA)]);
    hart.x[10] = 0x11000;
    let (mut interp, signals) = interp(hart.clone(), &bus);
    run(&mut interp, 2);
    // Both pages become others: without a fence nothing need change, with the request everything does.
    map(&bus, &mut hart, &[Some(RAM + 0x3000), Some(RAM + 0x4000)]);
    bus.requests.lock().unwrap().push(Request::FlushTranslations);
    signals.call_attention();
    run(&mut interp, 2);
    let hart = interp.hart();
    assert_eq!((hart.x[11], hart.x[12]), (1, 2));
    assert_eq!(bus.acknowledged.load(Ordering::SeqCst), 1);
}

/// The supervisor timer (Sstc): the hart asks to be told when it expires, and looks when it is told.
#[test]
fn the_supervisor_timer_fires_at_its_deadline() {
    const STI: u64 = 1 << 5;
    let bus = TestBus::new(4, 0);
    bus.put_words(RAM, &[0x14d5_1073, 0x0015_8593, 0xffdf_f06f]); // csrw stimecmp, a0; addi a1, a1, 1; j .-4
    bus.put_words(HANDLER, &[0x6f]);
    let mut hart = open_hart(RAM);
    (hart.mtvec, hart.mie, hart.menvcfg) = (HANDLER, STI, 1 << 63);
    hart.mstatus |= 1 << 3;
    hart.x[10] = 5000;
    bus.clock.store(4999 * 100, Ordering::SeqCst);
    let (mut interp, signals) = interp(hart, &bus);
    run(&mut interp, 10);
    // Ticks of 100 ns: the board's 10 MHz.
    assert_eq!(bus.deadline.load(Ordering::SeqCst), 5000 * 100);
    assert_eq!(interp.hart().mcause, 0);
    bus.clock.store(5000 * 100, Ordering::SeqCst);
    signals.call_attention();
    run(&mut interp, 1);
    let hart = interp.hart();
    assert_eq!((hart.mcause, hart.retired), (INTERRUPT | 5, 11));
}

/// A kick and something else may call for the hart's attention at once; the kick must not swallow the other.
#[test]
fn what_comes_with_a_kick_is_not_lost() {
    let (mut hart, bus) = busy_machine();
    (hart.mie, hart.menvcfg, hart.stimecmp) = (1 << 5, 1 << 63, 5000);
    hart.mstatus |= 1 << 3;
    bus.clock.store(0, Ordering::SeqCst);
    let (mut interp, signals) = interp(hart, &bus);
    run(&mut interp, 1);
    bus.requests.lock().unwrap().push(Request::FlushTranslations);
    bus.clock.store(5000 * 100, Ordering::SeqCst);
    signals.call_attention();
    signals.kick();
    assert_eq!(run(&mut interp, 10), Exit::Budget);
    assert_eq!(interp.retired(), 1);
    run(&mut interp, 1);
    assert_eq!(bus.acknowledged.load(Ordering::SeqCst), 1, "the request");
    assert_eq!(interp.hart().mcause, INTERRUPT | 5, "the timer");
}
