//! Model-specific registers bit by bit: which can be set, what reads back, what is #GP(0). Expected values are from the
//! SDM, volume 4, table 2-2, and volume 3, section 13.11 (MTRRs), and AMD's *Architecture Programmer's Manual* (APM).

#[path = "x86_common/mod.rs"]
mod common;

use common::Start;
use common::pc::{Pc, register};
use iced_x86::code_asm::*;
use mimic_cpu::x86::state::gpr;

/// What becomes of a write: the value that reads back, or #GP(0).
type Result = std::result::Result<u64, u64>;
const GP: Result = Err(13);

fn pc(model: &str) -> Pc {
    let mut pc = Pc::new(Start::Long);
    pc.cpu.model = model.parse().unwrap();
    pc
}

fn value(cpu: &mimic_cpu::x86::state::Cpu) -> u64 {
    register(cpu, gpr::RDX) << 32 | register(cpu, gpr::RAX)
}

fn read(model: &str, msr: u32) -> Result {
    let pc = pc(model);
    pc.put(64, &|a| {
        a.mov(ecx, msr)?;
        a.rdmsr()?;
        a.hlt()
    });
    let (fault, cpu) = pc.run();
    fault.map_or_else(|| Ok(value(&cpu)), Err)
}

/// Writes; without reading back, where a register cannot be read.
fn write(model: &str, msr: u32, new: u64, back: bool) -> Result {
    let pc = pc(model);
    pc.put(64, &|a| {
        a.mov(ecx, msr)?;
        a.mov(eax, new as u32)?;
        a.mov(edx, (new >> 32) as u32)?;
        a.wrmsr()?;
        if back {
            a.rdmsr()?;
        }
        a.hlt()
    });
    let (fault, cpu) = pc.run();
    fault.map_or_else(|| Ok(value(&cpu)), Err)
}

const INTEL: &str = "x86-64-v3";
const AMD: &str = "x86-64-v3,vendor=amd";

/// Registers whose bits are either kept or #GP: name, number, bits that may be set, a value to which they are added.
#[rustfmt::skip] // a table
const KEPT: &[(&str, u32, u64, u64)] = &[
    ("IA32_TSC_ADJUST", 0x3b, u64::MAX, 0),
    // IBRS; STIBP and SSBD have bits of CPUID of their own, which are clear.
    ("IA32_SPEC_CTRL", 0x48, 1, 0),
    // Read, and written to by zero alone.
    ("IA32_MCG_STATUS", 0x17a, 0, 0),
    // Type in bits 7 to 0 (0 is UC); base up to MAXPHYADDR, 40.
    ("IA32_MTRR_PHYSBASE0", 0x200, 0xff_ffff_f000, 0),
    ("IA32_MTRR_PHYSMASK0", 0x201, 0xff_ffff_f800, 0),
    ("IA32_MTRR_PHYSMASK7", 0x20f, 0xff_ffff_f800, 0),
    // Type, FE and E.
    ("IA32_MTRR_DEF_TYPE", 0x2ff, 0xc00, 6),
    ("IA32_TSC_AUX", 0xc000_0103, 0xffff_ffff, 0),
    ("IA32_STAR", 0xc000_0081, u64::MAX, 0),
];

#[test]
fn bits_are_kept_or_refused() {
    for &(name, msr, allowed, base) in KEPT {
        assert_eq!(write(INTEL, msr, base, true), Ok(base), "{name}");
        for bit in (0..64).map(|bit| 1u64 << bit).filter(|bit| base & bit == 0) {
            // Other types of memory are looked at below.
            if matches!(msr, 0x200 | 0x2ff) && bit < 0x100 {
                continue;
            }
            let expected = if allowed & bit != 0 { Ok(base | bit) } else { GP };
            assert_eq!(write(INTEL, msr, base | bit, true), expected, "{name} bit {bit:#x}");
        }
    }
}

/// SDM vol. 3, tables 13-8 and 13-10: memory types 0, 1, 4, 5 and 6; in the PAT also 7.
#[test]
fn memory_types_are_those_that_there_are() {
    for kind in 0..=255u64 {
        let known = matches!(kind, 0 | 1 | 4 | 5 | 6);
        for msr in [0x200, 0x2ff] {
            let expected = if known { Ok(kind) } else { GP };
            assert_eq!(write(INTEL, msr, kind, true), expected, "{msr:#x} {kind}");
        }
        for (msr, known) in [(0x250, known), (0x26f, known), (0x277, known || kind == 7)] {
            for byte in 0..8 {
                let value = kind << (8 * byte);
                let expected = if known { Ok(value) } else { GP };
                assert_eq!(write(INTEL, msr, value, true), expected, "{msr:#x} {value:#x}");
            }
        }
    }
}

