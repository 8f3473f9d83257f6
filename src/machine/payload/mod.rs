//! What memory holds when a machine starts, and where its first processor begins.

mod bios;
mod linux;
mod multiboot;
mod multiboot2;
mod pc;
mod pvh;
mod virt;

pub(super) use pc::{Start, bootstrap, identity};

use super::MachineError;
use super::spec::{BoardKind, MachineSpec};

const MIB: u64 = 1 << 20;

/// Bytes and where they go.
pub(super) struct Piece {
    pub(super) addr: u64,
    pub(super) bytes: Vec<u8>,
}

/// What memory holds when the machine starts.
pub(super) struct Layout {
    pub(super) pieces: Vec<Piece>,
    /// The firmware in M-mode is our own, so the finisher's codes are known.
    pub(super) own_firmware: bool,
    /// Bytes of ROM below 4 GiB, on a PC.
    pub(super) rom: u64,
    /// Where the first processor of a PC starts.
    pub(super) start: Start,
}

impl Layout {
    /// Of a machine whose memory comes from elsewhere.
    pub(super) fn empty(own_firmware: bool, rom: u64) -> Self {
        Layout { pieces: Vec::new(), own_firmware, rom, start: Start::Reset }
    }
}

/// Lays out memory for `spec`; `rng_seed` is the guest's entropy.
pub(super) fn lay_out(spec: &MachineSpec, rng_seed: [u8; 32]) -> Result<Layout, MachineError> {
    let (image, board) = (spec.image.isa, spec.board);
    if image != board.isa() {
        return Err(MachineError::Placement(format!(
            "this image is for {}, the board {} runs {}: leave --machine away, or give another image",
            image.name(),
            board.name(),
            board.isa().name()
        )));
    }
    match board {
        BoardKind::Virt => virt::lay_out(spec, rng_seed),
        BoardKind::Pc | BoardKind::Microvm => pc::lay_out(spec),
    }
}
