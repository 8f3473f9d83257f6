//! Keyboard controller of a PC (8042), with no keyboard and no mouse plugged in.
//!
//! Source: IBM, "Personal System/2 Hardware Interface Technical Reference", October 1990, "Keyboard
//! and auxiliary device controller". The controller takes no time: its input buffer is always empty.
//! A byte for a device that is not there comes back as the manual says of one that does not answer:
//! time-out in the status, 0xfe in the output buffer.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, byte_only, check};
use crate::irq::IrqLine;
use crate::power::{PowerEvent, PowerSink};

/// Offset of the data port: the PC's 0x60.
pub const DATA: u64 = 0;
/// Offset of the status and command port: the PC's 0x64.
pub const COMMAND: u64 = 1;

bitflags::bitflags! {
    /// Status register.
    #[derive(Clone, Copy)]
    struct Status: u8 {
        const OUTPUT_FULL = 1;
        const SYSTEM = 4;
        const COMMAND = 8;
        const UNLOCKED = 16;
        const AUXILIARY = 32;
        const TIMEOUT = 64;
    }

    /// Command byte: the controller's RAM at 0.
    #[derive(Clone, Copy)]
    struct Mode: u8 {
        const KEYBOARD_IRQ = 1;
        const AUXILIARY_IRQ = 2;
        const SYSTEM = 4;
        const KEYBOARD_OFF = 16;
        const AUXILIARY_OFF = 32;
    }
}

/// Output port: bit 0 low resets the machine.
const PORT_RUN: u8 = 1;
/// Output port: A20.
const PORT_A20: u8 = 2;
/// Output port: both IRQ bits, which follow the output buffer.
const PORT_IRQS: u8 = 0x30;
/// Output port after reset: lines of the devices high, A20 on as firmware leaves it.
const PORT_RESET: u8 = 0xcf;
/// Input port: the keyboard is not locked.
const INPUT_PORT: u8 = 0x80;

/// What comes from a device that does not answer.
const NO_ANSWER: u8 = 0xfe;

const VERSION: u32 = 1;

/// The device.
pub struct I8042 {
    // What the board attached.
    keyboard_irq: IrqLine,
    auxiliary_irq: IrqLine,
    a20: IrqLine,
    power: Arc<dyn PowerSink>,

    // What the guest can tell.
    state: I8042State,
}

/// A byte in the output buffer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Output {
    byte: u8,
    auxiliary: bool,
    timeout: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct I8042State {
    /// The command byte and the rest of the RAM that commands reach.
    ram: [u8; 32],
    output: Option<Output>,
    /// What was read last stays in the buffer.
    last: u8,
    /// The last byte was written to the command port.
    was_command: bool,
    /// The command that waits for its data.
    waiting: Option<u8>,
    port: u8,
}

impl I8042State {
    fn new() -> Self {
        let mut ram = [0; 32];
        ram[0] = Mode::KEYBOARD_IRQ.union(Mode::AUXILIARY_IRQ).bits();
        Self { ram, output: None, last: 0, was_command: true, waiting: None, port: PORT_RESET }
    }

    fn mode(&self) -> Mode {
        Mode::from_bits_retain(self.ram[0])
    }

    fn set_mode(&mut self, mode: Mode, on: bool) {
        let mut bits = self.mode();
        bits.set(mode, on);
        self.ram[0] = bits.bits();
    }

    fn status(&self) -> Status {
        let mut status = Status::UNLOCKED;
        status.set(Status::COMMAND, self.was_command);
        status.set(Status::SYSTEM, self.mode().contains(Mode::SYSTEM));
        if let Some(output) = self.output {
            status |= Status::OUTPUT_FULL;
            status.set(Status::AUXILIARY, output.auxiliary);
            status.set(Status::TIMEOUT, output.timeout);
        }
        status
    }

    fn reply(&mut self, byte: u8) {
        self.output = Some(Output { byte, auxiliary: false, timeout: false });
    }
}

impl I8042 {
    /// A controller with its interrupts (IRQ 1 and 12), its A20 line and its reset. The board joins
    /// A20 with port 0x92's.
    pub fn new(
        keyboard_irq: IrqLine,
        auxiliary_irq: IrqLine,
        a20: IrqLine,
        power: Arc<dyn PowerSink>,
    ) -> Arc<Mutex<Self>> {
        let device = Self { keyboard_irq, auxiliary_irq, a20, power, state: I8042State::new() };
        device.drive();
        Arc::new(Mutex::new(device))
    }

