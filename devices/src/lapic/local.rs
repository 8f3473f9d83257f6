//! One LAPIC's state, and what needs no other part of the machine.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::timer::TimerState;
use super::{BASE_BSP, BASE_EN, BASE_EXTD, DEFAULT_BASE, Lapics, Requests};
use crate::bus::{RestoreError, check, lock};
use crate::clock::Timer;

/// Registers by their number: bits 11 to 4 of the offset in the page (table 11-1), or the MSR's
/// number above 800H (table 11-6).
pub(super) mod reg {
    pub(in crate::lapic) const ID: usize = 0x02;
    pub(in crate::lapic) const VERSION: usize = 0x03;
    pub(in crate::lapic) const TPR: usize = 0x08;
    pub(in crate::lapic) const PPR: usize = 0x0a;
    pub(in crate::lapic) const EOI: usize = 0x0b;
    pub(in crate::lapic) const LDR: usize = 0x0d;
    pub(in crate::lapic) const DFR: usize = 0x0e;
    pub(in crate::lapic) const SVR: usize = 0x0f;
    pub(in crate::lapic) const ISR: usize = 0x10;
    pub(in crate::lapic) const TMR: usize = 0x18;
    pub(in crate::lapic) const IRR: usize = 0x20;
    pub(in crate::lapic) const IRR_LAST: usize = 0x27;
    pub(in crate::lapic) const ESR: usize = 0x28;
    pub(in crate::lapic) const ICR_LOW: usize = 0x30;
    pub(in crate::lapic) const ICR_HIGH: usize = 0x31;
    pub(in crate::lapic) const LVT_TIMER: usize = 0x32;
    pub(in crate::lapic) const LVT_THERMAL: usize = 0x33;
    pub(in crate::lapic) const LVT_PERFORMANCE: usize = 0x34;
    pub(in crate::lapic) const LVT_LINT0: usize = 0x35;
    pub(in crate::lapic) const LVT_LINT1: usize = 0x36;
    pub(in crate::lapic) const LVT_ERROR: usize = 0x37;
    pub(in crate::lapic) const INITIAL_COUNT: usize = 0x38;
    pub(in crate::lapic) const CURRENT_COUNT: usize = 0x39;
    pub(in crate::lapic) const DIVIDE: usize = 0x3e;
    pub(in crate::lapic) const SELF_IPI: usize = 0x3f;
    /// How many numbers there are.
    pub(in crate::lapic) const COUNT: usize = 0x40;
}

/// LVT bit 16, section 11.5.1.
pub(super) const LVT_MASKED: u32 = 1 << 16;
/// LVT bit 15 of the pins: level-triggered.
pub(super) const LVT_LEVEL: u32 = 1 << 15;
/// LVT bit 14 of the pins: a level-triggered interrupt has been accepted and not ended.
pub(super) const LVT_REMOTE_IRR: u32 = 1 << 14;
/// SVR bit 8, section 11.9.
pub(super) const SVR_ENABLE: u32 = 1 << 8;
/// SVR bit 12: no broadcast of EOIs.
pub(super) const SVR_SUPPRESS_EOI: u32 = 1 << 12;

/// Version 14H, six LVT entries, EOI broadcast can be suppressed (section 11.4.8).
pub(super) const VERSION_REGISTER: u32 = 1 << 24 | 5 << 16 | 0x14;

// The word of requests.
const NMI_ONE: u32 = 1;
const NMI_COUNT: u32 = 3;
const INIT: u32 = 1 << 2;
const EXTERNAL: u32 = 1 << 3;
const STARTUP: u32 = 1 << 4;
const VECTOR_SHIFT: u32 = 8;
const STARTUP_ALL: u32 = STARTUP | 0xff << VECTOR_SHIFT;

