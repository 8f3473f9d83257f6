//! Code memory: the same pages seen twice, executable and writable, so that no protection is changed while code runs.
//!
//! They are shared anonymous memory and not a memfd, whose name would keep `perf` from looking for names of the code.
//!
//! It is filled segment by segment, in a ring: when all are full, the oldest is emptied for new code.
#![allow(unsafe_code)] // Host code is mapped, written and patched here.

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{
    MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap_anonymous, mprotect, mremap, munmap,
};

/// Address of a piece of code in the executable view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePtr(pub usize);

/// A mapping of memory that is shared with another one.
struct View {
    at: *mut u8,
    len: usize,
}

// SAFETY: it owns its mapping; whoever may use it may do so on any thread.
unsafe impl Send for View {}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: made by `views`, and nothing refers to it any more. A refusal leaves it mapped.
        let _ = unsafe { munmap(self.at.cast(), self.len) };
    }
}

/// Maps `len` bytes twice: to be written, and to be executed.
fn views(len: usize) -> io::Result<(View, View)> {
    let (access, flags) =
        (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
    // SAFETY: a new mapping, at an address that the host chooses.
    let at = unsafe { mmap_anonymous(ptr::null_mut(), len, access, flags)? };
    let writable = View { at: at.cast(), len };
    // SAFETY: an old size of zero makes another mapping of the same shared pages, at an address that the host chooses.
    let at = unsafe { mremap(at, 0, len, MremapFlags::MAYMOVE)? };
    let executable = View { at: at.cast(), len };
    // SAFETY: nobody uses the second mapping yet.
    unsafe { mprotect(at, len, MprotectFlags::READ | MprotectFlags::EXEC)? };
    Ok((writable, executable))
}

/// The memory, and what is free of it.
pub struct CodeMemory {
    writable: View,
    executable: View,
    /// Bytes at the beginning that belong to no segment.
    fixed: usize,
    segment_bytes: usize,
    /// The segment that is being filled, and how far.
    segment: usize,
    used: usize,
    /// Bytes of code in each segment.
    filled: [usize; SEGMENTS],
}

/// Number of segments.
pub const SEGMENTS: usize = 8;
/// Code begins at multiples of this.
const ALIGN: usize = 16;
/// Least bytes: a segment must hold the largest block.
pub const MIN_BYTES: usize = 512 << 10;

/// What [`CodeMemory::reserve`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is room in the current segment.
    Here,
    /// The code belongs into this segment, whose old code is gone from now on.
    Recycled(usize),
}