    /// Drives the lines from the state.
    fn drive(&self) {
        let (state, mode) = (&self.state, self.state.mode());
        let auxiliary = state.output.is_some_and(|output| output.auxiliary);
        let keyboard = state.output.is_some_and(|output| !output.auxiliary);
        self.keyboard_irq.set(keyboard && mode.contains(Mode::KEYBOARD_IRQ));
        self.auxiliary_irq.set(auxiliary && mode.contains(Mode::AUXILIARY_IRQ));
        self.a20.set(state.port & PORT_A20 != 0);
    }

    fn write_port(&mut self, value: u8) {
        self.state.port = value & !PORT_IRQS;
        if value & PORT_RUN == 0 {
            self.power.power(PowerEvent::Reset);
        }
    }

    fn read_port(&self) -> u8 {
        let irqs = match self.state.output {
            Some(output) if output.auxiliary => 0x20,
            Some(_) => 0x10,
            None => 0,
        };
        self.state.port | irqs
    }

    fn command(&mut self, command: u8) {
        let state = &mut self.state;
        state.waiting = None;
        match command {
            0x20..=0x3f => state.reply(state.ram[usize::from(command & 0x1f)]),
            0x60..=0x7f | 0xd1..=0xd4 => state.waiting = Some(command),
            0xa7 => state.set_mode(Mode::AUXILIARY_OFF, true),
            0xa8 => state.set_mode(Mode::AUXILIARY_OFF, false),
            // Interface tests find no error.
            0xa9 | 0xab => state.reply(0),
            0xaa => {
                state.set_mode(Mode::SYSTEM, true);
                state.reply(0x55);
            }
            0xad => state.set_mode(Mode::KEYBOARD_OFF, true),
            0xae => state.set_mode(Mode::KEYBOARD_OFF, false),
            0xc0 => state.reply(INPUT_PORT),
            0xd0 => {
                let port = self.read_port();
                self.state.reply(port);
            }
            // A20 off and on, as some chipsets have it.
            0xdd => state.port &= !PORT_A20,
            0xdf => state.port |= PORT_A20,
            0xe0 => state.reply(0),
            // Pulses low those of the output port's bits 3 to 0 that are 0.
            0xf0..=0xff if command & PORT_RUN == 0 => self.power.power(PowerEvent::Reset),
            0xf0..=0xff => {}
            _ => log::debug!(target: "i8042", "command {command:#x} does nothing"),
        }
    }

    fn data(&mut self, byte: u8) {
        let state = &mut self.state;
        let unanswered = |auxiliary| Output { byte: NO_ANSWER, auxiliary, timeout: true };
        match state.waiting.take() {
            Some(command @ 0x60..=0x7f) => state.ram[usize::from(command & 0x1f)] = byte,
            Some(0xd1) => self.write_port(byte),
            Some(0xd2) => state.reply(byte),
            Some(0xd3) => {
                state.output = Some(Output { byte, auxiliary: true, timeout: false });
            }
            Some(_) => state.output = Some(unanswered(true)),
            None => {
                state.set_mode(Mode::KEYBOARD_OFF, false);
                state.output = Some(unanswered(false));
            }
        }
    }
}

