//! Who drives IRQ 0 and IRQ 8: PIT and RTC, or the HPET in their place (the specification's
//! "LegacyReplacement" routing).

use std::sync::{Arc, Mutex};

use crate::bus::lock;
use crate::irq::{IrqLine, IrqSink};

/// The two interrupts, in the order of the HPET's timers.
const LINES: usize = 2;

/// The switch between PIT and RTC on one side and the HPET on the other. As an [`IrqSink`] its input
/// 0 is the PIT's IRQ 0, input 1 the RTC's IRQ 8.
pub struct LegacyRoute {
    outputs: [IrqLine; LINES],
    state: Mutex<RouteState>,
}

#[derive(Default)]
struct RouteState {
    replaced: bool,
    /// Levels of PIT and RTC.
    inputs: [bool; LINES],
    /// Levels of the HPET.
    hpet: [bool; LINES],
}

impl LegacyRoute {
    /// A switch that drives IRQ 0 and IRQ 8.
    pub fn new(irq_0: IrqLine, irq_8: IrqLine) -> Arc<Self> {
        Arc::new(Self { outputs: [irq_0, irq_8], state: Mutex::default() })
    }

    fn drive(&self, state: &RouteState) {
        let levels = if state.replaced { state.hpet } else { state.inputs };
        for (output, level) in self.outputs.iter().zip(levels) {
            output.set(level);
        }
    }

    /// Whether the HPET replaces PIT and RTC.
    pub(super) fn replace(&self, replaced: bool) {
        let mut state = lock(&self.state);
        state.replaced = replaced;
        state.hpet = [false; LINES];
        self.drive(&state);
    }

    /// The HPET's level for one of the two.
    pub(super) fn set(&self, index: usize, level: bool) {
        let mut state = lock(&self.state);
        if let Some(line) = state.hpet.get_mut(index) {
            *line = level;
        }
        self.drive(&state);
    }

    /// An edge of the HPET's. The line stays high until the next one, as the PIT's does: the PIC
    /// forgets a request whose line falls.
    pub(super) fn edge(&self, index: usize) {
        self.set(index, false);
        self.set(index, true);
    }
}

impl IrqSink for LegacyRoute {
    fn set_level(&self, input: u32, level: bool) {
        let mut state = lock(&self.state);
        if let Some(line) = state.inputs.get_mut(input as usize) {
            *line = level;
        }
        self.drive(&state);
    }
}
