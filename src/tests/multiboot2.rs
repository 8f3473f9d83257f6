//! Multiboot 2 kernels: a guest that tells what it was entered with and everything that it is told, as numbers on the
//! debug console. What they must be is said by the Multiboot2 Specification, version 2.0, sections 3.3 and 3.6.
//!
//! GRUB 2.06 (i386-pc, on QEMU 10) booted the same files, and told them the same but for this: its tags are in another
//! order; it adds APM (10), the text display (8), which are not here, and where the image begins (21) even where that
//! cannot be chosen; its BIOS has no root pointer of ACPI 2.0 (15) and keeps 128 KiB below the end of RAM. A kernel
//! without preference it puts at 1 MiB, where here it stays if it may. It starts the one that demands UEFI's tables, too,
//! without them. `MIMIC_KEEP_KERNELS=FOLDER` keeps the files.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use support::{ending, mimic};

/// Where the kernel is linked.
const BASE: u64 = 0x20_0000;
/// The last word of 4 GiB.
const LAST: u64 = 0xffff_fffc;
/// Where its header lies in the file, and its code.
const HEADER: usize = 0x1000;
const CODE: usize = HEADER + 0x200;
/// The names of its sections: the contents of one that is not part of what is loaded.
const NAMES: &[u8] = b"\0.text\0.names of sections\0";

/// Prints EAX in hexadecimal, and a blank.
fn number(a: &mut CodeAssembler, hex: CodeLabel) -> Result<(), IcedError> {
    a.call(hex)
}

/// Prints ECX bytes from ESI on, eight digits for each four.
fn dump(a: &mut CodeAssembler, hex: CodeLabel) -> Result<(), IcedError> {
    let (mut next, mut done) = (a.create_label(), a.create_label());
    a.add(ecx, 3)?;
    a.shr(ecx, 2)?;
    a.set_label(&mut next)?;
    a.jecxz(done)?;
    a.lodsd()?;
    a.call(hex)?;
    a.dec(ecx)?;
    a.jmp(next)?;
    a.set_label(&mut done)?;
    a.zero_bytes()
}

