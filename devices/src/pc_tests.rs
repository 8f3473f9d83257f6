//! The PC's devices together: wired as a board wires them, and under arbitrary input.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::bus::{SharedDevice, Width, lock};
use crate::clock::{Clock, TimerQueue};
use crate::hpet::{Hpet, LegacyRoute, Wiring};
use crate::i8042::I8042;
use crate::ioapic::{self, IoApic};
use crate::irq::{IrqLine, IrqSink, OrGate, Splitter};
use crate::lapic::{Config, CpuAttention, EoiSink, ExtIntSource, LapicDevice, Lapics, Tsc};
use crate::msi;
use crate::pc_testdev::{self, PcTestdev};
use crate::pic::{self, Pic};
use crate::pit::{self, Pit};
use crate::pm::Pm;
use crate::ports::PortSpace;
use crate::power::tests::Events;
use crate::rtc::Rtc;

#[derive(Default)]
struct Calls(AtomicUsize);

impl CpuAttention for Calls {
    fn call(&self, _cpu: usize) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One tick a nanosecond.
struct Nanoseconds(Clock);

impl Tsc for Nanoseconds {
    fn now(&self, _cpu: usize) -> u64 {
        self.0.now()
    }
    fn deadline(&self, _cpu: usize, tsc: u64) -> u64 {
        tsc
    }
}

struct Pc {
    clock: Clock,
    timers: TimerQueue,
    lapics: Arc<Lapics>,
    calls: Arc<Calls>,
    ports: PortSpace,
    /// Every device with the bytes of its offsets.
    devices: Vec<(SharedDevice, u64)>,
    /// The controllers hold each other weakly.
    _pic: Arc<Mutex<Pic>>,
    _ioapic: Arc<Mutex<IoApic>>,
}

fn pc() -> Pc {
    let (clock, timers) = (Clock::deterministic(), TimerQueue::new());
    let (calls, events) = (Arc::new(Calls::default()), Arc::new(Events::default()));
    let config = Config {
        ids: vec![0, 1],
        physical_bits: 40,
        x2apic: true,
        tsc: Some(Arc::new(Nanoseconds(clock.clone()))),
    };
    let lapics = Lapics::new(config, clock.clone(), &timers, calls.clone());
    let pic = Pic::new(IrqLine::new(lapics.clone(), 0));
    let ioapic = IoApic::new(lapics.clone());
    let pic_source: Arc<dyn ExtIntSource> = pic.clone();
    lapics.connect_pic(Arc::downgrade(&pic_source));
    let ends: Arc<dyn EoiSink> = ioapic.clone();
    lapics.connect_ioapic(Arc::downgrade(&ends));

    // IRQ n is input n of both controllers, but for IRQ 0, which is input 2 of the IOAPIC.
    let isa = |irq: u32| {
        let pin = if irq == 0 { 2 } else { irq };
        Splitter::line(vec![
            IrqLine::new(pic::inputs(&pic), irq),
            IrqLine::new(ioapic::inputs(&ioapic), pin),
        ])
    };
    let legacy = LegacyRoute::new(isa(0), isa(8));
    let input = |index| IrqLine::new(legacy.clone() as Arc<dyn IrqSink>, index);
    let pit = Pit::new(clock.clone(), &timers, input(0));
    let rtc = Rtc::new(clock.clone(), &timers, input(1), 1_700_000_000_123_456_789);
    let pins = (0..24).map(|pin| IrqLine::new(ioapic::inputs(&ioapic), pin)).collect();
    let wiring = Wiring { legacy, pins, routes: 0x00f0_0004, messages: lapics.clone() };
    let hpet = Hpet::new(clock.clone(), &timers, wiring);
    let pm = Pm::new(clock.clone(), &timers, isa(9), events.clone(), false);
    let a20 = OrGate::new(IrqLine::unconnected());
    let i8042 = I8042::new(isa(1), isa(12), a20.input(0), events);
    let testdev = PcTestdev::new((0..24).map(|_| IrqLine::unconnected()).collect());

    let ports = PortSpace::new();
    ports.map("pic", 0x20, 2, pic.clone(), pic::FIRST).unwrap();
    ports.map("pic", 0xa0, 2, pic.clone(), pic::SECOND).unwrap();
    ports.map("pic", 0x4d0, 2, pic.clone(), pic::ELCR).unwrap();
    ports.map("pit", 0x40, 4, pit.clone(), pit::COUNTERS).unwrap();
    ports.map("pit", 0x61, 1, pit.clone(), pit::PORT_61).unwrap();
    let lapic: SharedDevice = Arc::new(Mutex::new(LapicDevice(lapics.clone())));
    let devices: Vec<(SharedDevice, u64)> = vec![
        (lapic, msi::SIZE),
        (pic.clone(), 6),
        (ioapic.clone(), 0x60),
        (pit, 5),
        (rtc, 2),
        (hpet, 0x160),
        (pm, 0x42),
        (i8042, 2),
        (Arc::new(Mutex::new(testdev)), pc_testdev::MEMORY + pc_testdev::MEMORY_SIZE),
    ];
    Pc { clock, timers, lapics, calls, ports, devices, _pic: pic, _ioapic: ioapic }
}

impl Pc {
    fn out(&self, port: u16, value: u64) {
        self.ports.write(port, Width::Byte, value);
    }

    fn init_pic(&self) {
        for (port, words) in [(0x20, [0x11, 0x20, 4, 1]), (0xa0, [0x11, 0x28, 2, 1])] {
            self.out(port, words[0]);
            words[1..].iter().for_each(|&word| self.out(port + 1, word));
        }
    }

