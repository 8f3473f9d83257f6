//! ELF files for RISC-V (64-bit) and x86 (32-bit and 64-bit), read with goblin.
//!
//! Only the parts an emulator needs are parsed (header, program headers, symbol table), each on its
//! own, so that a damaged part that is not needed does not matter.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{
    EI_CLASS, EI_DATA, ELFCLASS32, ELFCLASS64, ELFDATA2LSB, ET_CORE, ET_REL, Header,
};
use goblin::elf::program_header::{PT_INTERP, PT_LOAD, PT_NOTE, ProgramHeader};
use goblin::elf::section_header::{SHT_SYMTAB, SectionHeader};
use goblin::elf::sym::{STT_FILE, STT_SECTION, Sym, Symtab};

use super::{Bits, ImageKind, Isa, LoadError, LoadedImage, Segment, Symbols};

const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const EM_RISCV: u16 = 243;

/// Longest symbol name kept, in bytes; mangled names of real programs stay below it.
const MAX_NAME: usize = 1024;
/// Bytes of all symbol names together.
const MAX_NAMES: usize = 64 << 20;

/// Parses bytes that begin with the ELF magic.
///
/// # Errors
/// [`LoadError`] for other machines, other kinds of ELF file and damaged ones.
pub(super) fn parse(bytes: &[u8]) -> Result<LoadedImage, LoadError> {
    let (isa, bits) = machine(bytes)?;
    let header: Header =
        goblin::elf::Elf::parse_header(bytes).map_err(|e| malformed(e.to_string()))?;
    match header.e_type {
        ET_REL => {
            return Err(LoadError::Unsupported {
                what: "an object file (or kernel module)",
                hint: "link it into an executable first",
            });
        }
        ET_CORE => {
            return Err(LoadError::Unsupported {
                what: "a core dump",
                hint: "give the program itself",
            });
        }
        _ => {}
    }
    let ctx = context(bits);
    let program_headers = program_headers(bytes, &header, ctx)?;
    if program_headers.iter().any(|ph| ph.p_type == PT_INTERP) {
        return Err(LoadError::Unsupported {
            what: "a dynamically linked Linux program",
            hint: "programs run inside a guest system: try `mimic boot debian-riscv64`",
        });
    }
    let segments = segments(bytes, &program_headers)?;
    let entry = physical(header.e_entry, &program_headers);
    if !segments.iter().any(|s| (s.addr..s.addr + s.size).contains(&entry)) {
        return Err(malformed(format!("its entry {entry:#x} lies in no segment")));
    }
    let symbols = symbols(bytes, &header, ctx);
    let linux = bits == Bits::B64 && is_vmlinux(isa, &program_headers);
    let kind = if linux { ImageKind::LinuxX86 } else { ImageKind::Elf };
    let named = |name| symbols.address(name).map(|addr| physical(addr, &program_headers));
    let signature =
        named("begin_signature").zip(named("end_signature")).filter(|(begin, end)| begin <= end);
    Ok(LoadedImage {
        isa,
        kind,
        bits,
        tohost: named("tohost"),
        fromhost: named("fromhost"),
        signature,
        segments,
        symbols,
        ..LoadedImage::nothing(entry)
    })
}

fn context(bits: Bits) -> Ctx {
    let container = if bits == Bits::B32 { Container::Little } else { Container::Big };
    Ctx::new(container, Endian::Little)
}

fn program_headers(
    bytes: &[u8],
    header: &Header,
    ctx: Ctx,
) -> Result<Vec<ProgramHeader>, LoadError> {
    ProgramHeader::parse(bytes, usize_of(header.e_phoff)?, usize::from(header.e_phnum), ctx)
        .map_err(|e| malformed(e.to_string()))
}

