//! One request: VIRTIO 1.2, section 5.2.6.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::queue::{Chain, QueueError};
use crate::disk::{Disk, DiskError, Failures, SECTOR_SIZE, in_range};
use crate::memory::{GuestMemory, OutOfRange};

/// Request types.
const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;

/// Values of the status byte.
const S_OK: u8 = 0;
const S_IOERR: u8 = 1;
const S_UNSUPP: u8 = 2;

/// Type, reserved, sector.
const HEADER_SIZE: u32 = 16;
/// Bytes of the device's identification.
pub(super) const ID_SIZE: usize = 20;
/// Sector, number of sectors, flags.
const RANGE_SIZE: u32 = 16;
const RANGE_UNMAP: u32 = 1;
/// The most ranges in one request, as configured.
pub(super) const MAX_RANGES: u32 = 64;

/// Data goes through a buffer of this size at most, whatever the guest asks for.
const PIECE: u32 = 256 << 10;
/// Ranges are discarded and zeroed in pieces of this size, so that a reset need not wait long.
const RANGE_PIECE: u64 = 64 << 20;

/// A request as the driver made it.
pub(super) struct Request {
    chain: Chain,
    kind: u32,
    sector: u64,
    /// What it writes is stable when it completes.
    write_through: bool,
}

impl Request {
    /// Takes the header out of a chain. One without room for header and status cannot be
    /// answered.
    pub(super) fn new(
        chain: Chain,
        memory: &GuestMemory,
        write_through: bool,
    ) -> Result<Self, QueueError> {
        let mut header = [0; HEADER_SIZE as usize];
        if chain.read(memory, 0, &mut header)? < header.len() {
            return Err(QueueError::Request("no block request header"));
        }
        if chain.writable_len() == 0 {
            return Err(QueueError::Request("no room for the block request's status"));
        }
        let [kind, _, low, high] = words(&header);
        Ok(Self { chain, kind, sector: u64::from(high) << 32 | u64::from(low), write_through })
    }

    /// Bytes of data to the disk.
    fn out_len(&self) -> u32 {
        self.chain.readable_len() - HEADER_SIZE
    }

    /// Bytes of data from the disk; the status byte comes after them.
    fn in_len(&self) -> u32 {
        self.chain.writable_len() - 1
    }
}

/// Little-endian words.
fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u32; WORDS] {
    std::array::from_fn(|i| {
        u32::from_le_bytes(std::array::from_fn(|byte| {
            bytes.get(4 * i + byte).copied().unwrap_or(0)
        }))
    })
}

/// A request that was performed, ready to be given back.
pub(super) struct Finished {
    pub(super) chain: Chain,
    status: u8,
    /// Bytes of data filled from the start.
    filled: u32,
}

impl Finished {
    /// Writes the status; returns the chain and how many bytes of it are filled from the start.
    pub(super) fn answer(self, memory: &GuestMemory) -> Result<(Chain, u32), QueueError> {
        let at = self.chain.writable_len() - 1;
        self.chain.write(memory, at, &[self.status])?;
        let filled = if self.filled == at { at + 1 } else { self.filled };
        Ok((self.chain, filled))
    }
}

/// Why a request fails.
enum Failed {
    /// The device does not know it.
    Unsupported,
    /// It asks for what the disk does not have, or nobody waits for it any more.
    Refused,
    /// The disk failed.
    Disk(DiskError),
}

impl From<DiskError> for Failed {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Range | DiskError::ReadOnly => Failed::Refused,
            DiskError::Full(_) | DiskError::Host(_) => Failed::Disk(error),
        }
    }
}

impl From<QueueError> for Failed {
    fn from(_: QueueError) -> Self {
        Failed::Refused
    }
}

impl From<OutOfRange> for Failed {
    fn from(_: OutOfRange) -> Self {
        Failed::Refused
    }
}

/// What performs requests, on any thread.
pub(super) struct Backend {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) failures: Arc<Failures>,
    /// Identification, padded with zeros.
    pub(super) id: [u8; ID_SIZE],
}

impl Backend {
    /// Performs a request, all but its status. Gives up early once `cancelled` is set.
    pub(super) fn perform(&self, request: Request, cancelled: &AtomicBool) -> Finished {
        let mut filled = 0;
        let result = match request.kind {
            T_IN => self.read(&request, &mut filled, cancelled),
            T_OUT => self.write(&request, cancelled),
            T_FLUSH => self.disk.flush().map_err(Failed::from),
            T_GET_ID => self.identify(&request, &mut filled),
            T_DISCARD | T_WRITE_ZEROES => self.clear(&request, cancelled),
            _ => Err(Failed::Unsupported),
        };
        let status = match result {
            Ok(()) => S_OK,
            Err(Failed::Unsupported) => S_UNSUPP,
            Err(Failed::Refused) => S_IOERR,
            Err(Failed::Disk(error)) => {
                self.failures.report(self.disk.name(), &error);
                S_IOERR
            }
        };
        Finished { chain: request.chain, status, filled }
    }