pub(super) struct Local {
    initial_id: u32,
    /// IA32_APIC_BASE.
    pub(super) base: AtomicU64,
    /// By [`reg`]; PPR, version and the current count are computed when read.
    registers: [AtomicU32; reg::COUNT],
    requests: AtomicU32,
    /// Errors since ESR was written last.
    errors: AtomicU32,
    /// Levels of LINT0 (bit 0) and LINT1 (bit 1).
    pins: AtomicU32,
    pub(super) timer: Mutex<TimerState>,
    pub(super) alarm: Timer,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct LocalState {
    base: u64,
    registers: Vec<u32>,
    requests: u32,
    errors: u32,
    pins: u32,
    timer: TimerState,
}

/// The highest bit set in eight registers of 32 bits each.
fn highest(registers: &[AtomicU32]) -> Option<u8> {
    registers.iter().enumerate().rev().find_map(|(index, word)| {
        let bit = word.load(Ordering::SeqCst).checked_ilog2()?;
        Some((index as u32 * 32 + bit) as u8)
    })
}

impl Local {
    pub(super) fn new(initial_id: u32, bootstrap: bool, alarm: Timer) -> Self {
        let local = Self {
            initial_id,
            base: AtomicU64::new(0),
            registers: [const { AtomicU32::new(0) }; reg::COUNT],
            requests: AtomicU32::new(0),
            errors: AtomicU32::new(0),
            pins: AtomicU32::new(0),
            timer: Mutex::default(),
            alarm,
        };
        local.power_on(bootstrap);
        local
    }

    /// The state after power-on; the pins keep their levels.
    pub(super) fn power_on(&self, bootstrap: bool) {
        let flag = if bootstrap { BASE_BSP } else { 0 };
        self.base.store(DEFAULT_BASE | BASE_EN | flag, Ordering::SeqCst);
        self.requests.store(0, Ordering::SeqCst);
        self.reset_registers();
        self.set(reg::ID, self.initial_id << 24);
    }

    /// The registers after power-on or INIT (sections 11.4.7.1 and 11.4.7.3), but for the id.
    pub(super) fn reset_registers(&self) {
        for (index, register) in self.registers.iter().enumerate() {
            let value = match index {
                reg::ID => continue,
                reg::DFR => u32::MAX,
                reg::SVR => 0xff,
                reg::LVT_TIMER..=reg::LVT_ERROR => LVT_MASKED,
                _ => 0,
            };
            register.store(value, Ordering::SeqCst);
        }
        if self.x2apic() {
            self.enter_x2apic();
        }
        self.errors.store(0, Ordering::SeqCst);
        *lock(&self.timer) = TimerState::default();
        self.alarm.cancel();
    }

    /// Id and logical id of x2APIC mode (sections 11.12.5.1 and 11.12.10.2).
    pub(super) fn enter_x2apic(&self) {
        let id = self.initial_id;
        self.set(reg::ID, id);
        self.set(reg::LDR, id >> 4 << 16 | 1 << (id & 0xf));
    }

    /// Disabled by IA32_APIC_BASE: everything is lost but the task priority, which stays reachable as
    /// CR8.
    pub(super) fn disable(&self) {
        let tpr = self.get(reg::TPR);
        self.reset_registers();
        self.set(reg::ID, self.initial_id << 24);
        self.set(reg::TPR, tpr);
    }

    pub(super) fn get(&self, register: usize) -> u32 {
        self.registers[register].load(Ordering::SeqCst)
    }

    pub(super) fn set(&self, register: usize, value: u32) {
        self.registers[register].store(value, Ordering::SeqCst);
    }

    /// Sets and clears bits of an LVT entry that others change, too.
    pub(super) fn change(&self, register: usize, clear: u32, set: u32) {
        let register = &self.registers[register];
        register.fetch_and(!clear, Ordering::SeqCst);
        register.fetch_or(set, Ordering::SeqCst);
    }

    pub(super) fn enabled(&self) -> bool {
        self.base.load(Ordering::SeqCst) & BASE_EN != 0
    }

    pub(super) fn x2apic(&self) -> bool {
        self.base.load(Ordering::SeqCst) & BASE_EXTD != 0
    }

    /// Enabled by IA32_APIC_BASE and SVR.
    pub(super) fn software_enabled(&self) -> bool {
        self.enabled() && self.get(reg::SVR) & SVR_ENABLE != 0
    }

