//! The small ports of a PC by which guests talk to whoever runs them: debug console, debug exit, POST
//! codes, panic events; and port 0x92.
//!
//! Sources: QEMU, hw/char/debugcon.c, hw/misc/debugexit.c and docs/specs/pvpanic.rst; port 0x92: Intel
//! 82371AB PIIX4 datasheet, "Port 92 register".

use std::sync::Arc;

use crate::bus::{BusError, Device, RestoreError, SavedDevice, Width, byte_only, check};
use crate::irq::IrqLine;
use crate::power::{PowerEvent, PowerSink};
use crate::serial::SerialOutput;

const VERSION: u32 = 1;

/// What a debug console reads as, by which SeaBIOS and others find it.
pub const CONSOLE_READBACK: u8 = 0xe9;

/// A port whose bytes are text: Bochs' 0xe9, and the firmware's 0x402.
pub struct DebugConsole {
    output: Box<dyn SerialOutput>,
}

impl DebugConsole {
    /// A console that writes to `output`.
    pub fn new(output: Box<dyn SerialOutput>) -> Self {
        Self { output }
    }
}

impl Device for DebugConsole {
    fn name(&self) -> &'static str {
        "debug-console"
    }

    fn read(&mut self, _offset: u64, width: Width) -> Result<u64, BusError> {
        byte_only(width)?;
        Ok(CONSOLE_READBACK.into())
    }

    fn write(&mut self, _offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        byte_only(width)?;
        self.output.write(&[value as u8]);
        Ok(())
    }

    fn reset(&mut self) {}

    fn save(&self) -> SavedDevice {
        let Self { output: _ } = self;
        SavedDevice::encode(VERSION, &())
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        saved.decode(VERSION)
    }
}

/// What hears of values that guests report. Called on the vCPU's thread with the device's lock held:
/// note the value and return.
pub type Listener<T> = Box<dyn FnMut(T) + Send>;

/// QEMU's isa-debug-exit: a write of any width ends the guest, with what it wrote.
pub struct DebugExit {
    exit: Listener<u32>,
}

impl DebugExit {
    /// Ports that the device takes, usually from 0xf4 or 0x501 on.
    pub const PORTS: u64 = 4;

    /// A port that reports to `exit`. Users of QEMU expect the exit status `value << 1 | 1`.
    pub fn new(exit: Listener<u32>) -> Self {
        Self { exit }
    }
}

impl Device for DebugExit {
    fn name(&self) -> &'static str {
        "isa-debug-exit"
    }

    fn read(&mut self, _offset: u64, _width: Width) -> Result<u64, BusError> {
        Ok(0)
    }

    fn write(&mut self, _offset: u64, _width: Width, value: u64) -> Result<(), BusError> {
        (self.exit)(value as u32);
        Ok(())
    }

    fn reset(&mut self) {}

    fn save(&self) -> SavedDevice {
        let Self { exit: _ } = self;
        SavedDevice::encode(VERSION, &())
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        saved.decode(VERSION)
    }
}

/// A port for POST codes: 0x80 on a PC. It keeps the last one; guests also write it for a pause.
pub struct PostPort {
    listener: Listener<u8>,
    code: u8,
}

impl PostPort {
    /// A port that tells `listener` each code written.
    pub fn new(listener: Listener<u8>) -> Self {
        Self { listener, code: 0 }
    }
}

impl Device for PostPort {
    fn name(&self) -> &'static str {
        "post-port"
    }

    fn read(&mut self, _offset: u64, width: Width) -> Result<u64, BusError> {
        byte_only(width)?;
        Ok(self.code.into())
    }

    fn write(&mut self, _offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        byte_only(width)?;
        self.code = value as u8;
        (self.listener)(self.code);
        Ok(())
    }

    fn reset(&mut self) {
        self.code = 0;
    }

    fn save(&self) -> SavedDevice {
        let Self { listener: _, code } = self;
        SavedDevice::encode(VERSION, code)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        self.code = saved.decode(VERSION)?;
        Ok(())
    }
}

/// What a guest says through [`PvPanic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanicEvent {
    /// The guest's kernel has panicked and does no more about it.
    Panicked,
    /// The guest's kernel has panicked and will run its crash kernel.
    CrashLoaded,
}

/// QEMU's pvpanic: port 0x505.
pub struct PvPanic {
    listener: Listener<PanicEvent>,
}

impl PvPanic {
    const PANICKED: u64 = 1;
    const CRASH_LOADED: u64 = 2;

    /// A port that tells `listener` each event.
    pub fn new(listener: Listener<PanicEvent>) -> Self {
        Self { listener }
    }
}

