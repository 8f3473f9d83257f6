//! How a guest says that it is done.

/// What a guest asked of the machine's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerEvent {
    /// Power off; a test that reports this way passed.
    Pass,
    /// Power off; a test failed with this code.
    Fail(u16),
    /// Start again from power-on.
    Reset,
    /// Power off, with nothing said about success.
    PowerOff,
    /// Sleep with memory alone kept (ACPI's S3): processors stop, devices are reset when [`PowerEvent::Wake`] comes.
    Suspend,
    /// What shall end that sleep has happened. Sent between the two alone.
    Wake,
}

/// Hears of power events, usually the machine's owner.
pub trait PowerSink: Send + Sync {
    /// Called on the vCPU's thread with the device's lock held: note the event and return.
    fn power(&self, event: PowerEvent);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Remembers what it was told.
    #[derive(Default)]
    pub(crate) struct Events(Mutex<Vec<PowerEvent>>);

    impl Events {
        pub(crate) fn take(&self) -> Vec<PowerEvent> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl PowerSink for Events {
        fn power(&self, event: PowerEvent) {
            self.0.lock().unwrap().push(event);
        }
    }
}
