//! Page faults and what translations leave in page tables. Expected values are from the SDM, vol. 3, chapter 5.

#[path = "x86_common/mod.rs"]
mod common;

use common::Start;
use common::pc::{DATA, Pc, Program};
use iced_x86::code_asm::*;
use mimic_cpu::bus::Width;
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::state::{Cpu, cr0, cr4};

#[test]
fn upper_entries_are_marked_accessed_only_when_the_translation_succeeds() {
    // The 80386 leaves A of the directory's entry alone when a page fault comes of it, as Bochs does, and test386 asks
    // for it; SDM vol. 3, 5.8 lets A be set "whenever" an entry is used.
    for (entry, fault) in [(DATA | 7, None), (DATA | 6, Some(14)), (DATA | 5, Some(14))] {
        let mut pc = Pc::new(Start::Protected32);
        pc.cpu.cr0 |= cr0::PG | cr0::WP;
        pc.cpu.cr3 = 0x8000;
        pc.bus.store(0x8000, Width::Word, 0x83);
        pc.cpu.cr4 |= cr4::PSE;
        // The code is at 0; the data is seen 4 MiB higher.
        pc.bus.store(0x8004, Width::Word, 0x9003);
        pc.bus.store(0x9000 + 4 * (DATA >> 12), Width::Word, entry);
        pc.put(32, &|a| {
            a.mov(byte_ptr(0x40_0000 + DATA as u32), al)?;
            a.hlt()
        });
        let (met, _) = pc.run();
        assert_eq!(met, fault);
        let accessed = pc.bus.load(0x8004, Width::Word) & 0x20 != 0;
        assert_eq!(accessed, fault.is_none(), "page-table entry {entry:#x}");
    }
}

/// Runs a program of level 0 in long mode with the page of [`DATA`] mapped by `entry`.
fn with_data_page(
    entry: u64,
    set: impl Fn(&mut Cpu),
    program: &Program<'_>,
) -> (Option<u64>, Cpu, u64) {
    let mut pc = Pc::new(Start::Long);
    // The first GiB by 2 MiB pages, its first by 4 KiB pages.
    const PD: u64 = 0x8000;
    const PT: u64 = 0x9000;
    pc.bus.store(common::TABLES + 0x1000, Width::Double, PD | 7);
    pc.bus.store(PD, Width::Double, PT | 7);
    for page in 0..512 {
        pc.bus.store(PT + 8 * page, Width::Double, page << 12 | 3);
    }
    pc.bus.store(PT + 8 * (DATA >> 12), Width::Double, entry);
    set(&mut pc.cpu);
    pc.put(64, program);
    let (fault, cpu) = pc.run();
    let error = if fault == Some(14) { pc.stack(&cpu, 0, Width::Double) } else { u64::MAX };
    (fault, cpu, error)
}

#[test]
fn page_faults_tell_what_was_wrong() {
    // SDM vol. 3, 5.7: P, W/R, U/S, RSVD, I/D.
    let read: &Program<'_> = &|a| {
        a.mov(rax, qword_ptr(DATA + 8))?;
        a.hlt()
    };
    let write: &Program<'_> = &|a| {
        a.mov(qword_ptr(DATA + 8), rax)?;
        a.hlt()
    };
    let fetch: &Program<'_> = &|a| {
        a.mov(rax, DATA + 8)?;
        a.jmp(rax)
    };
    const NX: u64 = 1 << 63;
    let plain = |_: &mut Cpu| {};
    let smep = |cpu: &mut Cpu| cpu.cr4 |= cr4::SMEP;
    let smap = |cpu: &mut Cpu| cpu.cr4 |= cr4::SMAP;
    type Set<'a> = &'a dyn Fn(&mut Cpu);
    let cases: [(&str, u64, Set, &Program<'_>, Option<u64>); 12] = [
        ("present", DATA | 3, &plain, read, None),
        ("absent", DATA | 2, &plain, read, Some(0)),
        ("absent, written", DATA | 2, &plain, write, Some(2)),
        ("read-only with WP", DATA | 1, &plain, write, Some(3)),
        ("read-only without WP", DATA | 1, &|cpu| cpu.cr0 &= !(1 << 16), write, None),
        ("reserved bit", DATA | 3 | 1 << 51, &plain, read, Some(9)),
        ("NX", DATA | 3 | NX, &plain, fetch, Some(0x11)),
        ("NX when disabled", DATA | 3 | NX, &|cpu| cpu.efer &= !(1 << 11), read, Some(9)),
        ("user page, fetched under SMEP", DATA | 7, &smep, fetch, Some(0x11)),
        ("user page, read under SMAP", DATA | 7, &smap, read, Some(1)),
        (
            "user page, read under SMAP with AC",
            DATA | 7,
            &|cpu| {
                cpu.cr4 |= cr4::SMAP;
                cpu.rflags |= bit::AC;
            },
            read,
            None,
        ),
        ("user page, read", DATA | 7, &plain, read, None),
    ];
    for (name, entry, set, program, expected) in cases {
        // With 2 MiB of user rights above, only the last entry decides.
        let (fault, cpu, error) = with_data_page(entry, set, program);
        match expected {
            None => assert_eq!(fault, None, "{name}"),
            Some(code) => {
                assert_eq!((fault, error), (Some(14), code), "{name}");
                assert_eq!(cpu.cr2, DATA + 8, "{name}");
            }
        }
    }
}

#[test]
fn accessed_and_dirty_bits_are_set_when_used() {
    // SDM vol. 3, 5.8.
    let pc = |program: &Program| with_data_page(DATA | 3, |_| {}, program);
    let entry = |program: &Program<'_>| {
        let mut pc2 = Pc::new(Start::Long);
        pc2.bus.store(common::TABLES + 0x1000, Width::Double, 0x8000 | 7);
        pc2.bus.store(0x8000, Width::Double, 0x9000 | 7);
        for page in 0..512 {
            pc2.bus.store(0x9000 + 8 * page, Width::Double, page << 12 | 3);
        }
        pc2.cpu.rflags |= 0;
        pc2.put(64, program);
        assert_eq!(pc2.run().0, None);
        pc2.bus.load(0x9000 + 8 * (DATA >> 12), Width::Double) & 0x60
    };
    assert_eq!(pc(&|a| a.hlt()).0, None);
    assert_eq!(entry(&|a| a.hlt()), 0);
    assert_eq!(
        entry(&|a| {
            a.mov(rax, qword_ptr(DATA))?;
            a.hlt()
        }),
        0x20
    );
    assert_eq!(
        entry(&|a| {
            a.mov(qword_ptr(DATA), rax)?;
            a.hlt()
        }),
        0x60
    );
    // A read first, then a write through what the TLB holds.
    assert_eq!(
        entry(&|a| {
            a.mov(rax, qword_ptr(DATA))?;
            a.mov(qword_ptr(DATA), rax)?;
            a.hlt()
        }),
        0x60
    );
}