/// The kernel's code for an ELF file whose section headers have the address at `sh_addr`. It runs wherever it lies.
fn code(sh_addr: u32) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let [mut hex, mut digit, mut start, mut here] = [(); 4].map(|()| a.create_label());
    let [mut tag, mut modules, mut sections, mut next, mut end] =
        [(); 5].map(|()| a.create_label());
    a.jmp(start)?;

    a.set_label(&mut hex)?;
    a.push(ecx)?;
    a.mov(ecx, 8)?;
    a.mov(ebp, eax)?;
    a.set_label(&mut digit)?;
    a.rol(ebp, 4)?;
    a.mov(eax, ebp)?;
    a.and(al, 15)?;
    // A digit without a jump: 0 to 9, or a to f.
    a.cmp(al, 10)?;
    a.sbb(al, 0x69)?;
    a.das()?;
    a.out(0xe9, al)?;
    a.loop_(digit)?;
    a.mov(al, u32::from(b' '))?;
    a.out(0xe9, al)?;
    a.pop(ecx)?;
    a.ret()?;

    a.set_label(&mut start)?;
    a.mov(esp, 0x8_0000)?;
    number(&mut a, hex)?;
    a.mov(eax, cr0)?;
    a.and(eax, 0x8000_0001u32 as i32)?;
    number(&mut a, hex)?;
    // Interrupts, virtual-8086 mode.
    a.pushfd()?;
    a.pop(eax)?;
    a.and(eax, 0x2_0200)?;
    number(&mut a, hex)?;
    // No fault with the last word of 4 GiB.
    for operand in [
        ptr(LAST).cs(),
        ptr(LAST).ds(),
        ptr(LAST).es(),
        ptr(LAST).fs(),
        ptr(LAST).gs(),
        ptr(LAST).ss(),
    ] {
        a.mov(eax, operand)?;
    }
    a.call(here)?;
    a.set_label(&mut here)?;
    a.pop(eax)?;
    a.and(eax, !0xfff)?;
    number(&mut a, hex)?;
    // The information: total size, and 0.
    a.mov(eax, ebx)?;
    a.and(eax, 7)?;
    number(&mut a, hex)?;
    a.mov(esi, ebx)?;
    a.mov(ecx, 8)?;
    dump(&mut a, hex)?;
    a.lea(edi, ebx + 8)?;

    a.set_label(&mut tag)?;
    a.mov(al, u32::from(b'\n'))?;
    a.out(0xe9, al)?;
    a.mov(esi, edi)?;
    a.mov(ecx, dword_ptr(edi + 4))?;
    dump(&mut a, hex)?;
    a.mov(eax, dword_ptr(edi))?;
    a.cmp(eax, 3)?;
    a.je(modules)?;
    a.cmp(eax, 9)?;
    a.je(sections)?;
    a.test(eax, eax)?;
    a.je(end)?;
    a.set_label(&mut next)?;
    a.mov(eax, dword_ptr(edi + 4))?;
    a.add(eax, 7)?;
    a.and(eax, !7)?;
    a.add(edi, eax)?;
    a.jmp(tag)?;

    // What the module holds.
    a.set_label(&mut modules)?;
    a.mov(esi, dword_ptr(edi + 8))?;
    a.mov(ecx, 16)?;
    dump(&mut a, hex)?;
    a.jmp(next)?;
    // What the section of names holds.
    a.set_label(&mut sections)?;
    a.mov(eax, dword_ptr(edi + 16))?;
    a.mul(dword_ptr(edi + 12))?;
    a.mov(esi, dword_ptr(edi + eax + 20 + sh_addr))?;
    a.mov(ecx, NAMES.len() as u32)?;
    dump(&mut a, hex)?;
    a.jmp(next)?;

    a.set_label(&mut end)?;
    a.xor(eax, eax)?;
    a.out(0xf4, eax)?;
    a.hlt()?;
    a.assemble(BASE + (CODE - HEADER) as u64)
}

/// A tag of the header: type, flags, contents.
type Tag<'a> = (u16, u16, &'a [u32]);

/// A header for i386 with these tags.
fn header(tags: &[Tag]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, flags, words) in tags.iter().chain([&(0, 0, &[][..])]) {
        body.extend(kind.to_le_bytes());
        body.extend(flags.to_le_bytes());
        body.extend((8 + 4 * words.len() as u32).to_le_bytes());
        body.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let (magic, length) = (0xe852_50d6_u32, 16 + body.len() as u32);
    let checksum = magic.wrapping_add(length).wrapping_neg();
    let words = [magic, 0, length, checksum];
    words.iter().flat_map(|word| word.to_le_bytes()).chain(body).collect()
}

/// What begins at [`HEADER`] in the file: the header and the code.
fn text(tags: &[Tag], sh_addr: u32) -> Vec<u8> {
    let mut text = header(tags);
    assert!(text.len() <= CODE - HEADER);
    text.resize(CODE - HEADER, 0x90);
    text.extend(code(sh_addr).unwrap());
    text
}

