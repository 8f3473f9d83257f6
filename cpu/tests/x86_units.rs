//! x87, MMX, SSE and AVX as parts of the processor: what forbids them, their exceptions, and how their state is saved.
//! Expected values are from the SDM, whose section each test names.

#[path = "x86_common/mod.rs"]
mod common;

use common::Start;
use common::pc::{CODE, DATA, DATA0, Pc, Program, register};
use iced_x86::code_asm::*;
use mimic_cpu::bus::{PAGE_SIZE, Width};
use mimic_cpu::x86::simd::V256;
use mimic_cpu::x86::state::{cr0, cr4, gpr, xcr0};

const NM: Option<u64> = Some(7);
const UD: Option<u64> = Some(6);
const GP: Option<u64> = Some(13);
const PF: Option<u64> = Some(14);
const MF: Option<u64> = Some(16);
const XM: Option<u64> = Some(19);

/// A PC in 64-bit mode with everything enabled.
fn enabled() -> Pc {
    let mut pc = Pc::new(Start::Long);
    pc.cpu.cr4 |= cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    pc.cpu.xcr0 = xcr0::X87 | xcr0::SSE | xcr0::AVX;
    pc
}

/// The exception that a program ends with where control registers are changed first.
fn outcome(change: &dyn Fn(&mut Pc), program: &Program<'_>) -> Option<u64> {
    let mut pc = enabled();
    change(&mut pc);
    pc.put(64, program);
    pc.run().0
}

