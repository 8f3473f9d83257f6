//! The file of a snapshot.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | magic |
//! | 4 | version of the format, little-endian as all that follows |
//! | 4 | zero |
//! | 8 | length of the payload |
//! | 16 | XXH3 (128 bits) of payload, version and length |
//! | ... | payload: an LZ4 frame |
//!
//! The frame holds the length (4 bytes) and the bytes of the [`MachineState`] (postcard), then the pages
//! of memory that are not zero: address (8 bytes) and contents, in ascending order, and all-ones at the end.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Take, Write};
use std::path::{Path, PathBuf};

use lz4_flex::frame::{FrameDecoder, FrameEncoder};
use mimic_devices::memory::{GuestMemory, PAGE_SIZE};
use twox_hash::XxHash3_128;

use super::{MachineState, SnapshotError, invalid, pages};

/// Not text, and spoilt by whatever changes line ends.
const MAGIC: [u8; 8] = *b"\x89MIMIC\r\n";
/// Changes with anything that the payload holds outside the devices' own states.
const VERSION: u32 = 4;
const HEADER: u64 = 40;
/// Most bytes of a [`MachineState`], far above any real one.
const MAX_STATE: u32 = 64 << 20;
/// What stands where the address of another page could be.
const END: u64 = u64::MAX;

/// Passes bytes on, summing them up.
struct Summing<W> {
    inner: W,
    hasher: XxHash3_128,
    len: u64,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.write(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn checksum(mut payload: XxHash3_128, version: u32, len: u64) -> u128 {
    payload.write(&version.to_le_bytes());
    payload.write(&len.to_le_bytes());
    payload.finish_128()
}

/// Writes a snapshot to `path`: whole, or not at all.
pub(super) fn write(path: &Path, state: &MachineState, memory: &GuestMemory) -> io::Result<()> {
    let bytes = postcard::to_allocvec(state).map_err(io::Error::other)?;
    write_with(path, |out| {
        write_state(out, &bytes)?;
        pages::walk(memory, |gpa, page| {
            out.write_all(&gpa.to_le_bytes())?;
            out.write_all(page)
        })?;
        out.write_all(&END.to_le_bytes())
    })
}

/// Writes a snapshot whose state and pages are these bytes.
#[cfg(test)]
pub(super) fn write_raw(path: &Path, state: &[u8], pages: &[u8]) -> io::Result<()> {
    write_with(path, |out| {
        write_state(out, state)?;
        out.write_all(if pages.is_empty() { &[0xff; 8] } else { pages })
    })
}

fn write_state(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= MAX_STATE);
    let len = len.ok_or_else(|| io::Error::other("the machine's state is too large"))?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(bytes)
}

fn write_with(
    path: &Path,
    payload: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::Builder::new().prefix(".mimic-snapshot-").tempfile_in(folder)?;
    let file = temporary.as_file_mut();
    file.write_all(&[0; HEADER as usize])?;
    let (hasher, len) = compress(file, payload)?;
    let mut header = Vec::with_capacity(HEADER as usize);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend([0; 4]);
    header.extend(len.to_le_bytes());
    header.extend(checksum(hasher, VERSION, len).to_le_bytes());
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header)?;
    file.sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    // The new name shall survive a crash of the host, too.
    File::open(folder)?.sync_all()
}

