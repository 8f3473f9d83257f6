//! ACLINT: machine software interrupts and the machine timer, at the offsets of SiFive's CLINT.
//!
//! Source: RISC-V ACLINT specification 1.0-rc4 (MSWI and MTIMER devices); SiFive FU540-C000 manual,
//! chapter 9, for the combined map.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use serde::{Deserialize, Serialize};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check, lock};
use crate::clock::{Clock, NEVER, Timer, TimerQueue};
use crate::irq::IrqLine;

/// Bytes that the device takes on the bus.
pub const SIZE: u64 = 0x1_0000;
/// Nanoseconds of guest time per tick of `mtime`: 10 MHz.
pub const NS_PER_TICK: u64 = 100;
/// Ticks of `mtime` per second, for the device tree's `timebase-frequency`.
pub const FREQUENCY: u64 = 1_000_000_000 / NS_PER_TICK;
/// The most harts that the map has room for (MSIP at 4 bytes each below 0x4000).
pub const MAX_HARTS: usize = 4095;

const MTIMECMP: u64 = 0x4000;
const MTIME: u64 = 0xbff8;

const VERSION: u32 = 1;

/// The lines of one hart.
#[derive(Clone, Debug)]
pub struct HartLines {
    /// Machine software interrupt, `mip.MSIP`.
    pub msip: IrqLine,
    /// Machine timer interrupt, `mip.MTIP`.
    pub mtip: IrqLine,
}

/// `mtime`, as the device and the harts' `time` CSR read it. Clones are the same counter.
#[derive(Clone)]
pub struct Mtime {
    clock: Clock,
    shared: Arc<MtimeShared>,
}

struct MtimeShared {
    /// What the guest added by writing `mtime`.
    offset: AtomicU64,
    changed: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Mtime {
    /// A counter at 10 MHz that starts with `clock`.
    pub fn new(clock: Clock) -> Self {
        let shared = MtimeShared { offset: AtomicU64::new(0), changed: OnceLock::new() };
        Self { clock, shared: Arc::new(shared) }
    }

    /// The counter now.
    pub fn ticks(&self) -> u64 {
        (self.clock.now() / NS_PER_TICK).wrapping_add(self.shared.offset.load(Ordering::Acquire))
    }

    /// The first guest time (nanoseconds) at which the counter is at least `ticks`: now or earlier
    /// if it is already; [`NEVER`] if it lies beyond the range of guest time or is 2^64 - 1, which
    /// software uses to mean never.
    pub fn deadline(&self, ticks: u64) -> u64 {
        if ticks == u64::MAX {
            return NEVER;
        }
        // One look at the clock: two could be a tick apart and lead to an early deadline.
        let base = self.clock.now() / NS_PER_TICK;
        let now = base.wrapping_add(self.shared.offset.load(Ordering::Acquire));
        let ahead = ticks.saturating_sub(now);
        base.checked_add(ahead).and_then(|tick| tick.checked_mul(NS_PER_TICK)).unwrap_or(NEVER)
    }

    /// Sets what is called when the guest moved the counter, so that the owner of `stimecmp`
    /// deadlines computes them anew; the first caller wins. Runs with the ACLINT's lock held.
    pub fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        if self.shared.changed.set(Box::new(changed)).is_err() {
            log::warn!(target: "aclint", "mtime already has a listener");
        }
    }

    fn set_offset(&self, offset: u64) {
        if self.shared.offset.swap(offset, Ordering::AcqRel) != offset
            && let Some(changed) = self.shared.changed.get()
        {
            changed();
        }
    }

    fn set(&self, ticks: u64) {
        self.set_offset(ticks.wrapping_sub(self.clock.now() / NS_PER_TICK));
    }
}

impl std::fmt::Debug for Mtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Mtime").field(&self.ticks()).finish()
    }
}

/// The device.
pub struct Aclint {
    // What the board attached.
    mtime: Mtime,
    harts: Vec<Hart>,
}

struct Hart {
    lines: HartLines,
    timer: Timer,

    // What the guest can tell.
    msip: bool,
    mtimecmp: u64,
}

#[derive(Serialize, Deserialize)]
struct AclintState {
    mtime_offset: u64,
    /// (msip, mtimecmp) per hart.
    harts: Vec<(bool, u64)>,
}

impl Aclint {
    /// An ACLINT for the harts 0, 1, ... whose lines are given, at most [`MAX_HARTS`].
    pub fn new(mtime: Mtime, timers: &TimerQueue, harts: Vec<HartLines>) -> Arc<Mutex<Self>> {
        Arc::new_cyclic(|device: &Weak<Mutex<Self>>| {
            let harts = harts.into_iter().take(MAX_HARTS).enumerate().map(|(index, lines)| {
                let device = device.clone();
                let timer = timers.register(Arc::new(move |_| {
                    if let Some(device) = device.upgrade() {
                        lock(&device).update_timer(index);
                    }
                }));
                // The reset value is unspecified; never is the one that surprises nobody.
                Hart { lines, timer, msip: false, mtimecmp: u64::MAX }
            });
            Mutex::new(Self { mtime, harts: harts.collect() })
        })
    }

