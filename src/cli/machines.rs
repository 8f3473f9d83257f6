//! `mimic machines`.

use super::{Failure, print};
use crate::board::{MapLine, describe};
use crate::machine::spec::BoardKind;

pub(super) fn execute() -> Result<u8, Failure> {
    let mut text = String::new();
    for board in BoardKind::ALL {
        let board = describe(*board);
        text.push_str(&format!("{}: {}\n", board.name, board.title));
        for line in &board.map {
            text.push_str(&described(&format!("{:#014x}", line.base), line));
        }
        for line in &board.ports {
            text.push_str(&described(&format!("port {:#x}", line.base), line));
        }
    }
    print(text.trim_end())
}

fn described(place: &str, line: &MapLine) -> String {
    let irq = line.irq.map(|irq| format!("  IRQ {irq}")).unwrap_or_default();
    format!("  {place:<14}  {:>10}  {}{irq}\n", size(line.size), line.name)
}

/// Bytes in the largest unit that divides them; nothing when the user decides.
fn size(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        64 => String::new(),
        30.. => format!("{} GiB", bytes >> 30),
        20.. => format!("{} MiB", bytes >> 20),
        10.. => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}
