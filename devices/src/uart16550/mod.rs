//! 16550A serial port.
//!
//! Source: National Semiconductor, "PC16550D Universal Asynchronous Receiver/Transmitter with
//! FIFOs", June 1995; section and table numbers below are its own. Two liberties that a guest
//! cannot tell from an eager peer: the transmitter takes no time, and the line delivers a byte as
//! soon as the receiver has room, so that input from the host is never overrun.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, check, lock};
use crate::clock::{Clock, Timer, TimerQueue};
use crate::irq::IrqLine;
use crate::serial::{InputQueue, SerialInput, SerialOutput};

/// Register numbers (table II); each is at its number shifted by [`Config::register_shift`].
const RBR_THR_DLL: u64 = 0;
const IER_DLM: u64 = 1;
const IIR_FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;
const SCR: u64 = 7;

bitflags::bitflags! {
    /// Interrupt enable register, section 8.7.
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Ier: u8 {
        const RECEIVED = 1;
        const THR_EMPTY = 2;
        const LINE_STATUS = 4;
        const MODEM_STATUS = 8;
    }

    /// Modem control register, section 8.8.
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Mcr: u8 {
        const DTR = 1;
        const RTS = 2;
        const OUT1 = 4;
        const OUT2 = 8;
        const LOOP = 16;
    }

    /// Modem status register, section 8.9.
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Msr: u8 {
        const DCTS = 1;
        const DDSR = 2;
        const TERI = 4;
        const DDCD = 8;
        const CTS = 16;
        const DSR = 32;
        const RI = 64;
        const DCD = 128;
    }
}

/// FCR bits, section 8.5; only FIFO_ENABLE is kept.
const FCR_FIFO_ENABLE: u8 = 1;
const FCR_RECEIVER_RESET: u8 = 2;
/// LCR bit 7, section 8.1.
const DLAB: u8 = 0x80;
/// LSR bits, section 8.4. The transmitter is always empty.
const LSR_DATA_READY: u8 = 1;
const LSR_OVERRUN: u8 = 2;
const LSR_THR_EMPTY: u8 = 0x20;
const LSR_TRANSMITTER_EMPTY: u8 = 0x40;
/// IIR, table IV.
const IIR_MODEM_STATUS: u8 = 0;
const IIR_NONE: u8 = 1;
const IIR_THR_EMPTY: u8 = 2;
const IIR_RECEIVED: u8 = 4;
const IIR_LINE_STATUS: u8 = 6;
const IIR_TIMEOUT: u8 = 0xc;
const IIR_FIFOS_ENABLED: u8 = 0xc0;

/// Characters that the receiver FIFO holds.
const FIFO_SIZE: usize = 16;
/// What the other end drives: ready, carrier present.
const LINE: Msr = Msr::CTS.union(Msr::DSR).union(Msr::DCD);

const VERSION: u32 = 1;

/// What differs between boards.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Registers are `1 << register_shift` bytes apart.
    pub register_shift: u32,
    /// Input clock in Hz; the baud rate is this over 16 times the divisor latch.
    pub clock_hz: u64,
}

impl Default for Config {
    /// The `virt` board's: registers a byte apart, 3.6864 MHz.
    fn default() -> Self {
        Self { register_shift: 0, clock_hz: 3_686_400 }
    }
}

impl Config {
    /// Bytes that the device takes on the bus: its eight registers.
    pub fn size(&self) -> u64 {
        8 << self.register_shift
    }
}

/// The device.
pub struct Uart16550 {
    // What the board attached.
    config: Config,
    clock: Clock,
    timeout: Timer,
    irq: IrqLine,
    output: Box<dyn SerialOutput>,
    input: InputQueue,

