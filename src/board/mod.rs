//! Boards: which devices there are, and where. A board's placement list builds the bus, the device tree
//! and what `mimic machines` prints.

pub mod microvm;
pub mod pc;
pub mod virt;

use crate::machine::spec::BoardKind;

/// One line of a board's memory map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapLine {
    /// What is there.
    pub name: String,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Interrupt source, if it has one.
    pub irq: Option<u32>,
}

/// A board, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardInfo {
    /// Name on the command line.
    pub name: &'static str,
    /// One line about it.
    pub title: &'static str,
    /// Its memory map, by address.
    pub map: Vec<MapLine>,
    /// Its I/O ports, in the same way.
    pub ports: Vec<MapLine>,
}

impl BoardKind {
    /// Every board.
    pub const ALL: &[BoardKind] = &[BoardKind::Virt, BoardKind::Pc, BoardKind::Microvm];
}

/// Describes a board.
#[must_use]
pub fn describe(board: BoardKind) -> BoardInfo {
    match board {
        BoardKind::Virt => virt::describe(),
        BoardKind::Pc => pc::describe(),
        BoardKind::Microvm => microvm::describe(),
    }
}