    // Interrupts.

    fn vectors(&self, first: usize) -> &[AtomicU32] {
        &self.registers[first..first + 8]
    }

    /// Processor priority, section 11.8.3.1.
    pub(super) fn ppr(&self) -> u32 {
        let tpr = self.get(reg::TPR) & 0xff;
        let service = highest(self.vectors(reg::ISR)).map_or(0, u32::from);
        if tpr >> 4 >= service >> 4 { tpr } else { service & 0xf0 }
    }

    /// The vector that the CPU would be given.
    pub(super) fn deliverable(&self) -> Option<u8> {
        let vector = highest(self.vectors(reg::IRR))?;
        (self.enabled() && u32::from(vector) >> 4 > self.ppr() >> 4).then_some(vector)
    }

    /// Moves the deliverable vector from IRR to ISR.
    pub(super) fn take_highest(&self) -> Option<u8> {
        let vector = self.deliverable()?;
        let (word, bit) = (usize::from(vector) / 32, 1 << (vector % 32));
        self.registers[reg::IRR + word].fetch_and(!bit, Ordering::SeqCst);
        self.registers[reg::ISR + word].fetch_or(bit, Ordering::SeqCst);
        Some(vector)
    }

    /// Sets the vector in IRR (and TMR); false if it was there already.
    pub(super) fn request(&self, vector: u8, level: bool) -> bool {
        let (word, bit) = (usize::from(vector) / 32, 1 << (vector % 32));
        let trigger = &self.registers[reg::TMR + word];
        if level {
            trigger.fetch_or(bit, Ordering::SeqCst);
        } else if trigger.load(Ordering::SeqCst) & bit != 0 {
            trigger.fetch_and(!bit, Ordering::SeqCst);
        }
        self.registers[reg::IRR + word].fetch_or(bit, Ordering::SeqCst) & bit == 0
    }

    /// Ends the interrupt in service of the highest priority: its vector, and whether it was
    /// level-triggered.
    pub(super) fn end(&self) -> Option<(u8, bool)> {
        let vector = highest(self.vectors(reg::ISR))?;
        let (word, bit) = (usize::from(vector) / 32, 1 << (vector % 32));
        self.registers[reg::ISR + word].fetch_and(!bit, Ordering::SeqCst);
        let level = self.get(reg::TMR + word) & bit != 0;
        Some((vector, level))
    }

    // The pins.

    /// Notes the pin's level; true when it rose.
    pub(super) fn set_pin(&self, pin: u32, level: bool) -> bool {
        let bit = 1 << pin;
        if level {
            self.pins.fetch_or(bit, Ordering::SeqCst) & bit == 0
        } else {
            self.pins.fetch_and(!bit, Ordering::SeqCst);
            false
        }
    }

    pub(super) fn pin(&self, pin: u32) -> bool {
        self.pins.load(Ordering::SeqCst) >> pin & 1 != 0
    }

    /// Whether the PIC is to be asked for a vector.
    pub(super) fn external_pending(&self) -> bool {
        if self.requests.load(Ordering::SeqCst) & EXTERNAL != 0 {
            return true;
        }
        let passes = |pin: u32| {
            let lvt = self.get(reg::LVT_LINT0 + pin as usize);
            self.pin(pin) && lvt & LVT_MASKED == 0 && lvt >> 8 & 7 == 7
        };
        if self.enabled() { passes(0) || passes(1) } else { self.pin(0) }
    }

    pub(super) fn take_external(&self) {
        self.requests.fetch_and(!EXTERNAL, Ordering::SeqCst);
    }

    // Requests.

    pub(super) fn ask_external(&self) {
        self.requests.fetch_or(EXTERNAL, Ordering::SeqCst);
    }

    fn update_requests(&self, change: impl Fn(u32) -> u32) {
        let result = self
            .requests
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |requests| Some(change(requests)));
        debug_assert!(result.is_ok(), "the closure always returns a value");
    }

    pub(super) fn ask_nmi(&self) {
        self.update_requests(|r| if r & NMI_COUNT < 2 { r + NMI_ONE } else { r });
    }