    // What the guest can tell.
    state: UartState,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct UartState {
    /// Divisor latch, DLM in the high half.
    divisor: u16,
    ier: u8,
    fifo_enabled: bool,
    /// Characters in the receiver FIFO that raise the interrupt: 1, 4, 8 or 14.
    trigger: u8,
    lcr: u8,
    mcr: u8,
    /// The change bits of MSR (its low half).
    msr_delta: u8,
    scr: u8,
    overrun: bool,
    /// The THRE interrupt was caused and neither IIR nor THR took it back.
    thr_interrupt: bool,
    /// Four character times passed with the FIFO untouched.
    timed_out: bool,
    /// When they will have, in nanoseconds of guest time.
    timeout_at: Option<u64>,
    /// Receiver FIFO, or RBR as its only entry.
    received: VecDeque<u8>,
}

impl UartState {
    /// Master reset, table I; the divisor latch, which it leaves alone, starts at 9600 baud of a
    /// 1.8432 MHz clock as firmware expects.
    fn new() -> Self {
        Self {
            divisor: 12,
            ier: 0,
            fifo_enabled: false,
            trigger: 1,
            lcr: 0,
            mcr: 0,
            msr_delta: 0,
            scr: 0,
            overrun: false,
            thr_interrupt: false,
            timed_out: false,
            timeout_at: None,
            received: VecDeque::new(),
        }
    }

    fn ier(&self) -> Ier {
        Ier::from_bits_truncate(self.ier)
    }

    fn mcr(&self) -> Mcr {
        Mcr::from_bits_truncate(self.mcr)
    }

    fn capacity(&self) -> usize {
        if self.fifo_enabled { FIFO_SIZE } else { 1 }
    }

    /// Whether the received-data interrupt is caused.
    fn triggered(&self) -> bool {
        let needed = if self.fifo_enabled { self.trigger.into() } else { 1 };
        self.received.len() >= needed
    }

    /// The modem inputs: the line's, or in loopback the modem outputs (section 8.8, bit 4).
    fn modem_inputs(&self) -> Msr {
        let mcr = self.mcr();
        if !mcr.contains(Mcr::LOOP) {
            return LINE;
        }
        let mut inputs = Msr::empty();
        inputs.set(Msr::CTS, mcr.contains(Mcr::RTS));
        inputs.set(Msr::DSR, mcr.contains(Mcr::DTR));
        inputs.set(Msr::RI, mcr.contains(Mcr::OUT1));
        inputs.set(Msr::DCD, mcr.contains(Mcr::OUT2));
        inputs
    }

    /// The cause that IIR reports, in the order of table IV.
    fn cause(&self) -> u8 {
        let ier = self.ier();
        if ier.contains(Ier::LINE_STATUS) && self.overrun {
            IIR_LINE_STATUS
        } else if ier.contains(Ier::RECEIVED) && self.triggered() {
            IIR_RECEIVED
        } else if ier.contains(Ier::RECEIVED) && self.timed_out {
            IIR_TIMEOUT
        } else if ier.contains(Ier::THR_EMPTY) && self.thr_interrupt {
            IIR_THR_EMPTY
        } else if ier.contains(Ier::MODEM_STATUS) && self.msr_delta != 0 {
            IIR_MODEM_STATUS
        } else {
            IIR_NONE
        }
    }

    /// Nanoseconds that four characters take (section 8.11, the timeout's condition).
    fn four_characters(&self, clock_hz: u64) -> u64 {
        // Start, 5 to 8 data, parity, 1 to 2 stop bits.
        let bits = 7
            + u64::from(self.lcr & 3)
            + u64::from(self.lcr >> 2 & 1)
            + u64::from(self.lcr >> 3 & 1);
        let cycles = 4 * bits * 16 * u64::from(self.divisor.max(1));
        cycles * 1_000_000_000 / clock_hz.max(1)
    }
}

impl Uart16550 {
    /// A port that sends to `output`; the handle is the host's way to send to the guest.
    pub fn new(
        config: Config,
        clock: Clock,
        timers: &TimerQueue,
        irq: IrqLine,
        output: Box<dyn SerialOutput>,
    ) -> (Arc<Mutex<Self>>, SerialInput) {
        let input = InputQueue::default();
        let queue = input.clone();
        let device = Arc::new_cyclic(|device: &Weak<Mutex<Self>>| {
            let device = device.clone();
            let timeout = timers.register(Arc::new(move |now| {
                if let Some(device) = device.upgrade() {
                    lock(&device).character_timeout(now);
                }
            }));
            let state = UartState::new();
            Mutex::new(Self { config, clock, timeout, irq, output, input, state })
        });
        let weak = Arc::downgrade(&device);
        let arrived = move || {
            if let Some(device) = weak.upgrade() {
                let mut device = lock(&device);
                device.receive();
                device.update();
            }
        };
        (device, SerialInput::new(&queue, Arc::new(arrived)))
    }

