//! The loader: the bytes of a file become an image that a board can place in guest memory.
//!
//! What a file is, and for which instruction set, is found by looking at it; no name or option is
//! trusted. Reading order: `identify` (the kinds of files that are recognised in order to be refused
//! with the next thing to try), `linux_image`, `bzimage`, `elf`, `x86`, `multiboot2`, `symbols`.
//!
//! Every byte of a file is hostile: the loader never panics, and it allocates no more than the file's
//! size and [`MAX_IMAGE`] allow.

pub mod bzimage;
mod elf;
pub mod fuzz;
mod identify;
mod linux_image;
pub mod multiboot2;
mod symbols;
mod x86;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bzimage::SetupHeader;
use multiboot2::Multiboot2;
pub use symbols::Symbols;

/// Largest image in bytes, after decompression. Kernels are tens of MiB.
pub const MAX_IMAGE: u64 = 1 << 30;

/// Instruction set of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// RV64.
    Riscv64,
    /// x86-64.
    X86_64,
}

impl Isa {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Isa::Riscv64 => "RISC-V",
            Isa::X86_64 => "x86",
        }
    }
}

/// How wide the code is that an x86 image begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// Real mode.
    B16,
    /// Protected mode with flat segments, no paging.
    B32,
    /// 64-bit mode, the lowest 4 GiB mapped as they are. Whatever is not for x86 is of these, too.
    B64,
}

/// How an image describes itself, which decides how it is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// ELF: placed at its physical addresses.
    Elf,
    /// Linux `Image` (kernel documentation, `arch/riscv/boot-image-header`): position-independent;
    /// its segment address and entry are offsets from the place the board chooses.
    LinuxImage,
    /// Bytes at an address.
    Flat,
    /// Multiboot kernel (version 1), from an ELF file or placed by the header's own addresses.
    Multiboot,
    /// The same of version 2.
    Multiboot2,
    /// ROM of a PC: it ends at 4 GiB, where the processor begins.
    Rom,
    /// Linux for x86: a bzImage, or the ELF file `vmlinux`, entered in 64-bit mode.
    LinuxX86,
    /// ELF file with an entry for PVH: in 32-bit mode, told of the machine by a `hvm_start_info`.
    Pvh,
}

/// A piece of guest memory: `bytes` at `addr`, then zeros up to `size`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address (of a [`ImageKind::LinuxImage`]: offset from where it is placed).
    pub addr: u64,
    /// Contents.
    pub bytes: Vec<u8>,
    /// Bytes of memory covered, at least `bytes.len()`; `addr + size` does not wrap.
    pub size: u64,
}

/// An image, ready to be placed.
#[derive(Clone, Debug)]
pub struct LoadedImage {
    /// Instruction set.
    pub isa: Isa,
    /// Kind.
    pub kind: ImageKind,
    /// Its first code, on x86.
    pub bits: Bits,
    /// The name it was loaded by; empty if it comes from no file.
    pub name: String,
    /// Contents, in file order.
    pub segments: Vec<Segment>,
    /// Physical address of the first instruction (of a [`ImageKind::LinuxImage`]: offset from where
    /// it is placed).
    pub entry: u64,
    /// Names of addresses; empty when the file has none.
    pub symbols: Symbols,
    /// HTIF's `tohost`.
    pub tohost: Option<u64>,
    /// HTIF's `fromhost`.
    pub fromhost: Option<u64>,
    /// `begin_signature..end_signature`.
    pub signature: Option<(u64, u64)>,
    /// Memory in bytes that a [`ImageKind::LinuxImage`] claims from where it is placed; 0 for the
    /// other kinds.
    pub image_size: u64,
    /// Offset from the start of RAM (aligned to 2 MiB) at which a [`ImageKind::LinuxImage`] wants to
    /// be placed; 0 for the other kinds.
    pub text_offset: u64,
    /// The setup header of a [`ImageKind::LinuxX86`].
    pub setup: Option<SetupHeader>,
    /// What a [`ImageKind::Multiboot2`] wants.
    pub multiboot2: Option<Multiboot2>,
}