    fn update_timer(&mut self, index: usize) {
        let Some(hart) = self.harts.get(index) else { return };
        // The deadline is computed before the counter is looked at, so that time passing between
        // the two leads to a level, not to a lost deadline.
        let deadline = self.mtime.deadline(hart.mtimecmp);
        let due = hart.mtimecmp != u64::MAX && self.mtime.ticks() >= hart.mtimecmp;
        if due {
            hart.timer.cancel();
        } else {
            hart.timer.arm(deadline);
        }
        hart.lines.mtip.set(due);
    }

    fn update_timers(&mut self) {
        (0..self.harts.len()).for_each(|index| self.update_timer(index));
    }
}

/// What is at an offset.
enum Register {
    Msip(usize),
    Mtimecmp(usize),
    Mtime,
    Reserved,
}

fn register(offset: u64) -> Register {
    match offset {
        0..MTIMECMP => Register::Msip((offset / 4) as usize),
        MTIMECMP..MTIME => Register::Mtimecmp(((offset - MTIMECMP) / 8) as usize),
        MTIME..=0xbfff => Register::Mtime,
        _ => Register::Reserved,
    }
}

/// The part of a 64-bit register that an access reads.
fn extract(register: u64, offset: u64, width: Width) -> u64 {
    register >> (8 * (offset & 7)) & width.mask()
}

/// A 64-bit register after an access wrote part of it.
fn deposit(register: u64, offset: u64, width: Width, value: u64) -> u64 {
    let shift = 8 * (offset & 7);
    register & !(width.mask() << shift) | value << shift
}

impl Device for Aclint {
    fn name(&self) -> &'static str {
        "aclint"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        if !matches!(width, Width::Word | Width::Double) || !width.is_aligned(offset) {
            return Err(BusError::Width);
        }
        Ok(match register(offset) {
            Register::Msip(index) => {
                if width != Width::Word {
                    return Err(BusError::Width);
                }
                self.harts.get(index).map_or(0, |hart| hart.msip.into())
            }
            Register::Mtimecmp(index) => {
                let value = self.harts.get(index).map_or(0, |hart| hart.mtimecmp);
                extract(value, offset, width)
            }
            Register::Mtime => extract(self.mtime.ticks(), offset, width),
            Register::Reserved => 0,
        })
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        if !matches!(width, Width::Word | Width::Double) || !width.is_aligned(offset) {
            return Err(BusError::Width);
        }
        match register(offset) {
            Register::Msip(index) => {
                if width != Width::Word {
                    return Err(BusError::Width);
                }
                if let Some(hart) = self.harts.get_mut(index) {
                    hart.msip = value & 1 != 0;
                    hart.lines.msip.set(hart.msip);
                }
            }
            Register::Mtimecmp(index) => {
                if let Some(hart) = self.harts.get_mut(index) {
                    hart.mtimecmp = deposit(hart.mtimecmp, offset, width, value);
                    self.update_timer(index);
                }
            }
            Register::Mtime => {
                self.mtime.set(deposit(self.mtime.ticks(), offset, width, value));
                self.update_timers();
            }
            Register::Reserved => {}
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.mtime.set(0);
        for hart in &mut self.harts {
            hart.msip = false;
            hart.mtimecmp = u64::MAX;
            hart.lines.msip.lower();
        }
        self.update_timers();
    }

