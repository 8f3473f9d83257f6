//! The configuration space of a function: registers with bits that can be written, BARs, a list of capabilities.
//!
//! Source: PCI Local Bus Specification 3.0, chapter 6.

use serde::{Deserialize, Serialize};

use super::{Space, Window};
use crate::bus::{RestoreError, SavedDevice, Width, check};

/// Bytes.
pub const SIZE: usize = 256;
/// BARs of an ordinary function.
pub const BARS: usize = 6;

/// Registers of every function.
pub mod register {
    /// Command.
    pub const COMMAND: u8 = 0x04;
    /// Status.
    pub const STATUS: u8 = 0x06;
    /// The first BAR.
    pub const BAR: u8 = 0x10;
    /// Offset of the first capability.
    pub const CAPABILITIES: u8 = 0x34;
    /// Which IRQ the function's interrupt leads to: what firmware notes for drivers.
    pub const INTERRUPT_LINE: u8 = 0x3c;
    /// 1 to 4: INTA# to INTD#.
    pub const INTERRUPT_PIN: u8 = 0x3d;
}
use register::*;

/// Command: decode I/O ports, decode memory, may be bus master, keep INTx# down.
pub const DECODE_IO: u16 = 1;
/// Decode memory.
pub const DECODE_MEMORY: u16 = 2;
/// May be bus master.
pub const BUS_MASTER: u16 = 4;
/// Keep INTx# down.
pub const NO_INTX: u16 = 1 << 10;
/// Command: what can be written; SERR# enable is kept for those who look.
const COMMAND_BITS: u16 = DECODE_IO | DECODE_MEMORY | BUS_MASTER | NO_INTX | 1 << 8;
/// Status: the function's interrupt is asserted; there are capabilities.
const STATUS_INTERRUPT: u16 = 1 << 3;
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Low bits of a BAR: ports; 64 bits wide; prefetchable.
const BAR_IO: u32 = 1;
const BAR_64: u32 = 4;
const BAR_PREFETCH: u32 = 8;

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface, as in 0x060000.
    pub class: u32,
    /// Subsystem vendor and subsystem ID.
    pub subsystem: (u16, u16),
    /// The device has more functions.
    pub multifunction: bool,
    /// Interrupt pin: 1 is INTA#, 0 none.
    pub pin: u8,
}

/// What a BAR asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere, prefetchable; it takes two BARs.
    Memory64,
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    kind: BarKind,
    size: u64,
    /// The function's own offset of its first byte.
    first: u64,
}

/// A configuration space.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the function is made with.
    initial: Box<[u8; SIZE]>,
    /// Bits that software can write.
    writable: Box<[u8; SIZE]>,
    /// Bits that software clears by writing a 1.
    clearable: Box<[u8; SIZE]>,
    bars: [Option<Bar>; BARS],
    /// The register that leads to the next capability.
    last_link: u8,

    // What the guest can tell.
    bytes: Box<[u8; SIZE]>,
}

/// The state of a [`Config`] as saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigState(Vec<u8>);