impl Device for I8042 {
    fn name(&self) -> &'static str {
        "i8042"
    }

    fn read(&mut self, offset: u64, width: Width) -> Result<u64, BusError> {
        byte_only(width)?;
        let value = match offset {
            DATA => {
                if let Some(output) = self.state.output.take() {
                    self.state.last = output.byte;
                }
                self.state.last
            }
            COMMAND => self.state.status().bits(),
            _ => return Err(BusError::Refused),
        };
        self.drive();
        Ok(value.into())
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        byte_only(width)?;
        match offset {
            DATA => self.data(value as u8),
            COMMAND => self.command(value as u8),
            _ => return Err(BusError::Refused),
        }
        self.state.was_command = offset == COMMAND;
        self.drive();
        Ok(())
    }

    fn reset(&mut self) {
        self.state = I8042State::new();
        self.drive();
    }

    fn save(&self) -> SavedDevice {
        let Self { keyboard_irq: _, auxiliary_irq: _, a20: _, power: _, state } = self;
        SavedDevice::encode(VERSION, state)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: I8042State = saved.decode(VERSION)?;
        let waits = |command| matches!(command, 0x60..=0x7f | 0xd1..=0xd4);
        check(state.waiting.is_none_or(waits), "8042 command")?;
        check(state.port & PORT_IRQS == 0, "8042 output port")?;
        self.state = state;
        self.drive();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::lock;
    use crate::power::tests::Events;

    struct Rig {
        device: Arc<Mutex<I8042>>,
        irqs: [IrqLine; 2],
        a20: IrqLine,
        events: Arc<Events>,
    }

    fn rig() -> Rig {
        let irqs = [IrqLine::unconnected(), IrqLine::unconnected()];
        let (a20, events) = (IrqLine::unconnected(), Arc::new(Events::default()));
        let [keyboard, auxiliary] = irqs.clone();
        let device = I8042::new(keyboard, auxiliary, a20.clone(), events.clone());
        Rig { device, irqs, a20, events }
    }

    impl Rig {
        fn command(&self, value: u64) {
            lock(&self.device).write(COMMAND, Width::Byte, value).unwrap();
        }
        fn data(&self, value: u64) {
            lock(&self.device).write(DATA, Width::Byte, value).unwrap();
        }
        fn status(&self) -> u64 {
            lock(&self.device).read(COMMAND, Width::Byte).unwrap()
        }
        fn take(&self) -> u64 {
            lock(&self.device).read(DATA, Width::Byte).unwrap()
        }
        fn levels(&self) -> (bool, bool) {
            (self.irqs[0].level(), self.irqs[1].level())
        }
    }

    #[test]
    fn replies_fill_the_output_buffer_and_raise_irq_1() {
        let rig = rig();
        assert_eq!(rig.status(), 0x18);
        rig.command(0xaa);
        assert_eq!((rig.status(), rig.levels()), (0x1d, (true, false)));
        assert_eq!(rig.take(), 0x55);
        assert_eq!((rig.status(), rig.levels()), (0x1c, (false, false)));
        assert_eq!(rig.take(), 0x55, "the buffer keeps what was read");
        for (command, reply) in [(0xa9, 0), (0xab, 0), (0xc0, 0x80), (0x20, 0x07)] {
            rig.command(command);
            assert_eq!((rig.status() & 1, rig.take()), (1, reply), "{command:#x}");
        }
    }

    #[test]
    fn the_command_byte_and_the_ram() {
        let rig = rig();
        rig.command(0x60);
        rig.data(0x44);
        rig.command(0x20);
        assert_eq!((rig.levels(), rig.take()), ((false, false), 0x44));
        assert_eq!(rig.status(), 0x1c);
        rig.command(0xa7);
        rig.command(0xad);
        rig.command(0x20);
        assert_eq!(rig.take(), 0x74);
        rig.command(0xa8);
        rig.command(0xae);
        rig.command(0x20);
        assert_eq!(rig.take(), 0x44);
        rig.command(0x65);
        rig.data(0x12);
        rig.command(0x25);
        assert_eq!(rig.take(), 0x12);
    }

    #[test]
    fn the_loop_backs_tell_their_port() {
        // As Linux looks for the auxiliary port (drivers/input/serio/i8042.c).
        let rig = rig();
        rig.command(0xd3);
        rig.data(0xa5);
        assert_eq!((rig.status() & 0x21, rig.levels()), (0x21, (false, true)));
        assert_eq!(rig.take(), 0xa5);
        rig.command(0xd2);
        rig.data(0x5a);
        assert_eq!((rig.status() & 0x21, rig.levels(), rig.take()), (1, (true, false), 0x5a));
    }

    #[test]
    fn absent_devices_time_out() {
        let rig = rig();
        rig.data(0xff);
        assert_eq!((rig.status() & 0x69, rig.take()), (0x41, 0xfe));
        rig.command(0xd4);
        rig.data(0xff);
        assert_eq!((rig.status() & 0x69, rig.take()), (0x61, 0xfe));
        assert_eq!(rig.status() & 0x61, 0);
    }

    #[test]
    fn a20_and_reset() {
        let rig = rig();
        assert!(rig.a20.level());
        rig.command(0xd1);
        rig.data(0xdd);
        assert!(!rig.a20.level());
        rig.command(0xd0);
        assert_eq!(rig.take(), 0xcd);
        rig.command(0xdf);
        assert!(rig.a20.level());
        rig.command(0xff);
        assert_eq!(rig.events.take(), []);
        rig.command(0xfe);
        rig.command(0xd1);
        rig.data(0x02);
        assert_eq!(rig.events.take(), [PowerEvent::Reset; 2]);
    }

    #[test]
    fn a_saved_controller_goes_on() {
        let first = rig();
        first.command(0xdd);
        first.command(0xd3);
        let saved = lock(&first.device).save();
        let second = rig();
        lock(&second.device).restore(&saved).unwrap();
        assert!(!second.a20.level());
        second.data(0x77);
        assert_eq!((second.levels(), second.take()), ((false, true), 0x77));
        let mut state: I8042State = saved.decode(VERSION).unwrap();
        state.waiting = Some(0xaa);
        let bad = SavedDevice::encode(VERSION, &state);
        let error = lock(&second.device).restore(&bad);
        assert_eq!(error, Err(RestoreError::Invalid("8042 command")));
        lock(&second.device).reset();
        assert!(second.a20.level());
        assert_eq!(lock(&second.device).read(DATA, Width::Half), Err(BusError::Width));
    }
}