/// A kernel as an ELF file of 32 or 64 bits (ELF object file formats): one segment, three sections.
fn elf(bits: u32, tags: &[Tag]) -> Vec<u8> {
    let wide = bits == 64;
    // Of the file's header, of a program header, of a section header.
    let (file_header, program, section) = if wide { (64u16, 56u16, 64u16) } else { (52, 32, 40) };
    let text = text(tags, if wide { 16 } else { 12 });
    let names_at = HEADER + text.len();
    let sections_at = (names_at + NAMES.len()).next_multiple_of(8);
    let word = |value: u64| {
        let bytes = value.to_le_bytes();
        if wide { bytes.to_vec() } else { bytes[..4].to_vec() }
    };
    let half = |value: u32| value.to_le_bytes();
    let mut file = vec![0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1];
    file.resize(16, 0);
    file.extend([2, 0, if wide { 62 } else { 3 }, 0, 1, 0, 0, 0]);
    for value in [BASE + (CODE - HEADER) as u64, file_header.into(), sections_at as u64] {
        file.extend(word(value));
    }
    file.extend(half(0));
    for value in [file_header, program, 1, section, 3, 2] {
        file.extend(value.to_le_bytes());
    }
    // PT_LOAD, readable, writable and executable, 64 KiB in memory.
    let size = text.len() as u64;
    file.extend(half(1));
    if wide {
        file.extend(half(7));
    }
    for value in [HEADER as u64, BASE, BASE, size, 0x1_0000] {
        file.extend(word(value));
    }
    if !wide {
        file.extend(half(7));
    }
    file.extend(word(0x1000));
    file.resize(HEADER, 0);
    file.extend(text);
    file.extend(NAMES);
    file.resize(sections_at, 0);
    // Name, type, flags, address, offset, size, link, info, alignment, size of entries.
    for (name, kind, flags, addr, at, size) in [
        (0, 0, 0, 0, 0, 0),
        (1, 1, 6, BASE, HEADER, size),
        (7, 3, 0, 0, names_at, NAMES.len() as u64),
    ] {
        file.extend(half(name));
        file.extend(half(kind));
        for value in [flags, addr, at as u64, size] {
            file.extend(word(value));
        }
        file.extend(half(0));
        file.extend(half(0));
        file.extend(word(u64::from(kind != 0)));
        file.extend(word(0));
    }
    file
}

/// Runs a file with these arguments; an initial RAM disk and a command line are among them.
fn run(folder: &Path, file: &[u8], arguments: &[&str]) -> Output {
    let (kernel, initrd) = (folder.join("kernel"), folder.join("initrd"));
    std::fs::write(&kernel, file).unwrap();
    if let Some(keep) = std::env::var_os("MIMIC_KEEP_KERNELS") {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kernel{}", COUNT.fetch_add(1, Ordering::Relaxed));
        std::fs::write(Path::new(&keep).join(name), file).unwrap();
    }
    std::fs::write(&initrd, b"the module's own").unwrap();
    let [kernel, initrd] = [kernel, initrd].map(|path| path.to_str().unwrap().to_owned());
    let fixed = ["run", &kernel, "--initrd", &initrd, "--append", "words for it", "--mem", "16M"];
    let exit = ["--pass-exit", "0", "--timeout", "60"];
    mimic(&[&fixed, &exit[..], arguments].concat()).output().unwrap()
}

/// What a kernel told.
struct Told {
    /// EAX, CR0, EFLAGS, its page, alignment of the information, its size, 0.
    start: Vec<u32>,
    /// The contents of the tags by their types, and what they lead to.
    tags: BTreeMap<u32, Vec<u8>>,
    /// Their types in order.
    order: Vec<u32>,
}

fn told(output: &Output) -> Told {
    let (status, last) = ending(output);
    assert_eq!(status, Some(0), "{last}\n{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let mut lines = text.lines().map(|line| {
        line.split_whitespace().map(|word| u32::from_str_radix(word, 16).unwrap()).collect()
    });
    let start: Vec<u32> = lines.next().unwrap();
    let (mut tags, mut order, mut size) = (BTreeMap::new(), Vec::new(), 8);
    for words in lines {
        let bytes: Vec<u8> = words[2..].iter().flat_map(|word| word.to_le_bytes()).collect();
        order.push(words[0]);
        size += words[1].next_multiple_of(8);
        // What a tag leads to comes on a boundary of its own.
        let len = words[1] as usize - 8;
        let mut contents = bytes[..len].to_vec();
        contents.extend(&bytes[len.next_multiple_of(4)..]);
        assert!(tags.insert(words[0], contents).is_none(), "twice the tag {}", words[0]);
    }
    assert_eq!(order.last(), Some(&0));
    assert_eq!(start[5..], [size, 0], "the size of all, and 0");
    Told { start, tags, order }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The state of section 3.3: the magic number, protection without paging, no interrupts, flat segments. The same in