/// The x86 image of an ELF file, entered by PVH if the file says how.
///
/// # Errors
/// [`LoadError`] as [`parse`].
pub(super) fn entered_by_pvh(bytes: &[u8], image: LoadedImage) -> Result<LoadedImage, LoadError> {
    let header = goblin::elf::Elf::parse_header(bytes).map_err(|e| malformed(e.to_string()))?;
    let headers = program_headers(bytes, &header, context(image.bits))?;
    Ok(match pvh_entry(bytes, &headers) {
        Some(entry) => LoadedImage { kind: ImageKind::Pvh, bits: Bits::B32, entry, ..image },
        None => image,
    })
}

/// The entry for PVH, if there is one: note 18 of Xen's (`xen/include/public/elfnote.h`, XEN_ELFNOTE_PHYS32_ENTRY).
fn pvh_entry(bytes: &[u8], program_headers: &[ProgramHeader]) -> Option<u64> {
    const PHYS32_ENTRY: u32 = 18;
    const NAME: &[u8] = b"Xen\0";
    let word =
        |bytes: &[u8], at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    for header in program_headers.iter().filter(|header| header.p_type == PT_NOTE) {
        let start = usize::try_from(header.p_offset).ok()?;
        let len = usize::try_from(header.p_filesz).ok()?;
        let mut notes = bytes.get(start..start.checked_add(len)?)?;
        while let (Some(name), Some(len), Some(kind)) =
            (word(notes, 0), word(notes, 4), word(notes, 8))
        {
            let (name, len) = (name as usize, len as usize);
            let text = 12 + name.next_multiple_of(4);
            if kind == PHYS32_ENTRY && notes.get(12..12 + name) == Some(NAME) {
                return word(notes, text).map(u64::from);
            }
            notes = notes.get(text.checked_add(len.next_multiple_of(4))?..)?;
        }
    }
    None
}

/// Whether an ELF file is linked as Linux for x86-64 is (Linux documentation, `arch/x86/x86_64/mm.rst`: kernel text
/// mapping), and no other kernel that expects to be told of the machine in its way.
fn is_vmlinux(isa: Isa, program_headers: &[ProgramHeader]) -> bool {
    const KERNEL_TEXT: u64 = 0xffff_ffff_8000_0000;
    let mut loaded = program_headers.iter().filter(|header| header.p_type == PT_LOAD);
    isa == Isa::X86_64 && loaded.any(|header| header.p_vaddr >= KERNEL_TEXT)
}

