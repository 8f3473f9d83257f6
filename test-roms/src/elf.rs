//! The smallest ELF64 executable that loaders of bare-metal RISC-V guests need.
//!
//! Sources: Tool Interface Standard ELF 1.2, ELF-64 Object File Format 1.5, RISC-V ELF psABI
//! (`EM_RISCV` = 243). Spike and QEMU find the entry and the segments through the program headers;
//! Spike finds `tohost`/`fromhost` through the section headers (`.symtab`).

const EM_RISCV: u16 = 243;
/// `EF_RISCV_RVC | EF_RISCV_FLOAT_ABI_DOUBLE`, as a compiler would mark rv64gc code.
const E_FLAGS: u32 = 0x5;
const EHDR: usize = 64;
const PHDR: usize = 56;
const SHDR: usize = 64;

/// One loadable segment.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Physical and virtual load address.
    pub(crate) addr: u64,
    /// Contents; memory beyond them up to `mem_size` is zero.
    pub(crate) bytes: Vec<u8>,
    /// Size in memory, at least `bytes.len()`.
    pub(crate) mem_size: u64,
    /// `PF_X` 1, `PF_W` 2, `PF_R` 4.
    pub(crate) flags: u32,
}

/// Serialises an `ET_EXEC` file with one section per segment and a symbol table.
pub(crate) fn write(entry: u64, segments: &[Segment], symbols: &[(&str, u64)]) -> Vec<u8> {
    let mut strtab = vec![0u8];
    let mut symtab = vec![0u8; 24];
    for (name, value) in symbols {
        symtab.extend((strtab.len() as u32).to_le_bytes());
        symtab.push(0x10); // STB_GLOBAL, STT_NOTYPE
        symtab.push(0);
        symtab.extend(0xfff1u16.to_le_bytes()); // SHN_ABS
        symtab.extend(value.to_le_bytes());
        symtab.extend(0u64.to_le_bytes());
        strtab.extend(name.bytes());
        strtab.push(0);
    }
    let mut shstrtab = vec![0u8];
    let mut shname = |name: &str| {
        let at = shstrtab.len() as u32;
        shstrtab.extend(name.bytes());
        shstrtab.push(0);
        at
    };
    let names: Vec<u32> = segments
        .iter()
        .map(|s| {
            shname(match (s.flags & 1 != 0, s.bytes.is_empty()) {
                (true, _) => ".text",
                (false, false) => ".data",
                (false, true) => ".bss",
            })
        })
        .collect();
    let (n_symtab, n_strtab, n_shstrtab) =
        (shname(".symtab"), shname(".strtab"), shname(".shstrtab"));

    let mut body = Vec::new();
    let body_at = EHDR + PHDR * segments.len();
    let place = |body: &mut Vec<u8>, align: usize, bytes: &[u8]| {
        while !(body_at + body.len()).is_multiple_of(align) {
            body.push(0);
        }
        let at = (body_at + body.len()) as u64;
        body.extend_from_slice(bytes);
        at
    };
    let mut phdrs = Vec::new();
    let mut shdrs = vec![0u8; SHDR];
    for (s, name) in segments.iter().zip(names) {
        let at = place(&mut body, 4096, &s.bytes);
        let size = s.bytes.len() as u64;
        phdrs.extend(1u32.to_le_bytes()); // PT_LOAD
        phdrs.extend(s.flags.to_le_bytes());
        for v in [at, s.addr, s.addr, size, s.mem_size, 4096] {
            phdrs.extend(v.to_le_bytes());
        }
        let kind = if s.bytes.is_empty() { 8 } else { 1 }; // SHT_NOBITS, SHT_PROGBITS
        let flags = 2 | u64::from(s.flags & 2 != 0) | u64::from(s.flags & 1) << 2;
        let size = if s.bytes.is_empty() { s.mem_size } else { size };
        section(&mut shdrs, name, kind, flags, s.addr, at, size, [0, 0], 8, 0);
    }
    let strtab_index = segments.len() as u32 + 2;
    let at = place(&mut body, 8, &symtab);
    section(&mut shdrs, n_symtab, 2, 0, 0, at, symtab.len() as u64, [strtab_index, 1], 8, 24);
    let at = place(&mut body, 1, &strtab);
    section(&mut shdrs, n_strtab, 3, 0, 0, at, strtab.len() as u64, [0, 0], 1, 0);
    let at = place(&mut body, 1, &shstrtab);
    section(&mut shdrs, n_shstrtab, 3, 0, 0, at, shstrtab.len() as u64, [0, 0], 1, 0);
    let sections = (shdrs.len() / SHDR) as u16;
    let shoff = place(&mut body, 8, &shdrs);

    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend(2u16.to_le_bytes()); // ET_EXEC
    out.extend(EM_RISCV.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    for v in [entry, EHDR as u64, shoff] {
        out.extend(v.to_le_bytes());
    }
    out.extend(E_FLAGS.to_le_bytes());
    let last = sections - 1;
    let count = segments.len() as u16;
    for v in [EHDR as u16, PHDR as u16, count, SHDR as u16, sections, last] {
        out.extend(v.to_le_bytes());
    }
    out.extend(phdrs);
    out.extend(body);
    out
}

/// Appends one section header, fields in file order.
#[expect(clippy::too_many_arguments, reason = "one parameter per field of Elf64_Shdr")]
fn section(
    out: &mut Vec<u8>,
    name: u32,
    kind: u32,
    flags: u64,
    addr: u64,
    offset: u64,
    size: u64,
    link_info: [u32; 2],
    align: u64,
    entry_size: u64,
) {
    out.extend(name.to_le_bytes());
    out.extend(kind.to_le_bytes());
    for v in [flags, addr, offset, size] {
        out.extend(v.to_le_bytes());
    }
    for v in link_info {
        out.extend(v.to_le_bytes());
    }
    for v in [align, entry_size] {
        out.extend(v.to_le_bytes());
    }
}