/// every kernel.
fn check_start(told: &Told, page: u32) {
    assert_eq!(told.start[..5], [0x36d7_6289, 1, 0, page, 0], "{:x?}", told.start);
}

#[test]
fn an_elf_kernel_of_either_width_is_told_of_everything() {
    let folder = tempfile::tempdir().unwrap();
    for bits in [32, 64] {
        // All that there is to tell, some of it on page boundaries.
        let request = [1, 2, 3, 4, 6, 9, 14, 15];
        let file = elf(bits, &[(1, 0, &request), (6, 0, &[])]);
        let told = told(&run(folder.path(), &file, &[]));
        check_start(&told, 0x20_0000);
        let mut order = told.order.clone();
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4, 6, 9, 14, 15]);
        let tag = |kind: u32| &told.tags[&kind][..];
        // GRUB leaves the file's name away, too.
        assert_eq!(tag(1), b"words for it\0");
        assert_eq!(tag(2), b"mimic\0");
        let (start, end) = (u32_at(tag(3), 0), u32_at(tag(3), 4));
        assert_eq!((start % 0x1000, end - start), (0, 16));
        assert_eq!(&tag(3)[8..], b"initrd\0the module's own");
        // KiB below 640 KiB, and from 1 MiB on.
        let (lower, upper) = (u32_at(tag(4), 0), u32_at(tag(4), 4));
        assert!((512..=640).contains(&lower), "{lower}");
        assert_eq!(upper, 15 << 10);
        // Entries of 24 bytes, version 0.
        assert_eq!((u32_at(tag(6), 0), u32_at(tag(6), 4)), (24, 0));
        let entries: Vec<_> = tag(6)[8..]
            .chunks_exact(24)
            .map(|entry| (u64_at(entry, 0), u64_at(entry, 8), u32_at(entry, 16), u32_at(entry, 20)))
            .collect();
        assert!(entries.contains(&(0x10_0000, 15 << 20, 1, 0)), "{entries:x?}");
        assert!(entries.contains(&(0, u64::from(lower) << 10, 1, 0)), "{entries:x?}");
        // Three section headers; the third has the names, and now an address.
        let size = if bits == 64 { 64 } else { 40 };
        assert_eq!([0, 4, 8].map(|at| u32_at(tag(9), at)), [3, size, 2]);
        let headers = 3 * size as usize;
        let (table, names) = tag(9)[12..].split_at(headers);
        assert_eq!(names[..NAMES.len()], *NAMES);
        let end_of_file = &file[file.len() - headers..];
        let address = 2 * size as usize + if bits == 64 { 16 } else { 12 };
        assert_eq!(table[..address], end_of_file[..address], "the rest is as in the file");
        assert_eq!(table[address + 8..], end_of_file[address + 8..]);
        // Root pointers of ACPI 1.0 and later: they add up.
        let (old, new) = (tag(14), tag(15));
        assert_eq!((old.len(), new.len(), &old[..8]), (20, 36, &b"RSD PTR "[..]));
        for bytes in [old, new] {
            assert_eq!(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        }
        assert!(old == &new[..20] && u32_at(old, 16) != 0 && new[15] >= 2);
    }
}