/// Read-only and write-only registers, and such as only a feature has.
#[test]
fn some_are_only_read_or_only_written() {
    // IA32_FEATURE_CONTROL: locked. IA32_MTRRCAP: 8 variable ranges, fixed ones, write-combining. IA32_MCG_CAP: no bank.
    for (msr, value) in [(0x3a, 1), (0xfe, 0x508), (0x179, 0)] {
        assert_eq!(read(INTEL, msr), Ok(value), "{msr:#x}");
        assert_eq!(write(INTEL, msr, value, true), GP, "{msr:#x}");
    }
    // IA32_PRED_CMD: IBPB.
    assert_eq!(read(INTEL, 0x49), GP);
    assert_eq!(write(INTEL, 0x49, 1, false).map(drop), Ok(()));
    for bit in 1..64 {
        assert_eq!(write(INTEL, 0x49, 1 << bit, false), GP, "bit {bit}");
    }
    for (feature, msrs) in [
        ("spec-ctrl", [0x48, 0x49]),
        ("tsc-adjust", [0x3b, 0x3b]),
        ("arch-capabilities", [0x10a, 0x10a]),
    ] {
        let without = format!("{INTEL},{feature}=off");
        for msr in msrs {
            assert_eq!(read(&without, msr), GP, "{feature}");
            assert_eq!(write(&without, msr, 0, false), GP, "{feature}");
        }
    }
}

/// SDM vol. 4, table 2-2, IA32_ARCH_CAPABILITIES: RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO
/// and the like: what says that something is not, no control that would have a register of its own (TSX_CTRL, bit 7;
/// MISC_PACKAGE_CTLS, bit 10; ENERGY_FILTERING_CTL, bit 11; FB_CLEAR_CTRL, bit 18; XAPIC_DISABLE_STATUS, bit 21; DOITM, bit 12;
/// OVERCLOCKING_STATUS, bit 23), nor a weakness (RSBA, bit 2; FB_CLEAR, bit 17; RRSBA, bit 19; GDS_CTRL, bit 25;
/// RFDS_CLEAR, bit 28), nor a reserved bit.
#[test]
fn architectural_capabilities_promise_nothing_that_is_not_there() {
    let value = read(INTEL, 0x10a).unwrap();
    for bit in [0, 1, 3, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27, 62] {
        assert_eq!(value >> bit & 1, 1, "bit {bit}");
    }
    assert_eq!(value.count_ones(), 15);
    for bit in 0..64 {
        assert_eq!(write(INTEL, 0x10a, 1 << bit, false), GP, "bit {bit}");
    }
}

/// SDM vol. 3, table 2-5 and 2.2.1: EFER's SCE, LME, LMA (read-only) and NXE. LME cannot change under paging.
#[test]
fn efer_has_four_bits() {
    let now = 0xd00u64 & read(INTEL, 0xc000_0080).unwrap();
    for bit in (0..64).map(|bit| 1u64 << bit) {
        let expected = match bit {
            1 | 0x800 => Ok(now | bit),
            0x100 | 0x400 => Ok(now),
            _ => GP,
        };
        assert_eq!(write(INTEL, 0xc000_0080, now | bit, true), expected, "bit {bit:#x}");
    }
    assert_eq!(write(INTEL, 0xc000_0080, now & !0x100, true), GP, "LME under paging");
    assert_eq!(write(INTEL, 0xc000_0080, now & !0x400, true), Ok(now), "LMA is read-only");
    assert_eq!(write("x86-64-v3,nx=off", 0xc000_0080, now | 0x800, true), GP, "no NX");
}

/// APM vol. 2, appendix A: AMD's processors have four performance counters without a feature that says so.
#[test]
fn amd_has_counters() {
    for msr in 0xc001_0000..=0xc001_0007 {
        assert_eq!(read(AMD, msr), Ok(0), "{msr:#x}");
        assert_eq!(read(INTEL, msr), GP, "{msr:#x}");
    }
    assert_eq!(read(AMD, 0xc001_0008), GP);
}