#[test]
fn control_registers_forbid_units() {
    // SDM vol. 3, tables 2-2 and 2-3 and 13-1; vol. 2, tables 2-18 to 2-24.
    let x87: &Program<'_> = &|a| a.fld1().and_then(|()| a.hlt());
    let waits: &Program<'_> = &|a| a.wait().and_then(|()| a.hlt());
    let mmx: &Program<'_> = &|a| a.paddb(mm0, mm1).and_then(|()| a.hlt());
    let sse: &Program<'_> = &|a| a.addps(xmm0, xmm1).and_then(|()| a.hlt());
    let control: &Program<'_> = &|a| a.stmxcsr(dword_ptr(DATA)).and_then(|()| a.hlt());
    let avx: &Program<'_> = &|a| a.vaddps(ymm0, ymm1, ymm2).and_then(|()| a.hlt());
    let crc: &Program<'_> = &|a| a.crc32(eax, ebx).and_then(|()| a.hlt());
    let fx: &Program<'_> = &|a| a.fxsave(ptr(DATA)).and_then(|()| a.hlt());
    let xs: &Program<'_> = &|a| a.xsave(ptr(DATA)).and_then(|()| a.hlt());
    let moves: &Program<'_> = &|a| a.movnti(dword_ptr(DATA), eax).and_then(|()| a.hlt());
    let no = |_: &mut Pc| ();
    let ts = |pc: &mut Pc| pc.cpu.cr0 |= cr0::TS;
    let mp_ts = |pc: &mut Pc| pc.cpu.cr0 |= cr0::TS | cr0::MP;
    let em = |pc: &mut Pc| pc.cpu.cr0 |= cr0::EM;
    let no_fxsr = |pc: &mut Pc| pc.cpu.cr4 &= !cr4::OSFXSR;
    let no_xsave = |pc: &mut Pc| pc.cpu.cr4 &= !cr4::OSXSAVE;
    let no_avx = |pc: &mut Pc| pc.cpu.xcr0 &= !xcr0::AVX;
    type Change<'a> = &'a dyn Fn(&mut Pc);
    let all: [(&str, &Program<'_>, [Option<u64>; 7]); 10] = [
        ("x87", x87, [None, NM, NM, NM, None, None, None]),
        ("wait", waits, [None, None, NM, None, None, None, None]),
        ("mmx", mmx, [None, NM, NM, UD, None, None, None]),
        ("sse", sse, [None, NM, NM, UD, UD, None, None]),
        ("stmxcsr", control, [None, NM, NM, UD, UD, None, None]),
        ("avx", avx, [None, NM, NM, None, None, UD, UD]),
        ("crc32", crc, [None, None, None, None, None, None, None]),
        ("fxsave", fx, [None, NM, NM, NM, None, None, None]),
        ("xsave", xs, [None, NM, NM, None, None, UD, None]),
        ("movnti", moves, [None, None, None, None, None, None, None]),
    ];
    let changes: [Change<'_>; 7] = [&no, &ts, &mp_ts, &em, &no_fxsr, &no_xsave, &no_avx];
    for (name, program, expected) in all {
        for (i, (change, expected)) in changes.iter().zip(expected).enumerate() {
            assert_eq!(outcome(*change, program), expected, "{name}, change {i}");
        }
    }
}

#[test]
fn avx_exists_in_protected_mode_only() {
    // SDM vol. 2, 2.3.5: VEX prefixes in real and virtual-8086 mode are #UD; vol. 1, 14.1.
    let mut pc = Pc::new(Start::Protected32);
    pc.cpu.cr4 |= cr4::OSFXSR | cr4::OSXSAVE;
    pc.cpu.xcr0 = 7;
    pc.put(32, &|a| a.vpaddb(xmm0, xmm1, xmm2).and_then(|()| a.hlt()));
    assert_eq!(pc.run().0, None);
    pc.cpu.cr4 &= !cr4::OSXSAVE;
    assert_eq!(pc.run().0, UD);
}

#[test]
fn an_x87_exception_waits_for_the_next_waiting_instruction() {
    // SDM vol. 1, 8.7; vol. 3, "#MF".
    let divide: &Program<'_> = &|a| {
        a.fninit()?;
        a.mov(word_ptr(DATA), 0x037b)?; // Division by zero is not masked.
        a.fldcw(word_ptr(DATA))?;
        a.fld1()?;
        a.fldz()?;
        a.fdivp(st1, st0)?;
        a.fnstsw(ax)?; // Does not wait.
        a.mov(ecx, 1)?;
        a.wait()?;
        a.mov(ecx, 2)?;
        a.hlt()
    };
    let mut pc = enabled();
    pc.put(64, divide);
    let (fault, cpu) = pc.run();
    assert_eq!(fault, MF);
    assert_eq!(register(&cpu, gpr::RAX) & 0x8084, 0x8084, "ZE, ES and B");
    assert_eq!(register(&cpu, gpr::RCX), 1);
    // The pushed RIP is that of WAIT, the image's that of FDIVP.
    let back = pc.stack(&cpu, 0, Width::Double);
    assert_eq!(pc.bus.load(back, Width::Byte), 0x9b);
    let pointer = cpu.x87.pointers.ip;
    assert_eq!(pc.bus.load(pointer, Width::Half), 0xf9de, "FDIVP ST(1), ST(0)");
    assert_eq!(cpu.x87.pointers.opcode, 0x6f9);
    // MMX waits, too; without CR0.NE nothing comes (as with IGNNE#).
    pc.put(64, &|a| {
        divide_unmasked(a)?;
        a.paddb(mm0, mm1)?;
        a.hlt()
    });
    assert_eq!(pc.run().0, MF);
    pc.cpu.cr0 &= !cr0::NE;
    assert_eq!(pc.run().0, None);
    // FNINIT, FNCLEX, FNSTENV, FXSAVE do not wait.
    pc.cpu.cr0 |= cr0::NE;
    pc.put(64, &|a| {
        divide_unmasked(a)?;
        a.fxsave(ptr(DATA))?;
        a.fnstcw(word_ptr(DATA))?;
        a.fnclex()?;
        a.fld1()?;
        a.hlt()
    });
    assert_eq!(pc.run().0, None);
}

fn divide_unmasked(a: &mut CodeAssembler) -> Result<(), iced_x86::IcedError> {
    a.fninit()?;
    a.mov(word_ptr(DATA), 0x037b)?;
    a.fldcw(word_ptr(DATA))?;
    a.fld1()?;
    a.fldz()?;
    a.fdivp(st1, st0)
}

#[test]
fn a_simd_exception_is_raised_at_once_and_nothing_is_written() {
    // SDM vol. 1, 11.5.2; vol. 3, "#XM": #UD if CR4.OSXMMEXCPT is clear.
    for (enabled_bit, expected) in [(cr4::OSXMMEXCPT, XM), (0, UD)] {
        let mut pc = enabled();
        pc.cpu.cr4 = pc.cpu.cr4 & !cr4::OSXMMEXCPT | enabled_bit;
        pc.put(64, &|a| {
            a.mov(dword_ptr(DATA), 0x1d80)?; // Division by zero is not masked.
            a.ldmxcsr(dword_ptr(DATA))?;
            a.mov(eax, 0x3f80_0000)?;
            a.movd(xmm0, eax)?;
            a.pxor(xmm1, xmm1)?;
            a.divss(xmm0, xmm1)?;
            a.hlt()
        });
        let (fault, cpu) = pc.run();
        assert_eq!(fault, expected);
        assert_eq!(cpu.ymm[0].0[0], 0x3f80_0000);
        assert_eq!(cpu.mxcsr.bits(), 0x1d84, "ZE is recorded");
    }
    let reserved = outcome(&|_| (), &|a| {
        a.mov(dword_ptr(DATA), 0x1_1f80)?;
        a.ldmxcsr(dword_ptr(DATA))?;
        a.hlt()
    });
    assert_eq!(reserved, GP, "a reserved bit of MXCSR (SDM vol. 2, LDMXCSR)");
}

#[test]
fn legacy_operands_must_be_aligned() {
    // SDM vol. 2, tables 2-18 to 2-21.
    let at = |program: &Program<'_>| outcome(&|_| (), program);
    assert_eq!(at(&|a| a.addps(xmm0, xmmword_ptr(DATA + 8)).and_then(|()| a.hlt())), GP);
    assert_eq!(at(&|a| a.movups(xmm0, xmmword_ptr(DATA + 8)).and_then(|()| a.hlt())), None);
    assert_eq!(at(&|a| a.vaddps(xmm0, xmm0, xmmword_ptr(DATA + 8)).and_then(|()| a.hlt())), None);
    assert_eq!(at(&|a| a.vmovaps(ymm0, ymmword_ptr(DATA + 16)).and_then(|()| a.hlt())), GP);
    assert_eq!(at(&|a| a.fxsave(ptr(DATA + 8)).and_then(|()| a.hlt())), GP);
    assert_eq!(at(&|a| a.xsave(ptr(DATA + 16)).and_then(|()| a.hlt())), GP);
}

/// The first address that is not mapped in [`holed`].
const HOLE: u64 = DATA + PAGE_SIZE;

/// A PC in 64-bit mode whose page at [`HOLE`] is not present: the first 2 MiB are mapped by pages of 4 KiB.
fn holed() -> Pc {
    let pc = enabled();
    let (directory, table) = (0x3_8000, 0x3_9000);
    pc.bus.store(common::TABLES + PAGE_SIZE, Width::Double, directory | 7);
    pc.bus.store(directory, Width::Double, table | 7);
    for page in 0..64 {
        let present = if page * PAGE_SIZE == HOLE { 0 } else { 7 };
        pc.bus.store(table + 8 * page, Width::Double, page * PAGE_SIZE | present);
    }
    pc
}

#[test]
fn masked_moves_touch_only_what_they_move() {
    // SDM vol. 2, "VMASKMOV": faults do not occur due to elements that the mask leaves out.
    for (mask, expected) in
        [([0, 0, 0, 0], None), ([u64::MAX, 0, 0, 0], None), ([0, 1 << 63, 0, 0], PF)]
    {
        let mut pc = holed();
        pc.cpu.ymm[1] = V256(mask);
        pc.cpu.ymm[2] = V256([5; 4]);
        pc.bus.store(HOLE - 8, Width::Double, 0x1234);
        pc.put(64, &|a| {
            a.vmaskmovpd(ymm0, ymm1, ymmword_ptr(HOLE - 8))?;
            a.vmaskmovpd(ymmword_ptr(HOLE - 8), ymm1, ymm2)?;
            a.hlt()
        });
        let (fault, cpu) = pc.run();
        assert_eq!(fault, expected);
        if mask[0] != 0 {
            assert_eq!(cpu.ymm[0].0, [0x1234, 0, 0, 0]);
            assert_eq!(pc.bus.load(HOLE - 8, Width::Double), 5);
        }
    }
    // A store whose second element faults has written nothing.
    let mut pc = holed();
    pc.cpu.ymm[1] = V256([u64::MAX; 4]);
    pc.cpu.ymm[2] = V256([5; 4]);
    pc.put(64, &|a| {
        a.vmaskmovpd(ymmword_ptr(HOLE - 8), ymm1, ymm2)?;
        a.hlt()
    });
    let (fault, cpu) = pc.run();
    assert_eq!(fault, PF);
    assert_eq!(cpu.cr2, HOLE);
    assert_eq!(pc.bus.load(HOLE - 8, Width::Double), 0);
}

#[test]
fn a_gather_keeps_what_arrived_before_a_fault() {
    // SDM vol. 2, "VPGATHERDD": elements to the right of the faulting one are complete, their mask is clear.
    let mut pc = holed();
    pc.cpu.ymm[0] = V256([7; 4]);
    pc.cpu.ymm[1] = V256([u64::MAX; 4]);
    pc.cpu.ymm[2] = V256([0, 1, 0, 0]);
    pc.cpu.gpr[usize::from(gpr::RBX)] = HOLE - 8;
    pc.bus.store(HOLE - 8, Width::Double, 0x1234);
    pc.put(64, &|a| {
        a.db(&[0xc4, 0xe2, 0xf5, 0x91, 0x04, 0xd3])?; // VPGATHERQQ ymm0, [rbx + ymm2 * 8], ymm1
        a.hlt()
    });
    let (fault, cpu) = pc.run();
    assert_eq!(fault, PF);
    assert_eq!(cpu.ymm[0].0, [0x1234, 7, 7, 7]);
    assert_eq!(cpu.ymm[1].0, [0, u64::MAX, u64::MAX, u64::MAX]);
}

#[test]
fn fxsave_has_its_layout() {
    // SDM vol. 1, table 10-2.
    let mut pc = enabled();
    pc.cpu.ymm[15] = V256([1, 2, 3, 4]);
    pc.bus.store(DATA + 416, Width::Double, 0x5555);
    pc.put(64, &|a| {
        a.fninit()?;
        a.fld1()?;
        a.fldpi()?;
        a.fld(dword_ptr(DATA + 0x800))?;
        a.fxsave64(ptr(DATA))?;
        a.fninit()?;
        a.pxor(xmm15, xmm15)?;
        a.fxrstor64(ptr(DATA))?;
        a.hlt()
    });
    let (fault, cpu) = pc.run();
    assert_eq!(fault, None);
    let load = |at: u64, width| pc.bus.load(DATA + at, width);
    assert_eq!(load(0, Width::Half), 0x37f);
    assert_eq!(load(2, Width::Half) >> 11, 5, "TOP");
    assert_eq!(load(4, Width::Half), 0xe0, "R5 to R7 are not empty");
    assert_eq!(load(6, Width::Half), 0x104, "FLD m32: D9 /0 with a SIB byte");
    assert_eq!(load(8, Width::Double), CODE + 2 + 2 + 2);
    assert_eq!(load(16, Width::Double), DATA + 0x800);
    assert_eq!(load(24, Width::Double), 0xffff_0000_1f80);
    assert_eq!(load(64, Width::Double), 1 << 63, "1.0 in ST(2)");
    assert_eq!(load(72, Width::Half), 0x3fff);
    assert_eq!([load(400, Width::Double), load(408, Width::Double)], [1, 2]);
    assert_eq!(load(416, Width::Double), 0x5555, "available to software");
    assert_eq!(cpu.ymm[15].0, [1, 2, 3, 4]);
    assert!(!cpu.x87.is_empty(2) && cpu.x87.is_empty(3));
}

#[test]
fn environments_tell_selectors_in_protected_mode() {
    // SDM vol. 1, figure 8-9.
    let mut pc = Pc::new(Start::Protected32);
    pc.cpu.seg[3].selector = DATA0;
    pc.put(32, &|a| {
        a.fninit()?;
        a.fld(qword_ptr(DATA as u32))?;
        a.fnstenv(dword_ptr(DATA as u32 + 64))?;
        a.hlt()
    });
    assert_eq!(pc.run().0, None);
    let load = |at: u64| pc.bus.load(DATA + 64 + at, Width::Word);
    assert_eq!(load(0) & 0xffff, 0x37f);
    assert_eq!(load(8) & 0xffff, 0x7fff, "R7 is zero: tag 1");
    assert_eq!(load(12), CODE + 2);
    assert_eq!(load(16), 0x505 << 16 | 8, "DD /0 with disp32, and CS");
    assert_eq!(load(20), DATA);
    assert_eq!(load(24) & 0xffff, u64::from(DATA0));
}

#[test]
fn xsave_and_xrstor_keep_components() {
    // SDM vol. 1, 13.7 to 13.10.
    let mut pc = enabled();
    pc.cpu.ymm[3] = V256([1, 2, 3, 4]);
    pc.bus.store(DATA + 512, Width::Double, 1);
    pc.put(64, &|a| {
        a.fninit()?;
        a.mov(eax, 6)?;
        a.xor(edx, edx)?;
        a.xsave(ptr(DATA))?;
        a.xsavec(ptr(DATA + 0x400))?;
        a.vzeroall()?;
        a.xsaveopt(ptr(DATA + 0x800))?;
        a.xrstor(ptr(DATA))?;
        a.vmovdqa(ymm4, ymm3)?;
        a.vzeroall()?;
        a.xrstor(ptr(DATA + 0x400))?;
        a.mov(ecx, 1)?;
        a.xgetbv()?;
        a.mov(ebx, eax)?;
        a.hlt()
    });
    let (fault, cpu) = pc.run();
    assert_eq!(fault, None);
    let load = |at: u64| pc.bus.load(DATA + at, Width::Double);
    assert_eq!(load(512), 7, "what was not asked for stays");
    assert_eq!([load(208), load(216), load(624), load(632)], [1, 2, 3, 4]);
    assert_eq!([load(0x600), load(0x608)], [6, 1 << 63 | 6], "XSTATE_BV and XCOMP_BV");
    assert_eq!(load(0xa00), 0, "nothing was in use");
    assert_eq!(cpu.ymm[3].0, [1, 2, 3, 4]);
    assert_eq!(cpu.ymm[4].0, [0; 4], "the second XRSTOR made it initial");
    assert_eq!(register(&cpu, gpr::RBX) & 6, 6, "XINUSE");
    // XSTATE_BV with what XCR0 does not have: #GP(0).
    pc.bus.store(DATA + 512, Width::Double, 1 << 9);
    pc.put(64, &|a| {
        a.mov(eax, 7)?;
        a.xor(edx, edx)?;
        a.xrstor(ptr(DATA))?;
        a.hlt()
    });
    assert_eq!(pc.run().0, GP);
}

#[test]
fn xsetbv_takes_valid_values_only() {
    // SDM vol. 2, "XSETBV"; vol. 1, 13.3.
    for (value, expected) in [(1, None), (3, None), (7, None), (0, GP), (5, GP), (6, GP), (15, GP)]
    {
        let pc = enabled();
        pc.put(64, &|a| {
            a.xor(ecx, ecx)?;
            a.xor(edx, edx)?;
            a.mov(eax, value)?;
            a.xsetbv()?;
            a.mov(eax, 0xd)?;
            a.cpuid()?;
            a.hlt()
        });
        let (fault, cpu) = pc.run();
        assert_eq!(fault, expected, "{value}");
        if fault.is_none() {
            assert_eq!(cpu.xcr0, u64::from(value as u32));
            let enabled = if value == 7 { 832 } else { 576 };
            assert_eq!(register(&cpu, gpr::RBX), enabled, "CPUID.0DH:EBX");
            assert_eq!(register(&cpu, gpr::RCX), 832);
        }
    }
}
