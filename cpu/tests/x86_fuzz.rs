//! Random code in every mode: nothing that a guest does may panic, or hang the interpreter.

#[path = "x86_common/mod.rs"]
mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{PcBus, Start, cpu, interp, run};
use mimic_cpu::bus::Width;
use mimic_cpu::signals::Signals;
use mimic_cpu::x86::flags::bit;
use mimic_cpu::x86::model::Model;
use mimic_cpu::x86::state::cr4;
use mimic_cpu::x86::x87;

/// Xorshift (Marsaglia 2003).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn random_code_does_not_panic() {
    let seconds =
        std::env::var("MIMIC_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut random = 0x0123_4567_89ab_cdef;
    let mut retired = 0;
    // A repeated instruction may take for ever, and only its end is counted: somebody kicks.
    let running: Arc<Mutex<Option<Arc<Signals>>>> = Arc::default();
    let (stop, kicked) = (Arc::new(AtomicBool::new(false)), Arc::clone(&running));
    let stopped = Arc::clone(&stop);
    let kicker = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
            if let Some(signals) = &*kicked.lock().unwrap() {
                signals.kick();
            }
        }
    });
    while Instant::now() < end {
        let bus = PcBus::new(32);
        let start =
            [Start::Real, Start::Protected32, Start::Long][(next(&mut random) % 3) as usize];
        let mut cpu = cpu(&bus, start, 0x8000 + next(&mut random) % 0x4000, Model::v3());
        for gpa in (0x3000..32 * 4096).step_by(8) {
            let value = next(&mut random);
            bus.store(gpa, Width::Double, if value & 7 == 0 { value >> 8 & 0xffff } else { value });
        }
        for register in &mut cpu.gpr {
            let value = next(&mut random);
            *register = match value & 3 {
                0 => value,
                1 => value >> 47,
                2 => value >> 32,
                _ => u64::MAX - (value >> 58),
            };
        }
        cpu.rflags |=
            next(&mut random) & (bit::ARITH | bit::DF | bit::TF | bit::IOPL | bit::AC | bit::IF);
        cpu.cpl =
            if start == Start::Real { 0 } else { [0, 0, 3][(next(&mut random) % 3) as usize] };
        cpu.cr4 |= cr4::OSFXSR | cr4::OSXSAVE | next(&mut random) & cr4::OSXMMEXCPT;
        cpu.xcr0 = 7;
        if next(&mut random) & 1 == 0 {
            cpu.x87 = x87::State::default();
        }
        // Tables in random memory: gates and descriptors are found now and then.
        cpu.idtr.base = next(&mut random) & 0x1_fff8;
        cpu.gdtr.base = next(&mut random) & 0x1_fff8;
        cpu.tr.base = next(&mut random) & 0x1_fff8;
        let (mut interp, signals) = interp(cpu, &bus);
        *running.lock().unwrap() = Some(signals);
        for _ in 0..20 {
            // Whatever the exit, state and counts stay sound.
            let before = interp.retired();
            let _exit = run(&mut interp, 50);
            assert!(interp.retired() <= before + 50);
            retired += interp.retired() - before;
            let rip = 0x8000 + next(&mut random) % 0x8000;
            let core = interp.core_mut();
            core.cpu.activity = mimic_cpu::x86::state::Activity::Running;
            core.next_rip = rip;
        }
    }
    stop.store(true, Ordering::SeqCst);
    kicker.join().unwrap();
    println!("{retired} instructions");
    assert!(retired > 1000);
}