impl CodeMemory {
    /// Maps `bytes` (at least [`MIN_BYTES`]) of code memory.
    ///
    /// # Errors
    /// The host's, if it refuses executable memory or has none.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(MIN_BYTES) & !4095;
        let (writable, executable) = views(bytes)?;
        Ok(CodeMemory {
            writable,
            executable,
            fixed: 0,
            segment_bytes: bytes / SEGMENTS,
            segment: 0,
            used: 0,
            filled: [0; SEGMENTS],
        })
    }

    fn base(&self) -> usize {
        self.executable.at.expose_provenance()
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped readable as long as `self` lives. Pages are changed by `bytes_mut` alone: code does not write
        // to itself.
        unsafe { std::slice::from_raw_parts(self.writable.at, self.writable.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped writable as long as `self` lives, and borrowed with it. The other view is read by the CPU as
        // code, and only while nobody holds this.
        unsafe { std::slice::from_raw_parts_mut(self.writable.at, self.writable.len) }
    }

    /// Where code of the beginning that belongs to no segment will lie.
    #[must_use]
    pub fn fixed_base(&self) -> CodePtr {
        CodePtr(self.base())
    }

    /// Puts code at the beginning, for good. Once, before any [`reserve`](Self::reserve).
    pub fn set_fixed(&mut self, code: &[u8]) {
        self.bytes_mut()[..code.len()].copy_from_slice(code);
        self.fixed = code.len().next_multiple_of(4096);
        self.segment_bytes = (self.writable.len - self.fixed) / SEGMENTS & !(ALIGN - 1);
    }

    /// Makes room for `bytes` of code, in the current segment or the next one.
    pub fn reserve(&mut self, bytes: usize) -> Room {
        assert!(bytes <= self.segment_bytes, "a block is larger than a segment of code memory");
        if self.used + bytes <= self.segment_bytes {
            return Room::Here;
        }
        self.segment = (self.segment + 1) % SEGMENTS;
        self.used = 0;
        self.filled[self.segment] = 0;
        Room::Recycled(self.segment)
    }

    /// The segment being filled.
    #[must_use]
    pub fn segment(&self) -> usize {
        self.segment
    }

    /// Where the next code will lie.
    #[must_use]
    pub fn next(&self) -> CodePtr {
        CodePtr(self.base() + self.fixed + self.segment * self.segment_bytes + self.used)
    }

    /// Puts `code` at [`next`](Self::next); [`reserve`](Self::reserve) has made room for it.
    pub fn push(&mut self, code: &[u8]) -> CodePtr {
        let at = self.next();
        let offset = at.0 - self.base();
        self.bytes_mut()[offset..offset + code.len()].copy_from_slice(code);
        self.used += code.len().next_multiple_of(ALIGN);
        self.filled[self.segment] = self.used;
        at
    }

    /// Bytes of code held.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        self.filled.iter().sum()
    }

    /// Where the code of a segment lies.
    #[must_use]
    pub fn range(&self, segment: usize) -> Range<usize> {
        let start = self.base() + self.fixed + segment * self.segment_bytes;
        start..start + self.segment_bytes
    }

    /// Where the `jmp rel32` whose displacement lies at `at` leads.
    #[must_use]
    pub fn jump_target(&self, at: CodePtr) -> CodePtr {
        let offset = at.0 - self.base();
        let bytes = &self.bytes()[offset..offset + 4];
        let displacement = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        CodePtr((at.0 + 4).wrapping_add_signed(displacement as i32 as isize))
    }

    /// Makes the code that is entered at `at` lead to `target` from its first instruction on. Nobody executes it.
    pub fn redirect(&mut self, at: CodePtr, target: CodePtr) {
        const JMP: u8 = 0xe9;
        let offset = at.0 - self.base();
        let displacement = target.0.wrapping_sub(at.0 + 5) as u32;
        let place = &mut self.bytes_mut()[offset..offset + 5];
        place[0] = JMP;
        place[1..].copy_from_slice(&displacement.to_le_bytes());
    }

    /// Makes the `jmp rel32` whose displacement lies at `at` lead to `target`.
    pub fn patch_jump(&mut self, at: CodePtr, target: CodePtr) {
        let displacement = target.0.wrapping_sub(at.0 + 4) as u32;
        let offset = at.0 - self.base();
        let place = &mut self.bytes_mut()[offset..offset + 4];
        if *place == displacement.to_le_bytes() {
            // A write would disturb the CPU that executes it.
            return;
        }
        if place.as_ptr().addr().is_multiple_of(4) {
            // SAFETY: in bounds and aligned, and nobody else writes here. One store, so that a CPU that executes the
            // instruction sees the old or the new displacement.
            let place = unsafe { AtomicU32::from_ptr(place.as_mut_ptr().cast()) };
            place.store(displacement, Ordering::Release);
        } else {
            place.copy_from_slice(&displacement.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_executed_and_patched() {
        let mut memory = CodeMemory::new(0).unwrap();
        // mov eax, 7; ret
        memory.set_fixed(&[0xb8, 7, 0, 0, 0, 0xc3]);
        // mov eax, 9; ret
        assert_eq!(memory.reserve(16), Room::Here);
        let nine = memory.push(&[0xb8, 9, 0, 0, 0, 0xc3]);
        // jmp to the next instruction; ret
        let jump = memory.push(&[0xe9, 0, 0, 0, 0, 0xc3]);
        let call = |code: CodePtr| {
            // SAFETY: the bytes above are a function of this type.
            let function: extern "sysv64" fn() -> u32 =
                unsafe { std::mem::transmute(std::ptr::with_exposed_provenance::<u8>(code.0)) };
            function()
        };
        assert_eq!(call(memory.fixed_base()), 7);
        assert_eq!(call(nine), 9);
        assert_eq!(memory.jump_target(CodePtr(jump.0 + 1)), CodePtr(jump.0 + 5));
        memory.patch_jump(CodePtr(jump.0 + 1), nine);
        assert_eq!(memory.jump_target(CodePtr(jump.0 + 1)), nine);
        assert_eq!(call(jump), 9);
        let fixed = memory.fixed_base();
        memory.patch_jump(CodePtr(jump.0 + 1), fixed);
        assert_eq!(call(jump), 7);
    }

    #[test]
    fn segments_are_filled_in_turn() {
        let mut memory = CodeMemory::new(MIN_BYTES).unwrap();
        memory.set_fixed(&[0xc3]);
        let block = vec![0xcc; 20_000];
        let mut order = vec![0];
        for _ in 0..40 {
            if let Room::Recycled(segment) = memory.reserve(block.len()) {
                order.push(segment);
            }
            memory.push(&block);
            assert!(memory.bytes_used() <= MIN_BYTES);
        }
        assert_eq!(order[..10], [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]);
    }
}