    fn save(&self) -> SavedDevice {
        let Self { mtime, harts } = self;
        let harts =
            harts.iter().map(|Hart { lines: _, timer: _, msip, mtimecmp }| (*msip, *mtimecmp));
        let mtime_offset = mtime.shared.offset.load(Ordering::Acquire);
        SavedDevice::encode(VERSION, &AclintState { mtime_offset, harts: harts.collect() })
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let AclintState { mtime_offset, harts } = saved.decode(VERSION)?;
        check(harts.len() == self.harts.len(), "number of harts")?;
        self.mtime.set_offset(mtime_offset);
        for (hart, (msip, mtimecmp)) in self.harts.iter_mut().zip(harts) {
            hart.msip = msip;
            hart.mtimecmp = mtimecmp;
            hart.lines.msip.set(msip);
        }
        self.update_timers();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    struct Rig {
        aclint: Arc<Mutex<Aclint>>,
        clock: Clock,
        timers: TimerQueue,
        mtime: Mtime,
        lines: Vec<HartLines>,
    }

    fn rig(harts: usize) -> Rig {
        let (clock, timers) = (Clock::deterministic(), TimerQueue::new());
        let mtime = Mtime::new(clock.clone());
        let open = IrqLine::unconnected;
        let lines: Vec<_> = (0..harts).map(|_| HartLines { msip: open(), mtip: open() }).collect();
        let aclint = Aclint::new(mtime.clone(), &timers, lines.clone());
        Rig { aclint, clock, timers, mtime, lines }
    }

    impl Rig {
        fn write(&self, offset: u64, width: Width, value: u64) {
            lock(&self.aclint).write(offset, width, value).unwrap();
        }
        fn read(&self, offset: u64, width: Width) -> u64 {
            lock(&self.aclint).read(offset, width).unwrap()
        }
        fn pass(&self, ns: u64) {
            self.clock.advance_to(ns);
            self.timers.fire_due(ns);
        }
    }

    #[test]
    fn msip_is_one_bit_per_hart() {
        let rig = rig(2);
        rig.write(4, Width::Word, 0xffff_ffff);
        assert_eq!((rig.read(0, Width::Word), rig.read(4, Width::Word)), (0, 1));
        assert!(!rig.lines[0].msip.level() && rig.lines[1].msip.level());
        rig.write(4, Width::Word, 2);
        assert!(!rig.lines[1].msip.level());
        rig.write(8, Width::Word, 1);
        assert_eq!(rig.read(8, Width::Word), 0, "no third hart");
    }

    #[test]
    fn the_timer_never_fires_early() {
        let rig = rig(2);
        rig.clock.advance_to(99);
        rig.write(0x4008, Width::Double, 3);
        assert_eq!(rig.timers.next_deadline(), Some(300));
        rig.pass(299);
        assert_eq!(rig.read(0xbff8, Width::Double), 2);
        assert!(!rig.lines[1].mtip.level());
        rig.pass(300);
        assert!(rig.lines[1].mtip.level() && !rig.lines[0].mtip.level());
        rig.write(0x4008, Width::Double, 4);
        assert!(!rig.lines[1].mtip.level());
        rig.write(0x4008, Width::Double, 1);
        assert!(rig.lines[1].mtip.level(), "a time in the past is due at once");
    }

    #[test]
    fn all_ones_never_fires() {
        let rig = rig(1);
        rig.write(0x4000, Width::Double, u64::MAX);
        assert_eq!(rig.timers.next_deadline(), None);
        rig.write(0x4000, Width::Double, u64::MAX - 1);
        assert_eq!(rig.timers.next_deadline(), None, "beyond the range of guest time");
        rig.write(0xbff8, Width::Double, u64::MAX);
        assert!(rig.lines[0].mtip.level());
        rig.write(0x4000, Width::Double, u64::MAX);
        assert!(!rig.lines[0].mtip.level());
    }

    #[test]
    fn registers_have_halves() {
        let rig = rig(1);
        rig.write(0x4004, Width::Word, 0x1234);
        rig.write(0x4000, Width::Word, 0x5678);
        assert_eq!(rig.read(0x4000, Width::Double), 0x1234_0000_5678);
        assert_eq!(rig.read(0x4004, Width::Word), 0x1234);
        rig.write(0xbffc, Width::Word, 7);
        assert_eq!(rig.read(0xbff8, Width::Double), 7 << 32);
        assert_eq!(rig.read(0xbffc, Width::Word), 7);
        for (offset, width) in
            [(0, Width::Byte), (0x4000, Width::Half), (0x4004, Width::Double), (0, Width::Double)]
        {
            assert_eq!(lock(&rig.aclint).read(offset, width), Err(BusError::Width));
            assert_eq!(lock(&rig.aclint).write(offset, width, 0), Err(BusError::Width));
        }
    }

    #[test]
    fn writing_mtime_moves_the_time_csr_and_the_deadlines() {
        let rig = rig(1);
        let told = Arc::new(AtomicBool::new(false));
        let flag = told.clone();
        rig.mtime.on_change(move || flag.store(true, Ordering::Relaxed));
        rig.write(0x4000, Width::Double, 1000);
        rig.write(0xbff8, Width::Double, 990);
        assert!(told.load(Ordering::Relaxed));
        assert_eq!(rig.mtime.ticks(), 990);
        assert_eq!(rig.timers.next_deadline(), Some(1000));
        assert_eq!(rig.mtime.deadline(991), 100);
        rig.write(0xbff8, Width::Double, 1000);
        assert!(rig.lines[0].mtip.level());
        rig.write(0xbff8, Width::Double, 0);
        assert!(!rig.lines[0].mtip.level());
    }

    #[test]
    fn saved_state_comes_back_with_its_lines() {
        let first = rig(2);
        first.write(0, Width::Word, 1);
        first.write(0x4008, Width::Double, 50);
        first.write(0xbff8, Width::Double, 20);
        let saved = lock(&first.aclint).save();
        let second = rig(2);
        lock(&second.aclint).restore(&saved).unwrap();
        assert!(second.lines[0].msip.level());
        assert_eq!(second.timers.next_deadline(), Some(3000));
        assert_eq!(lock(&second.aclint).save(), saved);
        let other = rig(3);
        let error = lock(&other.aclint).restore(&saved).unwrap_err();
        assert_eq!(error, RestoreError::Invalid("number of harts"));
        lock(&second.aclint).reset();
        assert!(!second.lines[0].msip.level());
        assert_eq!(second.timers.next_deadline(), None);
    }
}