impl Config {
    /// The space of a function without BARs and capabilities.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let zeros = || Box::new([0; SIZE]);
        let mut config = Config {
            initial: zeros(),
            writable: zeros(),
            clearable: zeros(),
            bars: [None; BARS],
            last_link: CAPABILITIES,
            bytes: zeros(),
        };
        config.fix(0x00, &identity.vendor.to_le_bytes());
        config.fix(0x02, &identity.device.to_le_bytes());
        config.fix(0x08, &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes());
        config.fix(0x0e, &[u8::from(identity.multifunction) << 7]);
        config.fix(0x2c, &identity.subsystem.0.to_le_bytes());
        config.fix(0x2e, &identity.subsystem.1.to_le_bytes());
        config.fix(INTERRUPT_PIN, &[identity.pin]);
        config.allow(COMMAND, &COMMAND_BITS.to_le_bytes());
        // Cache line size and latency timer: kept for those who look.
        config.allow(0x0c, &[0xff, 0xff]);
        if identity.pin != 0 {
            config.allow(INTERRUPT_LINE, &[0xff]);
        }
        config
    }

    /// Gives registers from `register` on these values.
    pub fn fix(&mut self, register: u8, values: &[u8]) {
        let at = usize::from(register);
        self.initial[at..at + values.len()].copy_from_slice(values);
        self.bytes[at..at + values.len()].copy_from_slice(values);
    }

    /// Lets software write these bits from `register` on.
    pub fn allow(&mut self, register: u8, bits: &[u8]) {
        let at = usize::from(register);
        self.writable[at..at + bits.len()].copy_from_slice(bits);
    }

    /// Adds a BAR of `size` bytes, a power of two: the function's own offsets from `first` on.
    pub fn add_bar(&mut self, index: usize, kind: BarKind, size: u64, first: u64) {
        debug_assert!(size.is_power_of_two() && size >= if kind == BarKind::Io { 4 } else { 16 });
        self.bars[index] = Some(Bar { kind, size, first });
        let register = BAR + 4 * index as u8;
        let flags = match kind {
            BarKind::Io => BAR_IO,
            BarKind::Memory32 => 0,
            BarKind::Memory64 => BAR_64 | BAR_PREFETCH,
        };
        let mask = !(size - 1);
        self.fix(register, &flags.to_le_bytes());
        self.allow(
            register,
            &(mask as u32 & !0xf | mask as u32 & if kind == BarKind::Io { 0xc } else { 0 })
                .to_le_bytes(),
        );
        if kind == BarKind::Memory64 {
            self.allow(register + 4, &((mask >> 32) as u32).to_le_bytes());
        }
    }

    /// Adds a capability: `contents` are what follows its number and link, `writable` the bits of them that can be
    /// written. The register that it begins at.
    pub fn add_capability(&mut self, at: u8, number: u8, contents: &[u8], writable: &[u8]) -> u8 {
        self.fix(self.last_link, &[at]);
        self.fix(at, &[number, 0]);
        self.fix(at + 2, contents);
        self.allow(at + 2, writable);
        self.last_link = at + 1;
        let status = STATUS_CAPABILITIES | u16::from_le_bytes([self.bytes[6], self.bytes[7]]);
        self.fix(STATUS, &status.to_le_bytes());
        at
    }

    /// Reads up to 4 bytes.
    #[must_use]
    pub fn read(&self, register: u8, width: Width) -> u32 {
        let bytes = (0..width.bytes().min(4)).map(|at| {
            let byte = self.bytes.get(usize::from(register) + at as usize);
            u32::from(byte.copied().unwrap_or(0xff)) << (8 * at)
        });
        bytes.fold(0, |value, byte| value | byte)
    }

    /// Writes up to 4 bytes, where that is possible.
    pub fn write(&mut self, register: u8, width: Width, value: u32) {
        let values = value.to_le_bytes();
        for (at, value) in
            (usize::from(register)..SIZE).zip(&values[..width.bytes().min(4) as usize])
        {
            let keep = !self.writable[at];
            self.bytes[at] = self.bytes[at] & keep & !(value & self.clearable[at]) | value & !keep;
        }
    }

    /// The command register.
    #[must_use]
    pub fn command(&self) -> u16 {
        self.read(COMMAND, Width::Half) as u16
    }

    /// Shows in the status whether the function's interrupt is asserted, and returns whether its pin then is.
    pub fn show_interrupt(&mut self, asserted: bool) -> bool {
        let status = u16::from_le_bytes([self.bytes[6], self.bytes[7]]) & !STATUS_INTERRUPT;
        let status = status | if asserted { STATUS_INTERRUPT } else { 0 };
        self.bytes[usize::from(STATUS)..8].copy_from_slice(&status.to_le_bytes());
        asserted && self.command() & NO_INTX == 0
    }

    /// The BARs that decode now. One that was never given an address does not.
    #[must_use]
    pub fn windows(&self) -> Vec<Window> {
        let command = self.command();
        let window = |(index, bar): (usize, &Option<Bar>)| {
            let bar = (*bar)?;
            let register = BAR + 4 * index as u8;
            let low = self.read(register, Width::Word);
            let (space, decode, base) = match bar.kind {
                BarKind::Io => (Space::Io, DECODE_IO, u64::from(low & !3)),
                BarKind::Memory32 => (Space::Memory, DECODE_MEMORY, u64::from(low & !0xf)),
                BarKind::Memory64 => {
                    let high = self.read(register + 4, Width::Word);
                    let base = u64::from(low & !0xf) | u64::from(high) << 32;
                    (Space::Memory, DECODE_MEMORY, base)
                }
            };
            let decodes = command & decode != 0 && base != 0;
            decodes.then_some(Window { space, base, size: bar.size, first: bar.first })
        };
        self.bars.iter().enumerate().filter_map(window).collect()
    }

    /// Back to how the function was made.
    pub fn reset(&mut self) {
        self.bytes.clone_from(&self.initial);
    }

    /// The state.
    #[must_use]
    pub fn save(&self) -> ConfigState {
        ConfigState(self.bytes.to_vec())
    }

    /// Whether a saved state differs from how the function was made in nothing that cannot change.
    ///
    /// # Errors
    /// [`RestoreError::Invalid`].
    pub fn check_saved(&self, state: &ConfigState) -> Result<(), RestoreError> {
        check(state.0.len() == SIZE, "size of a configuration space")?;
        let fixed = |at: usize| {
            let own = if at == usize::from(STATUS) { STATUS_INTERRUPT as u8 } else { 0 };
            !(self.writable[at] | self.clearable[at] | own)
        };
        let same = (0..SIZE).all(|at| (state.0[at] ^ self.initial[at]) & fixed(at) == 0);
        check(same, "configuration space")
    }

    /// Takes over a state that [`check_saved`](Self::check_saved) has passed.
    pub fn restore(&mut self, state: &ConfigState) {
        self.bytes.copy_from_slice(&state.0);
    }

    /// Takes over what a function has saved whose whole state this is.
    ///
    /// # Errors
    /// As [`SavedDevice::decode`] and [`check_saved`](Self::check_saved); nothing has changed then.
    pub fn restore_whole(&mut self, saved: &SavedDevice, version: u32) -> Result<(), RestoreError> {
        let state: ConfigState = saved.decode(version)?;
        self.check_saved(&state)?;
        self.restore(&state);
        Ok(())
    }
}