impl LoadedImage {
    /// An image of nothing, for machines that start from flash or from firmware alone: execution goes on
    /// at `entry`.
    pub fn nothing(entry: u64) -> Self {
        LoadedImage {
            isa: Isa::Riscv64,
            kind: ImageKind::Flat,
            bits: Bits::B64,
            name: String::new(),
            segments: Vec::new(),
            entry,
            symbols: Symbols::default(),
            tohost: None,
            fromhost: None,
            signature: None,
            image_size: 0,
            text_offset: 0,
            setup: None,
            multiboot2: None,
        }
    }

    /// Moves an image that does not depend on its place up by `offset` bytes, modulo 2^64. Its symbols stay behind.
    pub fn move_by(&mut self, offset: u64) {
        for segment in &mut self.segments {
            segment.addr = segment.addr.wrapping_add(offset);
        }
        self.entry = self.entry.wrapping_add(offset);
        self.symbols = Symbols::default();
    }

    /// Lowest address and first address above all segments; `None` without segments.
    pub fn span(&self) -> Option<(u64, u64)> {
        let low = self.segments.iter().map(|s| s.addr).min()?;
        let high = self.segments.iter().map(|s| s.addr + s.size).max()?;
        Some((low, high))
    }
}

/// What the user decided about an image.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Take the file as flat code at this physical address.
    pub load_addr: Option<u64>,
    /// Flat code is for x86, and of this width; otherwise for RV64.
    pub bits: Option<Bits>,
}

/// Why a file cannot be an image, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The error belongs to this file.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The error.
        source: Box<LoadError>,
    },
    /// There is no such file.
    #[error("there is no such file{}", similar.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    Missing {
        /// A file of the same folder with a similar name.
        similar: Option<String>,
    },
    /// The host could not read the file.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A guest of an instruction set that no board here has.
    #[error("wrong architecture: this is {what} for {arch}; {hint}")]
    WrongArch {
        /// Kind of file.
        what: &'static str,
        /// Its instruction set.
        arch: String,
        /// The next thing to try.
        hint: &'static str,
    },
    /// Recognised, but nothing that can be started.
    #[error("this is {what}, which can not be started here; {hint}")]
    Unsupported {
        /// Kind of file.
        what: &'static str,
        /// The next thing to try.
        hint: &'static str,
    },
    /// What it is started with is not there.
    #[error("this {what} cannot do without {needs}, which the boards here do not have")]
    Needs {
        /// Kind of file.
        what: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// Recognised, but broken.
    #[error("this {what} is damaged: {detail}; fetch or build it again")]
    Malformed {
        /// Kind of file.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// Not recognised.
    #[error(
        "this is no ELF file, Linux Image, multiboot kernel, ROM or other known kind of image; \
         if it is raw RV64 code, say where it belongs with --load-addr 0x80000000; \
         raw x86 code, with --load-addr 0x7c00 --bits 16"
    )]
    Unknown,
    /// Options and file contradict each other.
    #[error("{0}")]
    Options(&'static str),
    /// Larger than [`MAX_IMAGE`].
    #[error("larger than {} MiB, the limit for an image", MAX_IMAGE >> 20)]
    TooLarge,
}

/// Reads and parses a file.
///
/// # Errors
/// [`LoadError::InFile`] naming `path`, with the reason inside.
pub fn load_file(path: &Path, options: &LoadOptions) -> Result<LoadedImage, LoadError> {
    read_file(path)
        .and_then(|bytes| parse(&bytes, options))
        .map(|image| LoadedImage { name: path.to_string_lossy().into_owned(), ..image })
        .map_err(|source| LoadError::InFile { path: path.to_path_buf(), source: Box::new(source) })
}