impl Device for PvPanic {
    fn name(&self) -> &'static str {
        "pvpanic"
    }

    fn read(&mut self, _offset: u64, width: Width) -> Result<u64, BusError> {
        byte_only(width)?;
        Ok(Self::PANICKED | Self::CRASH_LOADED)
    }

    fn write(&mut self, _offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        byte_only(width)?;
        if value & Self::PANICKED != 0 {
            (self.listener)(PanicEvent::Panicked);
        } else if value & Self::CRASH_LOADED != 0 {
            (self.listener)(PanicEvent::CrashLoaded);
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn save(&self) -> SavedDevice {
        let Self { listener: _ } = self;
        SavedDevice::encode(VERSION, &())
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        saved.decode(VERSION)
    }
}

/// Port 0x92: A20 and fast reset. The board joins its A20 with the keyboard controller's
/// ([`crate::irq::OrGate`]).
pub struct Port92 {
    a20: IrqLine,
    power: Arc<dyn PowerSink>,
    value: u8,
}

impl Port92 {
    const RESET: u8 = 1;
    const A20: u8 = 2;

    /// A port that drives `a20` and resets the machine through `power`.
    pub fn new(a20: IrqLine, power: Arc<dyn PowerSink>) -> Self {
        Self { a20, power, value: 0 }
    }

    fn set(&mut self, value: u8) {
        self.value = value;
        self.a20.set(value & Self::A20 != 0);
    }
}

impl Device for Port92 {
    fn name(&self) -> &'static str {
        "port-92"
    }

    fn read(&mut self, _offset: u64, width: Width) -> Result<u64, BusError> {
        byte_only(width)?;
        Ok(self.value.into())
    }

    fn write(&mut self, _offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        byte_only(width)?;
        // The reset is the change from 0 to 1.
        let rises = value as u8 & !self.value & Self::RESET != 0;
        self.set(value as u8 & (Self::RESET | Self::A20));
        if rises {
            self.power.power(PowerEvent::Reset);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.set(0);
    }

    fn save(&self) -> SavedDevice {
        let Self { a20: _, power: _, value } = self;
        SavedDevice::encode(VERSION, value)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let value: u8 = saved.decode(VERSION)?;
        check(value & !(Self::RESET | Self::A20) == 0, "port 0x92")?;
        self.set(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power::tests::Events;
    use crate::serial::tests::Captured;
    use std::sync::mpsc;

    fn write(device: &mut dyn Device, width: Width, value: u64) {
        device.write(0, width, value).unwrap();
    }

    #[test]
    fn text_goes_out_and_the_console_can_be_found() {
        let text = Captured::default();
        let mut console = DebugConsole::new(Box::new(text.clone()));
        b"POST".iter().for_each(|&byte| write(&mut console, Width::Byte, byte.into()));
        assert_eq!(text.take(), b"POST");
        assert_eq!(console.read(0, Width::Byte), Ok(0xe9));
        assert_eq!(console.write(0, Width::Half, 0), Err(BusError::Width));
    }

    #[test]
    fn reports_reach_their_listeners() {
        let (values, exits) = mpsc::channel();
        let mut exit = DebugExit::new(Box::new(move |value| values.send(value).unwrap()));
        write(&mut exit, Width::Word, 0x1_0001);
        write(&mut exit, Width::Byte, 0x10);
        assert_eq!(exits.try_iter().collect::<Vec<_>>(), [0x1_0001, 0x10]);

        let (values, codes) = mpsc::channel();
        let mut post = PostPort::new(Box::new(move |code| values.send(code).unwrap()));
        write(&mut post, Width::Byte, 0x03);
        write(&mut post, Width::Byte, 0xff);
        assert_eq!(codes.try_iter().collect::<Vec<_>>(), [3, 0xff]);
        let saved = post.save();
        post.reset();
        assert_eq!(post.read(0, Width::Byte), Ok(0));
        post.restore(&saved).unwrap();
        assert_eq!(post.read(0, Width::Byte), Ok(0xff));

        let (values, events) = mpsc::channel();
        let mut panic = PvPanic::new(Box::new(move |event| values.send(event).unwrap()));
        assert_eq!(panic.read(0, Width::Byte), Ok(3));
        [0, 1, 2].into_iter().for_each(|value| write(&mut panic, Width::Byte, value));
        let seen: Vec<_> = events.try_iter().collect();
        assert_eq!(seen, [PanicEvent::Panicked, PanicEvent::CrashLoaded]);
    }

    #[test]
    fn port_92_gates_a20_and_resets_once() {
        let (a20, events) = (IrqLine::unconnected(), Arc::new(Events::default()));
        let mut port = Port92::new(a20.clone(), events.clone());
        write(&mut port, Width::Byte, 0xff & !1);
        assert!(a20.level());
        assert_eq!((port.read(0, Width::Byte), events.take()), (Ok(2), vec![]));
        write(&mut port, Width::Byte, 1);
        write(&mut port, Width::Byte, 1);
        assert!(!a20.level());
        assert_eq!(events.take(), [PowerEvent::Reset]);
        let bad = SavedDevice::encode(VERSION, &4_u8);
        assert_eq!(port.restore(&bad), Err(RestoreError::Invalid("port 0x92")));
    }
}
