//! Interrupt lines without numbers.
//!
//! A device holds [`IrqLine`]s; only the board knows where they lead. The far end is an
//! [`IrqSink`]: an interrupt controller's input or a hart's interrupt pin.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Something with interrupt inputs: an interrupt controller or a hart.
pub trait IrqSink: Send + Sync {
    /// Input `input` now has this level. Called for changes alone, from any thread, possibly with
    /// the raising device's mutex held: it may take the controller's own lock, never a device's.
    fn set_level(&self, input: u32, level: bool);
}

/// A wire from a device to one input of an [`IrqSink`]. Clones are the same wire.
#[derive(Clone)]
pub struct IrqLine {
    wire: Arc<Wire>,
}

struct Wire {
    sink: Option<Arc<dyn IrqSink>>,
    input: u32,
    /// What the sink was told last; read without the lock so that a redundant set costs one load.
    level: AtomicBool,
    /// Keeps "the level changes" and "the sink hears of it" one step when threads race.
    change: Mutex<()>,
}

impl IrqLine {
    /// A wire to `input` of `sink`, low.
    pub fn new(sink: Arc<dyn IrqSink>, input: u32) -> Self {
        Self::wire(Some(sink), input)
    }

    /// A wire that leads nowhere, for a device whose interrupt the board leaves open.
    pub fn unconnected() -> Self {
        Self::wire(None, 0)
    }

    fn wire(sink: Option<Arc<dyn IrqSink>>, input: u32) -> Self {
        let wire = Wire { sink, input, level: AtomicBool::new(false), change: Mutex::new(()) };
        Self { wire: Arc::new(wire) }
    }

    /// Drives the line to `level`. Costs one load when it already has that level.
    pub fn set(&self, level: bool) {
        let wire = &*self.wire;
        if wire.level.load(Ordering::Acquire) == level {
            return;
        }
        let _change = wire.change.lock().unwrap_or_else(PoisonError::into_inner);
        if wire.level.swap(level, Ordering::AcqRel) != level
            && let Some(sink) = &wire.sink
        {
            sink.set_level(wire.input, level);
        }
    }

    /// Drives the line high.
    pub fn raise(&self) {
        self.set(true);
    }

    /// Drives the line low.
    pub fn lower(&self) {
        self.set(false);
    }

    /// High, then low: one edge for an edge-triggered input.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }

    /// The level driven last.
    pub fn level(&self) -> bool {
        self.wire.level.load(Ordering::Acquire)
    }
}

/// Joins several lines into one that is high while any of them is: up to 64 inputs.
pub struct OrGate {
    output: IrqLine,
    /// The levels of the inputs; the lock keeps them and the output's level one step.
    inputs: Mutex<u64>,
}

impl OrGate {
    /// A gate that drives `output`.
    pub fn new(output: IrqLine) -> Arc<Self> {
        Arc::new(Self { output, inputs: Mutex::new(0) })
    }

    /// A wire to input `index`, of 64.
    pub fn input(self: &Arc<Self>, index: u32) -> IrqLine {
        IrqLine::new(Arc::clone(self) as Arc<dyn IrqSink>, index % 64)
    }
}

impl IrqSink for OrGate {
    fn set_level(&self, input: u32, level: bool) {
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        let bit = 1 << (input % 64);
        *inputs = if level { *inputs | bit } else { *inputs & !bit };
        self.output.set(*inputs != 0);
    }
}

/// Passes one line's level on to several: an interrupt of the ISA bus goes to the PIC and the IOAPIC.
pub struct Splitter(Vec<IrqLine>);

impl Splitter {
    /// A wire whose level all of `outputs` follow.
    pub fn line(outputs: Vec<IrqLine>) -> IrqLine {
        IrqLine::new(Arc::new(Self(outputs)), 0)
    }
}

impl IrqSink for Splitter {
    fn set_level(&self, _input: u32, level: bool) {
        self.0.iter().for_each(|line| line.set(level));
    }
}

impl fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqLine")
            .field("input", &self.wire.input)
            .field("connected", &self.wire.sink.is_some())
            .field("level", &self.level())
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Remembers every change it is told of.
    #[derive(Default)]
    pub(crate) struct Recorder(Mutex<Vec<(u32, bool)>>);

    impl Recorder {
        pub(crate) fn take(&self) -> Vec<(u32, bool)> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl IrqSink for Recorder {
        fn set_level(&self, input: u32, level: bool) {
            self.0.lock().unwrap().push((input, level));
        }
    }

    #[test]
    fn only_changes_reach_the_sink() {
        let sink = Arc::new(Recorder::default());
        let line = IrqLine::new(sink.clone(), 7);
        line.lower();
        line.raise();
        line.clone().raise();
        assert!(line.level());
        line.lower();
        line.pulse();
        assert_eq!(sink.take(), [(7, true), (7, false), (7, true), (7, false)]);
    }

    #[test]
    fn an_open_line_keeps_its_level() {
        let line = IrqLine::unconnected();
        line.raise();
        assert!(line.level());
    }

    #[test]
    fn a_gate_is_high_while_an_input_is() {
        let output = IrqLine::unconnected();
        let gate = OrGate::new(output.clone());
        let (a, b) = (gate.input(0), gate.input(63));
        a.raise();
        b.raise();
        a.lower();
        assert!(output.level());
        b.lower();
        assert!(!output.level());
    }

    #[test]
    fn a_splitter_drives_all_its_lines() {
        let outputs = [IrqLine::unconnected(), IrqLine::unconnected()];
        let line = Splitter::line(outputs.to_vec());
        line.raise();
        assert!(outputs.iter().all(IrqLine::level));
        line.lower();
        assert!(!outputs.iter().any(IrqLine::level));
    }

    #[test]
    fn racing_threads_leave_sink_and_line_agreeing() {
        let sink = Arc::new(Recorder::default());
        let line = IrqLine::new(sink.clone(), 0);
        std::thread::scope(|scope| {
            for start in [false, true] {
                let line = line.clone();
                scope.spawn(move || (0..1000).for_each(|i| line.set((i % 2 == 0) == start)));
            }
        });
        let told = sink.take();
        assert!(told.windows(2).all(|pair| pair[0].1 != pair[1].1), "the sink saw a repeat");
        assert_eq!(told.last().is_some_and(|&(_, level)| level), line.level());
    }
}