/// Reads a whole file of at most [`MAX_IMAGE`] bytes. A larger one is still identified by its
/// beginning, so that a disk image is called a disk image.
///
/// # Errors
/// Any [`LoadError`] but [`LoadError::InFile`].
pub fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(LoadError::Missing { similar: similar_name(path) });
        }
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.is_dir() {
        return Err(LoadError::Unsupported {
            what: "a folder",
            hint: "name a file in it, or use `mimic test` on it",
        });
    }
    let mut bytes = Vec::new();
    file.take(MAX_IMAGE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_IMAGE {
        return Err(identify::foreign(&bytes).unwrap_or(LoadError::TooLarge));
    }
    Ok(bytes)
}

/// Parses the bytes of a file.
///
/// # Errors
/// Any [`LoadError`] but [`LoadError::InFile`], [`LoadError::Missing`] and [`LoadError::Io`].
pub fn parse(bytes: &[u8], options: &LoadOptions) -> Result<LoadedImage, LoadError> {
    if let Some(addr) = options.load_addr {
        return flat(bytes, addr, options.bits);
    }
    if bytes.is_empty() {
        return Err(LoadError::Malformed { what: "file", detail: "it is empty".into() });
    }
    match linux_image::unpack(bytes)? {
        Some(inner) => parse_plain(&inner),
        None => parse_plain(bytes),
    }
}

/// True when the file begins like an ELF file, of whatever instruction set.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(goblin::elf::header::ELFMAG)
}

fn parse_plain(bytes: &[u8]) -> Result<LoadedImage, LoadError> {
    if is_elf(bytes) {
        let image = elf::parse(bytes)?;
        return Ok(match image.isa {
            Isa::X86_64 => match x86::multiboot(bytes, Some(&image))? {
                Some(image) => image,
                None => elf::entered_by_pvh(bytes, image)?,
            },
            Isa::Riscv64 => image,
        });
    }
    if let Some(image) = x86::multiboot(bytes, None)? {
        return Ok(image);
    }
    if let Some(image) = linux_image::parse(bytes)? {
        return Ok(image);
    }
    if let Some(image) = bzimage::parse(bytes)? {
        return Ok(image);
    }
    if let Some(error) = identify::foreign(bytes) {
        return Err(error);
    }
    x86::rom(bytes).ok_or(LoadError::Unknown)
}

fn flat(bytes: &[u8], addr: u64, bits: Option<Bits>) -> Result<LoadedImage, LoadError> {
    if is_elf(bytes) {
        return Err(LoadError::Options(
            "an ELF file carries its own addresses; leave --load-addr away",
        ));
    }
    if bytes.is_empty() {
        return Err(LoadError::Malformed { what: "flat binary", detail: "it is empty".into() });
    }
    if bits == Some(Bits::B16) && addr.saturating_add(bytes.len() as u64) > 1 << 20 {
        return Err(LoadError::Options("16-bit code lies below 1 MiB, such as --load-addr 0x7c00"));
    }
    if bits.is_none() && !addr.is_multiple_of(2) || addr.checked_add(bytes.len() as u64).is_none() {
        return Err(LoadError::Options(
            "--load-addr must be even and leave room for the file below 2^64",
        ));
    }
    let segment = Segment { addr, bytes: bytes.to_vec(), size: bytes.len() as u64 };
    Ok(LoadedImage {
        isa: if bits.is_some() { Isa::X86_64 } else { Isa::Riscv64 },
        bits: bits.unwrap_or(Bits::B64),
        segments: vec![segment],
        ..LoadedImage::nothing(addr)
    })
}

/// The name in `path`'s folder that looks most like its file name.
fn similar_name(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::read_dir(folder)
        .ok()?
        .take(10_000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .map(|name| (strsim::jaro_winkler(wanted, &name), name))
        .filter(|(score, _)| *score > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| folder.join(name).to_string_lossy().trim_start_matches("./").to_owned())
}

#[cfg(test)]
mod tests;
