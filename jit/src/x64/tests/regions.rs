//! Random regions, and the host code of one.

use super::Random;
use super::blocks::{block_at, regs};
use super::machine::Machine;
use crate::ir::region::{Part, Region};

/// Bytes between the starts of parts.
const APART: u64 = 0x80;

fn region(random: &mut Random) -> Region {
    let count = 1 + random.below(6) as u64;
    let starts: Vec<i64> = (0..count).map(|k| (0x400 + APART * k) as i64).collect();
    let mut targets = starts.clone();
    targets.extend([0x200, 0x1000]);
    let mut ends = starts.clone();
    ends.extend(&starts);
    ends.push(0x1000);
    let most = random.pick(&[3, 10, 30]);
    let mut parts: Vec<Part> = (0..count)
        .map(|k| Part {
            block: block_at(random, 0x400 + APART * k, most, &targets, &ends),
            times: random.below(400) as u32,
            entry: random.below(3) == 0,
        })
        .collect();
    parts[0].entry = true;
    Region { parts, crossings: random.below(20) as u32 }
}

#[test]
fn of_random_blocks() {
    let (mut machine, mut plain) = (Machine::new(), Machine::plain());
    let mut random = Random(0x2468_1357);
    let mut done = 0;
    for k in 0..20_000 {
        let region = region(&mut random);
        let entries = region.parts.iter().filter(|part| part.entry).count();
        for machine in [&mut machine, &mut plain] {
            machine.cold = k % 3 == 0;
            machine.engine.sticky = random.pick(&[0, 0x20, 0x3f]);
            let mut regs = regs(&mut random);
            regs[3] = u64::from(random.below(3) != 0);
            let entry = random.below(entries);
            let counter = random.below(200) as i64;
            done += machine.compare_region(&region, entry, &regs, counter);
        }
    }
    assert!(done > 500_000, "they hardly loop: {done}");
}