/// Writes the compressed payload; its sum and its length.
fn compress(
    file: &File,
    payload: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<(XxHash3_128, u64)> {
    let summing = Summing { inner: BufWriter::new(file), hasher: XxHash3_128::new(), len: 0 };
    let mut frame = FrameEncoder::new(summing);
    payload(&mut frame)?;
    let mut summing = frame.finish().map_err(io::Error::from)?;
    summing.flush()?;
    Ok((summing.hasher, summing.len))
}

type Payload = FrameDecoder<BufReader<Take<File>>>;

/// A snapshot's file, found to be undamaged, with its state read and its pages still to be read.
pub struct Snapshot {
    path: PathBuf,
    payload: Payload,
    state: MachineState,
}

impl Snapshot {
    /// Opens a snapshot and checks all of it that can be checked without a machine.
    ///
    /// # Errors
    /// [`SnapshotError`] says what is wrong with the file.
    pub fn open(path: &Path) -> Result<Snapshot, SnapshotError> {
        let failed = |source| SnapshotError::io(path, source);
        let mut file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(SnapshotError::Foreign(path.into()));
        }
        let len = check(&mut file, path, metadata.len())?;
        file.seek(SeekFrom::Start(HEADER)).map_err(failed)?;
        let mut payload = FrameDecoder::new(BufReader::new(file.take(len)));
        let state = read_state(&mut payload)?;
        state.check()?;
        Ok(Snapshot { path: path.into(), payload, state })
    }

    /// The machine, without the contents of its memory.
    #[must_use]
    pub fn state(&self) -> &MachineState {
        &self.state
    }

    /// Makes `memory` hold what the saved machine's held, and nothing else.
    ///
    /// # Errors
    /// [`SnapshotError`] if it is laid out otherwise, or if the pages cannot be those of such a memory.
    pub(in crate::machine) fn read_memory(
        &mut self,
        memory: &GuestMemory,
    ) -> Result<(), SnapshotError> {
        self.state.check_memory(memory)?;
        pages::walk(memory, |gpa, _| {
            memory.fill(gpa, &[0; PAGE_SIZE as usize]).map_err(io::Error::other)
        })
        .map_err(SnapshotError::Memory)?;
        let failed = |source| unreadable(&self.path, source);
        let mut page = [0; PAGE_SIZE as usize];
        let mut above = 0;
        loop {
            let mut gpa = [0; 8];
            self.payload.read_exact(&mut gpa).map_err(failed)?;
            let gpa = u64::from_le_bytes(gpa);
            if gpa == END {
                break;
            }
            if !gpa.is_multiple_of(PAGE_SIZE) || gpa < above {
                return Err(invalid("its pages are not in order"));
            }
            self.payload.read_exact(&mut page).map_err(failed)?;
            memory
                .fill(gpa, &page)
                .map_err(|_| invalid(format!("it has a page at {gpa:#x}, where no memory is")))?;
            above = gpa + PAGE_SIZE;
        }
        match self.payload.read(&mut page) {
            Ok(0) => Ok(()),
            Ok(_) => Err(invalid("something follows its last page")),
            Err(error) => Err(failed(error)),
        }
    }

    /// Reads the pages without keeping them; how many there are.
    ///
    /// # Errors
    /// As for loading.
    pub fn count_pages(mut self) -> Result<u64, SnapshotError> {
        let mut rest = 0;
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| unreadable(&path, source)
        };
        let mut chunk = [0; 1 << 16];
        loop {
            match self.payload.read(&mut chunk).map_err(failed(&self.path))? {
                0 => break,
                len => rest += len as u64,
            }
        }
        Ok(rest / (8 + PAGE_SIZE))
    }
}

/// The checksum was right, so what cannot be decompressed was never a snapshot's payload.
fn unreadable(path: &Path, source: io::Error) -> SnapshotError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => invalid("its payload ends too early"),
        io::ErrorKind::InvalidData | io::ErrorKind::Other => {
            invalid(format!("its payload is malformed: {source}"))
        }
        _ => SnapshotError::io(path, source),
    }
}

/// Checks header and checksum; the length of the payload.
fn check(file: &mut File, path: &Path, size: u64) -> Result<u64, SnapshotError> {
    let failed = |source| SnapshotError::io(path, source);
    let mut header = Vec::new();
    file.take(HEADER).read_to_end(&mut header).map_err(failed)?;
    if !header.starts_with(&MAGIC) {
        return Err(SnapshotError::Foreign(path.into()));
    }
    let Ok(header) = <[u8; HEADER as usize]>::try_from(header) else {
        return Err(SnapshotError::Truncated(path.into()));
    };
    let field = |from: usize, len: usize| {
        header[from..from + len]
            .iter()
            .rev()
            .fold(0u128, |value, &byte| value << 8 | u128::from(byte))
    };
    let (version, zero) = (field(8, 4) as u32, field(12, 4));
    let (len, sum) = (field(16, 8) as u64, field(24, 16));
    if version != VERSION {
        let path = path.into();
        return Err(SnapshotError::Version { path, found: version, known: VERSION });
    }
    if size < HEADER.saturating_add(len) {
        return Err(SnapshotError::Truncated(path.into()));
    }
    let mut hasher = XxHash3_128::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => hasher.write(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if zero != 0 || checksum(hasher, version, len) != sum {
        return Err(SnapshotError::Damaged(path.into()));
    }
    Ok(len)
}

fn read_state(payload: &mut Payload) -> Result<MachineState, SnapshotError> {
    let malformed = |_| invalid("its payload is malformed");
    let mut len = [0; 4];
    payload.read_exact(&mut len).map_err(malformed)?;
    let len = u32::from_le_bytes(len);
    if len > MAX_STATE {
        return Err(invalid("its state is too large"));
    }
    // Grows with what is really there.
    let mut bytes = Vec::new();
    payload.take(len.into()).read_to_end(&mut bytes).map_err(malformed)?;
    match postcard::take_from_bytes(&bytes) {
        Ok((state, [])) if bytes.len() == len as usize => Ok(state),
        _ => Err(invalid("its state is malformed")),
    }
}
