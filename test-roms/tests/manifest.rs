//! The manifest and the files it yields are well formed.

use std::collections::HashSet;

use goblin::elf::Elf;
use mimic_test_roms::roms;

#[test]
fn names_are_unique_and_titles_given() {
    let names: HashSet<_> = roms().iter().map(|r| r.name).collect();
    assert_eq!(names.len(), roms().len());
    let placed = |name: &str| name.starts_with("rv64/") || name.starts_with("x86/");
    assert!(roms().iter().all(|r| placed(r.name) && !r.title.is_empty()));
}

#[test]
fn every_rv64_rom_is_an_elf_a_loader_accepts() {
    for rom in roms().iter().filter(|rom| rom.name.starts_with("rv64/")) {
        let bytes = rom.build();
        let elf = Elf::parse(&bytes).expect("goblin parses it");
        assert!(elf.is_64 && elf.little_endian, "{}", rom.name);
        assert_eq!(elf.header.e_machine, goblin::elf::header::EM_RISCV);
        assert_eq!(elf.entry, 0x8000_0000);
        let symbol = |name| {
            elf.syms.iter().find(|s| elf.strtab.get_at(s.st_name) == Some(name)).map(|s| s.st_value)
        };
        assert_eq!(symbol("tohost"), Some(0x8020_0000), "{}", rom.name);
        assert!(symbol("fromhost").is_some());
        for p in &elf.program_headers {
            assert!(p.p_offset + p.p_filesz <= bytes.len() as u64);
            assert!(p.p_memsz >= p.p_filesz && p.p_vaddr >= 0x8000_0000);
            assert!(p.p_vaddr + p.p_memsz <= 0x8100_0000, "fits a machine of 16 MiB");
        }
    }
}

#[test]
fn every_x86_rom_is_a_multiboot_kernel() {
    for rom in roms().iter().filter(|rom| rom.name.starts_with("x86/")) {
        let bytes = rom.build();
        let elf = Elf::parse(&bytes).expect("goblin parses it");
        assert!(!elf.is_64 && elf.little_endian, "{}", rom.name);
        assert_eq!(elf.header.e_machine, goblin::elf::header::EM_386);
        let [segment] = &elf.program_headers[..] else { panic!("{}: one segment", rom.name) };
        assert!(segment.vm_range().contains(&(elf.entry as usize)));
        // Multiboot Specification 3.1: the header's words, in the first 8 KiB, add up to zero.
        let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        let header = (0..8192 - 12).step_by(4).find(|at| word(*at) == 0x1bad_b002).unwrap();
        assert_eq!((0..3).fold(0u32, |sum, i| sum.wrapping_add(word(header + 4 * i))), 0);
        assert_eq!(segment.p_offset as usize, header);
    }
}

#[test]
fn case_numbers_are_contiguous_and_named() {
    for rom in roms() {
        let mut next = 1;
        for c in rom.cases() {
            assert_eq!(c.first, next, "{}: {}", rom.name, c.name);
            assert!(c.count > 0 && !c.name.is_empty());
            next += c.count;
        }
        assert!(next > 1, "{} checks something", rom.name);
        assert!(rom.case_name(1).is_some() && rom.case_name(next).is_none());
    }
}

#[test]
fn a_rom_is_the_same_every_time() {
    for rom in roms() {
        assert!(rom.build() == rom.build(), "{}", rom.name);
    }
}