    /// The line delivers what the receiver has room for.
    fn receive(&mut self) {
        let state = &mut self.state;
        // Loopback disconnects the receiver from the line.
        if state.mcr().contains(Mcr::LOOP) {
            return;
        }
        let mut bytes = [0; FIFO_SIZE];
        let room = state.capacity().saturating_sub(state.received.len());
        let taken = self.input.take(&mut bytes[..room]);
        if taken > 0 {
            state.received.extend(&bytes[..taken]);
            self.restart_timeout();
        }
    }

    /// A character that the guest sent to itself. In a full FIFO it is lost; RBR alone is
    /// overwritten (section 8.4, bit 1).
    fn loop_back(&mut self, byte: u8) {
        let state = &mut self.state;
        if state.received.len() >= state.capacity() {
            state.overrun = true;
            if state.fifo_enabled {
                return;
            }
            state.received.clear();
        }
        state.received.push_back(byte);
        self.restart_timeout();
    }

    /// Section 8.11: a character arrived or was read.
    fn restart_timeout(&mut self) {
        let state = &mut self.state;
        state.timed_out = false;
        state.timeout_at = (state.fifo_enabled && !state.received.is_empty())
            .then(|| self.clock.now().saturating_add(state.four_characters(self.config.clock_hz)));
    }

    fn character_timeout(&mut self, now: u64) {
        if self.state.timeout_at.is_some_and(|at| at <= now) {
            self.state.timeout_at = None;
            self.state.timed_out = true;
            self.update();
        }
    }

    /// Drives the line and the timer from the state.
    fn update(&self) {
        self.irq.set(self.state.cause() != IIR_NONE);
        match self.state.timeout_at {
            Some(at) => self.timeout.arm(at),
            None => self.timeout.cancel(),
        }
    }

    fn write_fcr(&mut self, value: u8) {
        let enable = value & FCR_FIFO_ENABLE != 0;
        // Changing bit 0 clears the FIFOs; the others count only while it is written as 1.
        let toggled = enable != self.state.fifo_enabled;
        if toggled || enable && value & FCR_RECEIVER_RESET != 0 {
            let received = std::mem::take(&mut self.state.received);
            // What came from the line arrives after the reset instead: bytes typed while a guest
            // probes its port are not lost.
            if !self.state.mcr().contains(Mcr::LOOP) {
                self.input.put_back(received.into_iter());
            }
        }
        self.state.fifo_enabled = enable;
        self.state.trigger = match value >> 6 {
            _ if !enable => 1,
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        };
        self.restart_timeout();
        self.receive();
    }

    fn write_mcr(&mut self, value: u8) {
        let before = self.state.modem_inputs();
        self.state.mcr = Mcr::from_bits_truncate(value).bits();
        let after = self.state.modem_inputs();
        let changed = before ^ after;
        let mut delta = Msr::from_bits_truncate(self.state.msr_delta);
        delta.set(Msr::DCTS, delta.contains(Msr::DCTS) || changed.contains(Msr::CTS));
        delta.set(Msr::DDSR, delta.contains(Msr::DDSR) || changed.contains(Msr::DSR));
        // TERI is the trailing edge alone.
        let fell = changed.contains(Msr::RI) && before.contains(Msr::RI);
        delta.set(Msr::TERI, delta.contains(Msr::TERI) || fell);
        delta.set(Msr::DDCD, delta.contains(Msr::DDCD) || changed.contains(Msr::DCD));
        self.state.msr_delta = delta.bits();
        self.receive();
    }

