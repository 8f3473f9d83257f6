//! A hart's engine, which can be changed between any two instructions.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use mimic_cpu::bus::CpuBus;
use mimic_cpu::debug::DebugPoints;
use mimic_cpu::signals::Signals;

use super::kvm::KvmGuest;
use super::{CpuState, Engine, EngineError, attach};
use crate::machine::spec::{EngineKind, EngineSpec, Stats};

/// The engine that a hart runs on, and those that it has left: they keep what they know of the guest's code,
/// so that coming back is cheap. Whatever was written meanwhile they learn from the bus's code log, and
/// translations of addresses they forget.
pub struct HartEngine {
    kind: EngineKind,
    current: Box<dyn Engine>,
    parked: Vec<(EngineKind, Box<dyn Engine>)>,
    spec: EngineSpec,
    bus: Arc<dyn CpuBus>,
    signals: Arc<Signals>,
    guest: Arc<KvmGuest>,
    /// What the debugger has set: it follows the hart.
    points: DebugPoints,
    switches: u64,
}

impl HartEngine {
    /// Loads `state` into an engine of the specified kind.
    ///
    /// # Errors
    /// The host refuses what the engine needs.
    pub fn new(
        spec: EngineSpec,
        state: CpuState,
        bus: Arc<dyn CpuBus>,
        signals: Arc<Signals>,
        guest: Arc<KvmGuest>,
    ) -> Result<Self, EngineError> {
        let kind = spec.kind;
        let (own_bus, pins) = (Arc::clone(&bus), Arc::clone(&signals));
        Ok(HartEngine {
            kind,
            current: attach(kind, &spec, state, own_bus, pins, &guest)?,
            parked: Vec::new(),
            spec,
            bus,
            signals,
            guest,
            points: DebugPoints::default(),
            switches: 0,
        })
    }

    /// The kind of engine that the hart runs on.
    #[must_use]
    pub fn kind(&self) -> EngineKind {
        self.kind
    }

    /// Goes on with an engine of another kind, if it is another one. For the guest nothing happens.
    ///
    /// # Errors
    /// The host refuses what the engine needs; the hart stays where it is.
    pub fn switch(&mut self, kind: EngineKind) -> Result<(), EngineError> {
        if kind == self.kind {
            return Ok(());
        }
        let state = self.current.store();
        let next = match self.parked.iter().position(|(parked, _)| *parked == kind) {
            Some(at) => {
                let (_, mut engine) = self.parked.swap_remove(at);
                engine.load(state);
                engine
            }
            None => {
                let (bus, signals) = (Arc::clone(&self.bus), Arc::clone(&self.signals));
                attach(kind, &self.spec, state, bus, signals, &self.guest)?
            }
        };
        let mut left = std::mem::replace(&mut self.current, next);
        left.leave();
        self.parked.push((std::mem::replace(&mut self.kind, kind), left));
        self.signals.call_attention();
        self.current.set_debug(self.points.clone());
        self.switches += 1;
        Ok(())
    }

    /// Sets where `run` shall end for a debugger, on whatever engine; code that was written from outside counts
    /// from now on.
    pub fn set_debug(&mut self, points: DebugPoints) {
        self.points = points.clone();
        self.current.set_debug(points);
    }

    /// Adds the counters of the hart and of all its engines to `stats`.
    pub fn count(&self, stats: &mut Stats) {
        stats.insns += self.current.retired();
        stats.engine_switches += self.switches;
        self.current.count(stats);
        self.parked.iter().for_each(|(_, engine)| engine.count(stats));
    }
}

impl Deref for HartEngine {
    type Target = dyn Engine;

    fn deref(&self) -> &Self::Target {
        &*self.current
    }
}

impl DerefMut for HartEngine {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.current
    }
}
