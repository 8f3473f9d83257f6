//! Protection keys. Expected values are from the SDM, volume 3, sections 5.6.2 and 5.7, volume 1, chapter 13, and volume
//! 2, "RDPKRU" and "WRPKRU".

#[path = "x86_common/mod.rs"]
mod common;

use common::pc::{CODE, CODE3, DATA, DATA3, Pc, STACK, assemble, register};
use common::{Start, TABLES};
use iced_x86::code_asm::*;
use mimic_cpu::bus::Width;
use mimic_cpu::x86::state::{cr0, cr4, gpr};

const MODEL: &str = "x86-64-v3,pku=on,pks=on";
/// The second GiB is the first one again, with protection key 2.
const KEYED: u64 = 0x4000_0000 + DATA;
/// AD and WD of key 2.
const AD: u32 = 0x10;
const WD: u32 = 0x20;

fn keyed(user: bool) -> Pc {
    let mut pc = Pc::new(Start::Long);
    pc.cpu.model = MODEL.parse().unwrap();
    pc.cpu.cr4 |= cr4::PKE | cr4::PKS | cr4::OSXSAVE;
    let rights = if user { 0x87 } else { 0x83 };
    pc.bus.store(TABLES + 0x1008, Width::Double, 2 << 59 | rights);
    pc
}

#[test]
fn keys_deny_accesses_and_writes() {
    // User page, CR0.WP, PKRU, PKRS; error codes of a load, of a store.
    let rows = [
        (true, true, 0, AD | WD, None, None),
        (true, true, AD, 0, Some(0x21), Some(0x23)),
        (true, true, WD, 0, None, Some(0x23)),
        (true, false, WD, 0, None, None),
        (true, false, AD, 0, Some(0x21), Some(0x23)),
        (false, true, AD | WD, 0, None, None),
        (false, true, 0, AD, Some(0x21), Some(0x23)),
        (false, true, 0, WD, None, Some(0x23)),
        (false, false, 0, WD, None, None),
    ];
    for (user, wp, pkru, pkrs, load, store) in rows {
        for (is_store, expected) in [(false, load), (true, store)] {
            let mut pc = keyed(user);
            pc.cpu.pkru = pkru;
            pc.cpu.msr.pkrs = pkrs;
            if !wp {
                pc.cpu.cr0 &= !cr0::WP;
            }
            pc.put(64, &|a| {
                a.mov(rbx, KEYED)?;
                if is_store {
                    a.mov(dword_ptr(rbx), eax)?;
                } else {
                    a.mov(eax, dword_ptr(rbx))?;
                }
                a.hlt()
            });
            let (fault, cpu) = pc.run();
            let row = format!("user {user} wp {wp} {pkru:#x} {pkrs:#x} store {is_store}");
            assert_eq!(fault, expected.map(|_| 14), "{row}");
            if let Some(code) = expected {
                assert_eq!(pc.stack(&cpu, 0, Width::Double), code, "{row}");
            }
        }
    }
}

#[test]
fn a_change_of_pkru_counts_at_once_and_code_is_free() {
    let pc = keyed(true);
    pc.put(64, &|a| {
        // The page is used, then forbidden; code in it can still be called.
        a.mov(rbx, KEYED)?;
        a.mov(esi, dword_ptr(rbx))?;
        a.xor(ecx, ecx)?;
        a.xor(edx, edx)?;
        a.mov(eax, AD)?;
        a.wrpkru()?;
        a.xor(eax, eax)?;
        a.rdpkru()?;
        a.mov(edi, eax)?;
        a.call(rbx)?;
        a.mov(esi, dword_ptr(rbx))?;
        a.hlt()
    });
    // RET.
    pc.bus.put(DATA, &[0xc3]);
    let (fault, cpu) = pc.run();
    assert_eq!((fault, register(&cpu, gpr::RDI)), (Some(14), u64::from(AD)));
    assert_eq!(cpu.cr2, KEYED);
}

#[test]
fn level_3_may_write_pkru_and_is_bound_by_wd_whatever_wp_says() {
    let mut pc = keyed(true);
    pc.cpu.cr0 &= !cr0::WP;
    pc.put(64, &|a| {
        for value in [i32::from(DATA3), STACK as i32, 2, i32::from(CODE3), (CODE + 0x40) as i32] {
            a.push(value)?;
        }
        a.iretq()
    });
    let user = assemble(64, CODE + 0x40, &|a| {
        a.mov(eax, WD)?;
        a.xor(ecx, ecx)?;
        a.xor(edx, edx)?;
        a.wrpkru()?;
        a.mov(rbx, KEYED)?;
        a.mov(dword_ptr(rbx), eax)?;
        a.hlt()
    });
    pc.bus.put(CODE + 0x40, &user);
    let (fault, cpu) = pc.run();
    assert_eq!(fault, Some(14));
    assert_eq!(pc.stack(&cpu, 0, Width::Double), 0x27, "present, store, user, key");
}

#[test]
fn xsave_keeps_pkru() {
    // CPUID leaf 0dh, subleaf 9: 8 bytes at 2688; in the compacted format behind the 576 bytes of what is always there.
    for (compacted, at) in [(false, 2688), (true, 576)] {
        let mut pc = keyed(true);
        pc.cpu.xcr0 = 0x203;
        pc.cpu.pkru = 0x50;
        pc.put(64, &|a| {
            a.mov(eax, 0x200)?;
            a.xor(edx, edx)?;
            a.mov(rbx, DATA)?;
            if compacted {
                a.xsavec64(ptr(rbx))?;
            } else {
                a.xsave64(ptr(rbx))?;
            }
            a.xor(eax, eax)?;
            a.xor(ecx, ecx)?;
            a.wrpkru()?;
            a.mov(eax, 0x200)?;
            a.xrstor64(ptr(rbx))?;
            a.hlt()
        });
        let (fault, cpu) = pc.run();
        assert_eq!((fault, cpu.pkru), (None, 0x50), "compacted {compacted}");
        assert_eq!(pc.bus.load(DATA + at, Width::Double), 0x50);
        assert_eq!(pc.bus.load(DATA + 512, Width::Double), 0x200, "XSTATE_BV");
    }
    let model: mimic_cpu::x86::model::Model = MODEL.parse().unwrap();
    assert_eq!(model.cpuid(0xd, 9, Default::default()), [8, 2688, 0, 0]);
    assert_eq!(model.cpuid(0xd, 0, Default::default())[2], 2696);
}