    fn write_ier(&mut self, value: u8) {
        let before = self.state.ier();
        let ier = Ier::from_bits_truncate(value);
        self.state.ier = ier.bits();
        // Enabling the THRE interrupt with THR empty causes it at once: drivers start sending so.
        if (before ^ ier).contains(Ier::THR_EMPTY) {
            self.state.thr_interrupt = ier.contains(Ier::THR_EMPTY);
        }
    }

    fn transmit(&mut self, byte: u8) {
        if self.state.mcr().contains(Mcr::LOOP) {
            self.loop_back(byte);
        } else {
            self.output.write(&[byte]);
        }
        // Writing THR takes the interrupt back; the character leaves at once and causes the next.
        self.state.thr_interrupt = true;
    }

    fn read_rbr(&mut self) -> u8 {
        let byte = self.state.received.pop_front().unwrap_or(0);
        self.restart_timeout();
        self.receive();
        byte
    }

    fn read_iir(&mut self) -> u8 {
        let cause = self.state.cause();
        if cause == IIR_THR_EMPTY {
            self.state.thr_interrupt = false;
        }
        cause | if self.state.fifo_enabled { IIR_FIFOS_ENABLED } else { 0 }
    }

    fn read_lsr(&mut self) -> u8 {
        let mut lsr = LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY;
        if !self.state.received.is_empty() {
            lsr |= LSR_DATA_READY;
        }
        if std::mem::take(&mut self.state.overrun) {
            lsr |= LSR_OVERRUN;
        }
        lsr
    }
}

impl Device for Uart16550 {
    fn name(&self) -> &'static str {
        "uart16550"
    }

    // The registers are on the low byte lanes: wider accesses see one register, zero-extended.
    fn read(&mut self, offset: u64, _width: Width) -> Result<u64, BusError> {
        let latch = self.state.lcr & DLAB != 0;
        let value = match offset >> self.config.register_shift {
            RBR_THR_DLL if latch => self.state.divisor as u8,
            RBR_THR_DLL => self.read_rbr(),
            IER_DLM if latch => (self.state.divisor >> 8) as u8,
            IER_DLM => self.state.ier,
            IIR_FCR => self.read_iir(),
            LCR => self.state.lcr,
            MCR => self.state.mcr,
            LSR => self.read_lsr(),
            MSR => self.state.modem_inputs().bits() | std::mem::take(&mut self.state.msr_delta),
            SCR => self.state.scr,
            _ => return Err(BusError::Refused),
        };
        self.update();
        Ok(value.into())
    }

    fn write(&mut self, offset: u64, _width: Width, value: u64) -> Result<(), BusError> {
        let value = value as u8;
        let latch = self.state.lcr & DLAB != 0;
        let divisor = self.state.divisor;
        match offset >> self.config.register_shift {
            RBR_THR_DLL if latch => self.state.divisor = divisor & 0xff00 | u16::from(value),
            RBR_THR_DLL => self.transmit(value),
            IER_DLM if latch => self.state.divisor = divisor & 0xff | u16::from(value) << 8,
            IER_DLM => self.write_ier(value),
            IIR_FCR => self.write_fcr(value),
            LCR => self.state.lcr = value,
            MCR => self.write_mcr(value),
            // LSR and MSR are for factory testing when written.
            LSR | MSR => {}
            SCR => self.state.scr = value,
            _ => return Err(BusError::Refused),
        }
        self.update();
        Ok(())
    }

    fn reset(&mut self) {
        let divisor = self.state.divisor;
        self.state = UartState { divisor, ..UartState::new() };
        self.receive();
        self.update();
    }

    fn save(&self) -> SavedDevice {
        let Self { config: _, clock: _, timeout: _, irq: _, output: _, input: _, state } = self;
        SavedDevice::encode(VERSION, state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: UartState = saved.decode(VERSION)?;
        check(Ier::from_bits(state.ier).is_some(), "IER")?;
        check(Mcr::from_bits(state.mcr).is_some(), "MCR")?;
        check(state.msr_delta <= 0xf, "MSR")?;
        check(matches!(state.trigger, 1 | 4 | 8 | 14), "trigger level")?;
        check(state.received.len() <= state.capacity(), "receiver FIFO")?;
        self.state = state;
        self.receive();
        self.update();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
