//! Random programs against Spike, instruction by instruction: traps, modes, paging and PMP included;
//! data/lockstep/README.md says how the data was made.

mod common;

use std::fs;
use std::path::Path;

use common::{RAM, TestBus, interp, run};
use mimic_cpu::riscv::hart::{Hart, Mode};
use mimic_cpu::riscv::interp::Interp;
use mimic_cpu::run::Exit;

const CODE: u64 = RAM + 0x4000;
const M_HANDLER: u64 = RAM + 0x6000;
const S_HANDLER: u64 = RAM + 0x6400;
const START: u64 = RAM + 0x6800;
const PAGES: usize = 10;

/// 64-bit FNV-1a.
struct Hash(u64);

impl Hash {
    fn add(&mut self, word: u64) {
        for byte in word.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// Performs one instruction, and a trap before it if one is due; returns where the instruction lay.
fn step(interp: &mut Interp, before: &Hart) -> (u64, Hart) {
    let traps = interp.counters().traps;
    assert_eq!(run(interp, 1), Exit::Budget);
    let after = interp.hart();
    let trapped = interp.counters().traps != traps;
    let pc = match after.mode {
        _ if !trapped => before.pc,
        // The first instruction of a handler leaves the mode as it is.
        Mode::M => M_HANDLER,
        _ => S_HANDLER,
    };
    (pc, after)
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("a hexadecimal figure")
}

fn follow(name: &str, data: &str) {
    let bus = TestBus::new(PAGES, 0);
    let mut expected = Vec::new();
    for line in data.lines().filter(|line| !line.starts_with('#')) {
        let (first, second) = line.split_once(' ').expect("two fields");
        match first.strip_prefix('@') {
            Some(address) => {
                let digits = |at: usize| hex(&second[at..at + 2]) as u8;
                let bytes: Vec<u8> = (0..second.len()).step_by(2).map(digits).collect();
                bus.put_bytes(hex(address), &bytes);
            }
            None => expected.push((first.parse::<u64>().expect("a count"), hex(second))),
        }
    }
    assert!(expected.len() > 20, "{name}: too short");
    let (mut interp, _) = interp(Hart::new(0, START), &bus);
    let mut hart = interp.hart();
    while hart.pc != CODE {
        hart = step(&mut interp, &hart).1;
        assert!(hart.retired < 200, "{name}: the start does not end");
    }
    let (mut hash, mut done) = (Hash(0xcbf2_9ce4_8422_2325), 0);
    for (count, wanted) in expected {
        let begin = hart.pc;
        while done < count {
            let (pc, after) = step(&mut interp, &hart);
            hash.add(pc);
            let registers = |hart: &Hart| hart.x.into_iter().chain(hart.f);
            for (r, (old, new)) in registers(&hart).zip(registers(&after)).enumerate() {
                if old != new {
                    hash.add(r as u64);
                    hash.add(new);
                }
            }
            hart = after;
            done += 1;
        }
        assert_eq!(hash.0, wanted, "{name}: the 100 instructions up to {count}, from {begin:#x}");
    }
}

#[test]
fn random_programs_run_as_on_spike() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lockstep");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            follow(&path.display().to_string(), &fs::read_to_string(&path).unwrap());
            count += 1;
        }
    }
    assert_eq!(count, 12);
}
