//! Message-signalled interrupts: a write of 32 bits to an address that the interrupt controller
//! watches.
//!
//! Source: Intel SDM vol. 3, section 11.11; PCI Local Bus Specification 3.0, section 6.8. On a PC the
//! LAPICs take the messages ([`crate::lapic::Lapics`]); the IOAPIC, the HPET and PCI functions send
//! them.

/// Where interrupt messages of a PC go: bits 31 to 20 of the address.
pub const ADDRESS: u32 = 0xfee0_0000;
/// Bytes of the range of such addresses.
pub const SIZE: u64 = 0x10_0000;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// Address of the write. On a PC: destination in bits 19 to 12, logical destination in bit 2.
    pub address: u64,
    /// What is written. On a PC: vector in bits 7 to 0, delivery mode in bits 10 to 8, level trigger
    /// in bit 15.
    pub data: u32,
}

/// Takes messages.
pub trait MsiSink: Send + Sync {
    /// Called from any thread, possibly with the sending device's mutex held; takes no device's lock.
    fn send(&self, message: Msi);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Remembers the messages that it was sent.
    #[derive(Default)]
    pub(crate) struct Messages(Mutex<Vec<Msi>>);

    impl Messages {
        pub(crate) fn take(&self) -> Vec<Msi> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl MsiSink for Messages {
        fn send(&self, message: Msi) {
            self.0.lock().unwrap().push(message);
        }
    }
}