    /// A start-up message that came before this INIT is lost.
    pub(super) fn ask_init(&self) {
        self.update_requests(|r| r & !STARTUP_ALL | INIT);
    }

    /// Of several start-up messages the first counts.
    pub(super) fn ask_startup(&self, vector: u8) {
        let ask = STARTUP | u32::from(vector) << VECTOR_SHIFT;
        self.update_requests(|r| if r & STARTUP == 0 { r | ask } else { r });
    }

    pub(super) fn has_requests(&self) -> bool {
        self.requests.load(Ordering::SeqCst) & !EXTERNAL != 0
    }

    pub(super) fn take_requests(&self) -> Requests {
        if !self.has_requests() {
            return Requests::default();
        }
        // Of two NMIs the second one stays until the CPU has taken the first.
        let left = |taken: u32| match taken & NMI_COUNT {
            0 | NMI_ONE => taken & EXTERNAL,
            _ => taken & EXTERNAL | NMI_ONE,
        };
        let mut taken = self.requests.load(Ordering::SeqCst);
        while let Err(now) =
            self.requests.compare_exchange(taken, left(taken), Ordering::SeqCst, Ordering::SeqCst)
        {
            taken = now;
        }
        Requests {
            init: taken & INIT != 0,
            startup: (taken & STARTUP != 0).then_some((taken >> VECTOR_SHIFT) as u8),
            nmi: taken & NMI_COUNT != 0,
        }
    }

    // Errors, section 11.5.3.

    /// Notes an error; true if it is the first since ESR was written, which causes the interrupt.
    pub(super) fn note_error(&self, error: u32) -> bool {
        self.errors.fetch_or(error, Ordering::SeqCst) == 0
    }

    /// A write to ESR: it shows the errors since the last one.
    pub(super) fn latch_errors(&self) {
        self.set(reg::ESR, self.errors.swap(0, Ordering::SeqCst));
    }

    // Snapshots.

    pub(super) fn save(&self) -> LocalState {
        let Self { initial_id: _, base, registers, requests, errors, pins, timer, alarm: _ } = self;
        LocalState {
            base: base.load(Ordering::SeqCst),
            registers: registers.iter().map(|r| r.load(Ordering::SeqCst)).collect(),
            requests: requests.load(Ordering::SeqCst),
            errors: errors.load(Ordering::SeqCst),
            pins: pins.load(Ordering::SeqCst),
            timer: lock(timer).clone(),
        }
    }

    /// Whether a running LAPIC can have this state.
    pub(super) fn check(&self, state: &LocalState, lapics: &Lapics) -> Result<(), RestoreError> {
        let mode = state.base & (BASE_EN | BASE_EXTD);
        check(mode != BASE_EXTD, "IA32_APIC_BASE")?;
        check(lapics.is_base_valid(state.base), "IA32_APIC_BASE")?;
        check(state.registers.len() == reg::COUNT, "number of LAPIC registers")?;
        check(state.requests & NMI_COUNT < 3, "NMIs")?;
        check(state.requests & !(NMI_COUNT | INIT | EXTERNAL | STARTUP_ALL) == 0, "requests")?;
        check(state.errors <= 0xff && state.pins <= 3, "errors or pins of a LAPIC")?;
        let illegal = [reg::ISR, reg::IRR].map(|first| state.registers[first] & 0xffff);
        check(illegal == [0; 2], "vectors below 16")
    }

    /// Takes over a state that [`Local::check`] accepted; the timer is to be armed afterwards.
    pub(super) fn restore(&self, state: LocalState) {
        let LocalState { base, registers, requests, errors, pins, timer } = state;
        self.base.store(base, Ordering::SeqCst);
        for (register, value) in self.registers.iter().zip(registers) {
            register.store(value, Ordering::SeqCst);
        }
        self.requests.store(requests, Ordering::SeqCst);
        self.errors.store(errors, Ordering::SeqCst);
        self.pins.store(pins, Ordering::SeqCst);
        *lock(&self.timer) = timer;
    }
}
