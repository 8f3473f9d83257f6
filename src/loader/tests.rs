//! Files made here by hand after their specifications; expectations are those of the specifications.

use std::io::Write;

use super::*;

fn parse_file(bytes: &[u8]) -> Result<LoadedImage, LoadError> {
    parse(bytes, &LoadOptions::default())
}

fn message(bytes: &[u8]) -> String {
    parse_file(bytes).expect_err("must be refused").to_string()
}

/// A RISC-V `Image` header (boot-image-header.rst) with `flags` and a little code.
fn linux_image(flags: u64) -> Vec<u8> {
    let mut image = vec![0u8; 4096];
    image[8..16].copy_from_slice(&0x20_0000u64.to_le_bytes());
    image[16..24].copy_from_slice(&0x10_0000u64.to_le_bytes());
    image[24..32].copy_from_slice(&flags.to_le_bytes());
    image[32..36].copy_from_slice(&2u32.to_le_bytes());
    image[48..56].copy_from_slice(b"RISCV\0\0\0");
    image[56..60].copy_from_slice(b"RSC\x05");
    image
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One symbol of a test file: name, value, size.
type Sym = (&'static str, u64, u64);

/// An ELF64 executable (ELF-64 object file format 1.5): one segment of 16 bytes in the file and 64 in
/// memory, linked at `vaddr`, loaded at `paddr`.
fn elf(machine: u16, vaddr: u64, paddr: u64, symbols: &[Sym]) -> Vec<u8> {
    let mut names = vec![0u8];
    let mut table = vec![0u8; 24];
    for (name, value, size) in symbols {
        table.extend((names.len() as u32).to_le_bytes());
        table.extend([0x10, 0]);
        table.extend(1u16.to_le_bytes());
        table.extend(value.to_le_bytes());
        table.extend(size.to_le_bytes());
        names.extend(name.as_bytes());
        names.push(0);
    }
    let code = 64 + 56;
    let table_at = code + 16;
    let names_at = table_at + table.len();
    let sections = names_at + names.len();

    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(2u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for word in [vaddr, 64, sections as u64] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 3, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    file.extend(5u32.to_le_bytes());
    for word in [code as u64, vaddr, paddr, 16, 64, 4096] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0x13u8; 16]);
    file.extend(&table);
    file.extend(&names);
    let mut section = |kind: u32, link: u32, offset: usize, size: usize, entry: u64| {
        file.extend(0u32.to_le_bytes());
        file.extend(kind.to_le_bytes());
        for word in [0, 0, offset as u64, size as u64] {
            file.extend(word.to_le_bytes());
        }
        file.extend(link.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for word in [1, entry] {
            file.extend(word.to_le_bytes());
        }
    };
    section(0, 0, 0, 0, 0);
    section(2, 2, table_at, table.len(), 24);
    section(3, 0, names_at, names.len(), 0);
    file
}

const RISCV: u16 = 243;

#[test]
fn a_linux_image_claims_its_header_size() {
    let image = parse_file(&linux_image(0)).unwrap();
    assert_eq!((image.isa, image.kind), (Isa::Riscv64, ImageKind::LinuxImage));
    assert_eq!((image.text_offset, image.image_size, image.entry), (0x20_0000, 0x10_0000, 0));
    assert_eq!(image.span(), Some((0, 4096)));
}

#[test]
fn gzip_and_the_efi_wrappers_are_taken_off() {
    let plain = linux_image(0);
    let packed = gzip(&plain);
    assert_eq!(parse_file(&packed).unwrap().segments[0].bytes, plain);

    let mut stub = plain.clone();
    stub[..2].copy_from_slice(b"MZ");
    assert_eq!(parse_file(&stub).unwrap().segments[0].bytes, stub);

    let mut zboot = vec![0u8; 64];
    zboot[..2].copy_from_slice(b"MZ");
    zboot[4..8].copy_from_slice(b"zimg");
    zboot[8..12].copy_from_slice(&64u32.to_le_bytes());
    zboot[12..16].copy_from_slice(&(packed.len() as u32).to_le_bytes());
    zboot[24..28].copy_from_slice(b"gzip");
    zboot.extend(&packed);
    assert_eq!(parse_file(&zboot).unwrap().segments[0].bytes, plain);

    zboot[24..28].copy_from_slice(b"zstd");
    assert!(message(&zboot).contains("uncompressed `Image`"));
    zboot[24..28].copy_from_slice(b"gzip");
    zboot[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(message(&zboot).contains("beyond the end"));
}

#[test]
fn a_cut_off_gzip_file_is_damaged() {
    let packed = gzip(&linux_image(0));
    assert!(message(&packed[..packed.len() - 9]).contains("gzip file is damaged"));
}

#[test]
fn a_big_endian_kernel_is_refused() {
    assert!(message(&linux_image(1)).contains("big-endian"));
}

#[test]
fn an_elf_file_gives_segments_entry_and_signals() {
    let base = 0x8000_0000;
    let file = elf(
        RISCV,
        base,
        base,
        &[
            ("_start", base, 8),
            ("tohost", base + 16, 8),
            ("fromhost", base + 24, 8),
            ("begin_signature", base + 32, 0),
            ("end_signature", base + 48, 0),
        ],
    );
    let image = parse_file(&file).unwrap();
    assert_eq!(image.kind, ImageKind::Elf);
    assert_eq!(image.entry, base);
    assert_eq!(image.segments, [Segment { addr: base, bytes: vec![0x13; 16], size: 64 }]);
    assert_eq!((image.tohost, image.fromhost), (Some(base + 16), Some(base + 24)));
    assert_eq!(image.signature, Some((base + 32, base + 48)));
    assert_eq!(image.symbols.describe(base + 4).as_deref(), Some("_start+0x4"));
}

#[test]
fn addresses_are_physical_but_symbols_are_as_linked() {
    let (virt, phys) = (0xffff_ffff_8000_0000, 0x8020_0000);
    let image = parse_file(&elf(RISCV, virt, phys, &[("tohost", virt + 8, 8)])).unwrap();
    assert_eq!(image.entry, phys);
    assert_eq!(image.tohost, Some(phys + 8));
    assert_eq!(image.symbols.address("tohost"), Some(virt + 8));
}

#[test]
fn other_machines_are_named() {
    assert!(message(&elf(183, 0, 0, &[])).contains("wrong architecture: this is an ELF file for"));
    assert_eq!(parse(&elf(62, 0, 0, &[]), &LoadOptions::default()).unwrap().isa, Isa::X86_64);
    assert!(message(&elf(183, 0, 0, &[])).contains("AARCH64"));
    let mut rv32 = elf(RISCV, 0, 0, &[]);
    rv32[4] = 1;
    assert!(message(&rv32).contains("32-bit little-endian RISC-V"));

    let mut pe = vec![0u8; 256];
    pe[..2].copy_from_slice(b"MZ");
    pe[0x3c] = 0x80;
    pe[0x80..0x86].copy_from_slice(b"PE\0\0\x64\x86");
    assert!(message(&pe).contains("x86-64"));
    pe[0x84..0x86].copy_from_slice(&0x5064u16.to_le_bytes());
    assert!(message(&pe).contains("a UEFI application"));
}

/// Words that add up to 0 behind others: the header of a multiboot kernel.
fn put_header(file: &mut [u8], at: usize, words: &[u32]) {
    let sum = words.iter().fold(0, |sum: u32, word| sum.wrapping_add(*word)).wrapping_neg();
    for (index, word) in words.iter().chain([&sum]).enumerate() {
        file[at + 4 * index..at + 4 * index + 4].copy_from_slice(&word.to_le_bytes());
    }
}

#[test]
fn of_two_multiboot_headers_version_2_counts_if_it_can_be_had() {
    // Multiboot Specification 0.6.96, 3.1: addresses; Multiboot2 Specification 2.0, 3.1: tags 2, 3 and the last.
    let kernel = |unknown: u16| {
        let mut file = vec![0; 0x1000];
        put_header(&mut file, 0x100, &[0x1bad_b002, 0x1_0000]);
        for (index, word) in [0x10_0100, 0x10_0000, 0, 0, 0x10_0200u32].iter().enumerate() {
            let at = 0x10c + 4 * index;
            file[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        put_header(&mut file, 0x208, &[0xe852_50d6, 0, 72]);
        let words = [
            2,
            24,
            0x20_0208,
            0x20_0000,
            0,
            0, // addresses
            3,
            12,
            0x20_0300,
            0, // entry
            u32::from(unknown),
            8,
            0,
            8,
        ];
        for (index, word) in words.iter().enumerate() {
            let at = 0x218 + 4 * index;
            file[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        file
    };
    let second = parse_file(&kernel(6)).unwrap();
    assert_eq!((second.kind, second.entry), (ImageKind::Multiboot2, 0x20_0300));
    assert_eq!(second.segments[0].addr, 0x20_0000);
    let first = parse_file(&kernel(99)).unwrap();
    assert_eq!((first.kind, first.entry), (ImageKind::Multiboot, 0x10_0200));
    let mut alone = kernel(99);
    alone[0x100] = 0;
    assert!(message(&alone).contains("unknown tag 99"));
    // Wherever it ends, it is no kernel, or a damaged one.
    let whole = kernel(6);
    for end in 0x200..0x260 {
        let mut cut = whole[..end].to_vec();
        cut[0x100] = 0;
        fuzz::fuzz(&cut);
        assert!(parse_file(&cut).is_err(), "{end:#x}");
    }
}

#[test]
fn disks_discs_and_archives_are_named() {
    let mut sector = vec![0u8; 512];
    sector[510..].copy_from_slice(b"\x55\xaa");
    assert!(message(&sector).contains("a boot sector for x86"));

    let mut disk = sector.clone();
    disk.resize(4096, 0);
    disk[446 + 4] = 0x83;
    assert!(message(&disk).contains("a disk image with an MBR"));
    disk[512..520].copy_from_slice(b"EFI PART");
    assert!(message(&disk).contains("GPT"));

    let mut iso = vec![0u8; 0x9000];
    iso[0x8001..0x8006].copy_from_slice(b"CD001");
    assert!(message(&iso).contains("ISO 9660"));
    assert!(message(&gzip(b"070701000000")).contains("--initrd"));
    assert!(message(b"\xfd7zXZ\0....").contains("decompress"));
}

#[test]
fn unknown_bytes_need_an_address() {
    assert!(message(b"just text").contains("--load-addr"));
    assert!(message(b"").contains("empty"));
    let flat = parse(b"\x73\0\x50\x10", &LoadOptions { load_addr: Some(0x8000_0000), bits: None })
        .unwrap();
    assert_eq!((flat.kind, flat.entry), (ImageKind::Flat, 0x8000_0000));
    for addr in [1, u64::MAX - 1] {
        let options = LoadOptions { load_addr: Some(addr), bits: None };
        assert!(matches!(parse(b"1234", &options), Err(LoadError::Options(_))));
    }
    let options = LoadOptions { load_addr: Some(0), bits: None };
    assert!(
        parse(&elf(RISCV, 0, 0, &[]), &options)
            .unwrap_err()
            .to_string()
            .contains("leave --load-addr away")
    );
}

#[test]
fn repeated_segments_do_not_multiply_memory() {
    let mut file = elf(RISCV, 0x8000_0000, 0x8000_0000, &[]);
    let header = file[64..120].to_vec();
    let count = 5000u16;
    let table = file.len();
    for _ in 0..count {
        let mut header = header.clone();
        header[8..16].copy_from_slice(&0u64.to_le_bytes());
        header[32..40].copy_from_slice(&200_000u64.to_le_bytes());
        header[40..48].copy_from_slice(&200_000u64.to_le_bytes());
        file.extend(header);
    }
    file[32..40].copy_from_slice(&(table as u64).to_le_bytes());
    file[56..58].copy_from_slice(&count.to_le_bytes());
    assert!(message(&file).contains("overlap"));
}

#[test]
fn every_prefix_and_every_flipped_byte_is_handled() {
    let file = elf(RISCV, 0x8000_0000, 0x8000_0000, &[("tohost", 0x8000_0010, 8)]);
    for end in 0..file.len() {
        fuzz::fuzz(&file[..end]);
    }
    for at in 0..file.len() {
        for value in [0, 0x7f, 0xff] {
            let mut broken = file.clone();
            broken[at] = value;
            fuzz::fuzz(&broken);
        }
    }
}

#[test]
fn a_missing_file_suggests_a_similar_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vmlinux"), b"x").unwrap();
    let error = load_file(&folder.path().join("vmlinx"), &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("did you mean"), "{error}");
    let error = load_file(folder.path(), &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("a folder"), "{error}");
}

#[test]
fn the_fuzzers_corpus_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fuzz/corpus/loader");
    let entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(entries.len() > 10, "the corpus is missing");
    for path in entries {
        fuzz::fuzz(&std::fs::read(path).unwrap());
    }
}