/// Accepts 64-bit little-endian RISC-V and little-endian x86, names everything else.
fn machine(bytes: &[u8]) -> Result<(Isa, Bits), LoadError> {
    let (Some(&class), Some(&data), Some(machine)) =
        (bytes.get(EI_CLASS), bytes.get(EI_DATA), bytes.get(18..20))
    else {
        return Err(malformed("its header is cut off".into()));
    };
    let little = data == ELFDATA2LSB;
    let machine = [machine[0], machine[1]];
    let machine = if little { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
    if machine == EM_RISCV && class == ELFCLASS64 && little {
        return Ok((Isa::Riscv64, Bits::B64));
    }
    if matches!(machine, EM_386 | EM_X86_64) && little {
        match class {
            // x86-64's 32-bit files are those of x32, and of tools that rewrite 64-bit kernels for multiboot.
            ELFCLASS32 => return Ok((Isa::X86_64, Bits::B32)),
            ELFCLASS64 if machine == EM_X86_64 => return Ok((Isa::X86_64, Bits::B64)),
            _ => {}
        }
    }
    let bits = if class == ELFCLASS64 { "64-bit" } else { "32-bit" };
    let (arch, hint) = match machine {
        EM_RISCV => (
            format!("{bits} {}-endian RISC-V", if little { "little" } else { "big" }),
            "build it for RV64 (-march=rv64gc -mabi=lp64d)",
        ),
        EM_X86_64 | EM_386 => (
            format!("{bits} {}-endian x86", if little { "little" } else { "big" }),
            "no processor is like that",
        ),
        other => (goblin::elf::header::machine_to_str(other).into(), "give an RV64 file"),
    };
    Err(LoadError::WrongArch { what: "an ELF file", arch, hint })
}

fn segments(bytes: &[u8], program_headers: &[ProgramHeader]) -> Result<Vec<Segment>, LoadError> {
    // Segments of a real file hardly share bytes; a hostile one repeats them to make us allocate.
    let mut allowance = bytes.len().saturating_mul(2);
    let mut segments = Vec::new();
    for ph in program_headers.iter().filter(|ph| ph.p_type == PT_LOAD && ph.p_memsz > 0) {
        let contents = usize_of(ph.p_offset)
            .ok()
            .zip(usize_of(ph.p_filesz).ok())
            .and_then(|(offset, size)| bytes.get(offset..offset.checked_add(size)?))
            .ok_or_else(|| {
                malformed(format!(
                    "the segment at {:#x} reaches beyond the end of the file",
                    ph.p_paddr
                ))
            })?;
        allowance = allowance
            .checked_sub(contents.len())
            .ok_or_else(|| malformed("its segments overlap in the file".into()))?;
        if ph.p_filesz > ph.p_memsz || ph.p_paddr.checked_add(ph.p_memsz).is_none() {
            return Err(malformed(format!(
                "the segment at {:#x} has an impossible size",
                ph.p_paddr
            )));
        }
        segments.push(Segment { addr: ph.p_paddr, bytes: contents.to_vec(), size: ph.p_memsz });
    }
    if segments.is_empty() {
        return Err(malformed("it has nothing to load".into()));
    }
    Ok(segments)
}

/// The physical address of a link address: harts start without translation.
fn physical(addr: u64, program_headers: &[ProgramHeader]) -> u64 {
    program_headers
        .iter()
        .filter(|ph| ph.p_type == PT_LOAD)
        .find(|ph| addr >= ph.p_vaddr && addr - ph.p_vaddr < ph.p_memsz)
        .map_or(addr, |ph| ph.p_paddr.wrapping_add(addr - ph.p_vaddr))
}

/// The symbol table, by link address; empty when there is none that can be read.
fn symbols(bytes: &[u8], header: &Header, ctx: Ctx) -> Symbols {
    let read = || -> Option<Symbols> {
        let sections = SectionHeader::parse(
            bytes,
            usize::try_from(header.e_shoff).ok()?,
            header.e_shnum.into(),
            ctx,
        )
        .ok()?;
        let table = sections.iter().find(|s| s.sh_type == SHT_SYMTAB)?;
        let names = sections.get(table.sh_link as usize)?;
        let names = bytes.get(names.file_range()?)?;
        // Many symbols may share one name, which a hostile file could use to fill memory.
        let mut allowance = MAX_NAMES;
        let range = table.file_range()?;
        let count = bytes.get(range.clone())?.len() / Sym::size(ctx.container);
        let table = Symtab::parse(bytes, range.start, count, ctx).ok()?;
        Some(Symbols::new(
            table
                .iter()
                .filter(|sym| {
                    sym.st_shndx != 0 && sym.st_type() != STT_FILE && sym.st_type() != STT_SECTION
                })
                .filter_map(|sym| {
                    let name = name_at(names, sym.st_name)?;
                    allowance = allowance.checked_sub(name.len())?;
                    // `$x`, `$d` and `.L...` are the assembler's own marks.
                    let own_mark = name.is_empty() || name.starts_with(['$', '.']);
                    (!own_mark).then(|| (sym.st_value, sym.st_size, name.to_owned()))
                }),
        ))
    };
    read().unwrap_or_default()
}

fn name_at(names: &[u8], offset: usize) -> Option<&str> {
    let rest = names.get(offset..)?;
    let end = rest.iter().take(MAX_NAME).position(|byte| *byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

fn usize_of(value: u64) -> Result<usize, LoadError> {
    usize::try_from(value).map_err(|_| malformed(format!("a file offset is {value:#x}")))
}

fn malformed(detail: String) -> LoadError {
    LoadError::Malformed { what: "ELF file", detail }
}