#[test]
fn a_relocatable_kernel_lies_where_it_likes() {
    let folder = tempfile::tempdir().unwrap();
    // From, to, alignment, preference, and where that is in 16 MiB.
    for (wish, place) in [
        ([0, 0xffff_ffff, 0x1000, 0], 0x20_0000),
        ([0x30_0001, 0xffff_ffff, 0x1_0000, 1], 0x31_0000),
        ([0x10_0000, 0x8f_ffff, 0x10_0000, 2], 0x80_0000),
    ] {
        let told = told(&run(folder.path(), &elf(64, &[(10, 0, &wish)]), &[]));
        check_start(&told, place);
        assert_eq!(told.tags[&21], place.to_le_bytes(), "where it begins");
    }
    let wish = [0x100_0000, 0x200_0000, 0x1000, 0];
    let (status, last) = ending(&run(folder.path(), &elf(32, &[(10, 0, &wish)]), &[]));
    assert!(status == Some(126) && last.contains("try --mem"), "{last}");
}

#[test]
fn a_kernel_that_is_no_elf_file_lies_where_its_header_says() {
    let folder = tempfile::tempdir().unwrap();
    let (base, entry) = (BASE as u32, BASE as u32 + (CODE - HEADER) as u32);
    // Header, first address, no end of the file, 64 KiB; then all ones: from the file's beginning on.
    for (load, page) in [(base, base), (u32::MAX, base)] {
        let tags: [Tag; 2] = [(2, 0, &[base, load, 0, base + 0x1_0000]), (3, 0, &[entry])];
        let mut file = vec![0xcc; HEADER];
        file.extend(text(&tags, 0));
        let told = told(&run(folder.path(), &file, &[]));
        check_start(&told, page);
        assert!(!told.tags.contains_key(&9));
    }
}

#[test]
fn version_2_goes_before_version_1_and_wishes_that_cannot_be_granted_are_named() {
    let folder = tempfile::tempdir().unwrap();
    // An optional wish may be unknown; a mode of a display is but recommended.
    let tags: [Tag; 4] = [(99, 1, &[1]), (5, 0, &[1024, 768, 32]), (4, 0, &[2]), (1, 1, &[77, 11])];
    let mut file = elf(32, &tags);
    let magic: [u32; 3] = [0x1bad_b002, 0, 0x1bad_b002_u32.wrapping_neg()];
    let version1: Vec<u8> = magic.iter().flat_map(|word| word.to_le_bytes()).collect();
    file[0x200..0x20c].copy_from_slice(&version1);
    check_start(&told(&run(folder.path(), &file, &[])), 0x20_0000);

    let refused = |tags: &[Tag]| {
        let output = run(folder.path(), &elf(32, tags), &[]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (tags, why) in [
        (&[(99u16, 0u16, &[1u32][..])][..], "unknown tag 99"),
        (&[(1, 0, &[77])], "unknown boot information (77)"),
        (&[(1, 0, &[12])], "cannot do without UEFI"),
        (&[(2, 0, &[0x20_0000, 0x20_0000, 0, 0]), (9, 0, &[0x20_0200])], "without UEFI"),
        (&[(4, 0, &[1])], "cannot do without a display"),
        (&[(2, 0, &[0x20_0000])], "tag 2 of its header is cut off"),
        (&[(2, 0, &[0x20_0000, 0x20_0000, 0, 0])], "no entry"),
        (&[(3, 0, &[0x50_0000])], "its entry 0x500000 lies outside of it"),
    ] {
        let (status, error) = refused(tags);
        assert!(status == Some(126) && error.contains(why), "{why}: {error}");
    }
    let mut damaged = elf(32, &[]);
    damaged[HEADER + 12] ^= 1;
    let (status, last) = ending(&run(folder.path(), &damaged, &[]));
    assert!(status == Some(126) && last.contains("do not add up to 0"), "{last}");
    damaged[HEADER + 12] ^= 1;
    damaged[HEADER + 4] = 4;
    let sum = 0xe852_50d6_u32.wrapping_add(4 + 24).wrapping_neg();
    damaged[HEADER + 12..HEADER + 16].copy_from_slice(&sum.to_le_bytes());
    let (_, last) = ending(&run(folder.path(), &damaged, &[]));
    assert!(last.contains("MIPS"), "{last}");
}
