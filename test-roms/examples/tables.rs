//! Compares what simulators list for the x86 tables with what is expected, or makes expectations of it:
//!
//!     cargo run -p mimic-test-roms --example tables -- x86/NAME compare LISTING
//!     cargo run -p mimic-test-roms --example tables -- x86/NAME make LISTING 'QEMU 10.0.2' > expected/NAME.txt
//!
//! A listing is what a ROM prints at port 0xe9 with `list` on its command line, for instance under
//! `qemu-system-x86_64 -kernel NAME.elf -append list -debugcon file:LISTING -display none -cpu max
//! -device isa-debug-exit,iobase=0xf4`.

use std::collections::BTreeMap;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, what, listing, rest @ ..] = &args[..] else {
        return Err("usage: tables NAME compare|make LISTING [COMMENT]".into());
    };
    let text = std::fs::read_to_string(listing)?;
    let rom = mimic_test_roms::find(name).ok_or("there is no such ROM")?;
    if what == "make" {
        print!("{}", rom.expectations(&text, rest.first().map_or("", String::as_str))?);
        return Ok(());
    }
    let differences = rom.differences(&text)?;
    let mut by_outcome: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (cell, listed, expected) in differences {
        by_outcome.entry((listed, expected)).or_default().push(cell);
    }
    for ((listed, expected), cells) in &by_outcome {
        println!("{listed}\n  instead of {expected}");
        println!("  in {} cells, {} to {}", cells.len(), cells[0], cells[cells.len() - 1]);
    }
    let count: usize = by_outcome.values().map(Vec::len).sum();
    println!("{count} cells differ");
    Ok(())
}