    fn read(
        &self,
        request: &Request,
        filled: &mut u32,
        cancelled: &AtomicBool,
    ) -> Result<(), Failed> {
        let len = request.in_len();
        let start = self.offset(request.sector, len.into())?;
        let mut buffer = vec![0; len.min(PIECE) as usize];
        while *filled < len {
            go_on(cancelled)?;
            let piece = &mut buffer[..(len - *filled).min(PIECE) as usize];
            self.disk.read_at(start + u64::from(*filled), piece)?;
            request.chain.write(&self.memory, *filled, piece)?;
            *filled += piece.len() as u32;
        }
        Ok(())
    }

    fn write(&self, request: &Request, cancelled: &AtomicBool) -> Result<(), Failed> {
        self.writable()?;
        let len = request.out_len();
        let start = self.offset(request.sector, len.into())?;
        let mut buffer = vec![0; len.min(PIECE) as usize];
        let mut done = 0;
        while done < len {
            go_on(cancelled)?;
            let piece = &mut buffer[..(len - done).min(PIECE) as usize];
            request.chain.read(&self.memory, HEADER_SIZE + done, piece)?;
            self.disk.write_at(start + u64::from(done), piece)?;
            done += piece.len() as u32;
        }
        self.settle(request)
    }

    fn identify(&self, request: &Request, filled: &mut u32) -> Result<(), Failed> {
        let len = request.in_len().min(ID_SIZE as u32);
        *filled = request.chain.write(&self.memory, 0, &self.id[..len as usize])? as u32;
        Ok(())
    }

    /// Discards or zeroes ranges; all are checked before the first is touched.
    fn clear(&self, request: &Request, cancelled: &AtomicBool) -> Result<(), Failed> {
        self.writable()?;
        let len = request.out_len();
        if len == 0 || !len.is_multiple_of(RANGE_SIZE) || len / RANGE_SIZE > MAX_RANGES {
            return Err(Failed::Refused);
        }
        let discard = request.kind == T_DISCARD;
        let known = if discard { 0 } else { RANGE_UNMAP };
        let mut ranges = Vec::new();
        for at in (0..len).step_by(RANGE_SIZE as usize) {
            let mut range = [0; RANGE_SIZE as usize];
            request.chain.read(&self.memory, HEADER_SIZE + at, &mut range)?;
            let [low, high, count, flags] = words(&range);
            if flags & !known != 0 {
                return Err(Failed::Unsupported);
            }
            let len = u64::from(count) * SECTOR_SIZE;
            let offset = self.offset(u64::from(high) << 32 | u64::from(low), len)?;
            ranges.push((offset, len, flags & RANGE_UNMAP != 0));
        }
        for (offset, len, unmap) in ranges {
            let mut done = 0;
            while done < len {
                go_on(cancelled)?;
                let piece = (len - done).min(RANGE_PIECE);
                if discard {
                    self.disk.discard(offset + done, piece)?;
                } else {
                    self.disk.write_zeroes(offset + done, piece, unmap)?;
                }
                done += piece;
            }
        }
        if discard { Ok(()) } else { self.settle(request) }
    }

    /// What a write with no volatile cache in between needs at its end.
    fn settle(&self, request: &Request) -> Result<(), Failed> {
        if request.write_through { Ok(self.disk.flush()?) } else { Ok(()) }
    }

    fn writable(&self) -> Result<(), Failed> {
        if self.disk.is_read_only() { Err(Failed::Refused) } else { Ok(()) }
    }

    /// The offset of a sector from which on there are `len` bytes, whole sectors, on the disk.
    fn offset(&self, sector: u64, len: u64) -> Result<u64, Failed> {
        let offset = sector.checked_mul(SECTOR_SIZE).ok_or(Failed::Refused)?;
        let inside = in_range(self.disk.sectors(), offset, len);
        if inside { Ok(offset) } else { Err(Failed::Refused) }
    }
}

fn go_on(cancelled: &AtomicBool) -> Result<(), Failed> {
    if cancelled.load(Ordering::Relaxed) { Err(Failed::Refused) } else { Ok(()) }
}