    fn pass_to(&self, ns: u64) {
        while let Some(next) = self.timers.next_deadline().filter(|&next| next <= ns) {
            self.clock.advance_to(next);
            self.timers.fire_due(next);
        }
        self.clock.advance_to(ns);
    }

    fn lapic(&self, offset: u64, value: u64) {
        self.lapics.write(0, offset, Width::Word, value).unwrap();
    }
}

/// The PIT's count for 999.85 microseconds; it is loaded a tick after it was written.
const MILLISECOND_TICKS: u64 = 1193;

#[test]
fn the_timer_interrupts_through_the_pic() {
    let pc = pc();
    pc.init_pic();
    pc.lapics.set_virtual_wire();
    pc.out(0x43, 0x34);
    pc.out(0x40, MILLISECOND_TICKS & 0xff);
    pc.out(0x40, MILLISECOND_TICKS >> 8);
    // OUT went high with the control word, which is an edge.
    assert_eq!(pc.lapics.acknowledge(0), Some(0x20));
    pc.out(0x20, 0x20);
    for tick in 1..=20 {
        assert!(!pc.lapics.interrupt_pending(0));
        pc.pass_to(tick * 1_000_000 + 1_000);
        assert_eq!(pc.lapics.acknowledge(0), Some(0x20), "tick {tick}");
        pc.out(0x20, 0x20);
    }
    assert!(pc.calls.0.load(Ordering::Relaxed) >= 20);
}

#[test]
fn the_timer_interrupts_through_the_ioapic() {
    let pc = pc();
    pc.init_pic();
    pc.out(0x21, 0xff);
    pc.out(0xa1, 0xff);
    pc.lapic(0xf0, 0x1ff);
    let ioapic = &pc.devices[2].0;
    for (register, value) in [(0x15, 0), (0x14, 0x30)] {
        lock(ioapic).write(0, Width::Word, register).unwrap();
        lock(ioapic).write(0x10, Width::Word, value).unwrap();
    }
    pc.out(0x43, 0x34);
    pc.out(0x40, MILLISECOND_TICKS & 0xff);
    pc.out(0x40, MILLISECOND_TICKS >> 8);
    assert_eq!(pc.lapics.acknowledge(0), Some(0x30));
    pc.lapic(0xb0, 0);
    pc.pass_to(1_001_000);
    assert_eq!(pc.lapics.acknowledge(0), Some(0x30));
    assert_eq!(pc.lapics.acknowledge(0), None);
}

/// Numbers without order (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Often small, sometimes with all bits.
    fn value(&mut self) -> u64 {
        let bits = self.below(64);
        self.next() >> bits
    }
}

fn access(pc: &Pc, random: &mut Random) {
    let width = Width::ALL[random.below(4) as usize];
    let (device, size) = &pc.devices[random.below(pc.devices.len() as u64) as usize];
    let offset = random.below(*size);
    // The bus refuses what reaches beyond a device.
    if offset + width.bytes() <= *size {
        let value = random.value() & width.mask();
        let mut device = lock(device);
        let _ = if random.below(2) == 0 {
            device.read(offset, width).map(drop)
        } else {
            device.write(offset, width, value)
        };
    }
    let cpu = random.below(2) as usize;
    let msr = [0x1b, 0x6e0, 0x800 + random.below(0x40) as u32][random.below(3) as usize];
    match random.below(6) {
        0 => drop(pc.lapics.read(cpu, random.below(0x400), width)),
        1 => drop(pc.lapics.write(cpu, random.below(0x40) << 4, Width::Word, random.value())),
        2 => drop(pc.lapics.read_msr(cpu, msr)),
        3 => drop(pc.lapics.write_msr(cpu, msr, random.value())),
        4 => drop(pc.lapics.acknowledge(cpu)),
        _ => drop(pc.lapics.take_requests(cpu)),
    }
}

#[test]
fn no_access_at_any_time_panics() {
    let pc = pc();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..200_000 {
        access(&pc, &mut random);
        if random.below(4) == 0 {
            let step = random.value() >> 24;
            pc.clock.advance_to(pc.clock.now() + step);
            pc.timers.fire_due(pc.clock.now());
        }
    }
}

#[test]
fn no_saved_state_panics() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut taken = 0;
    for _ in 0..60 {
        let pc = pc();
        for _ in 0..300 {
            access(&pc, &mut random);
            let mut device = lock(&pc.devices[random.below(8) as usize].0);
            let mut saved = device.save();
            let at = random.below(saved.bytes.len() as u64) as usize;
            saved.bytes[at] = random.next() as u8;
            taken += usize::from(device.restore(&saved).is_ok());
            drop(device);
            if random.below(8) == 0 {
                pc.clock.set(random.value());
            }
            pc.timers.fire_due(pc.clock.now());
        }
    }
    assert!(taken > 1000, "only {taken} states were taken");
}

#[test]
fn what_is_saved_is_what_was_restored() {
    let pc = pc();
    let mut random = Random(0x0123_4567_89ab_cdef);
    for _ in 0..200 {
        (0..50).for_each(|_| access(&pc, &mut random));
        for (device, _) in &pc.devices {
            let mut device = lock(device);
            let saved = device.save();
            device.restore(&saved).unwrap_or_else(|error| panic!("{}: {error}", device.name()));
            assert_eq!(device.save(), saved, "{}", device.name());
        }
    }
}
