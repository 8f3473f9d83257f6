//! When the harts change engines: after counts of instructions that were given before the start.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::loader::Isa;

use super::spec::{EngineKind, EngineSpec, SwitchAt};

struct State {
    /// Instructions of all harts so far.
    retired: u64,
    /// Changes to come, by the count at which they are due.
    points: BTreeMap<u64, EngineKind>,
    /// The engine that all harts shall run on now.
    kind: EngineKind,
}

/// The plan of all harts together. They look here before they run, and say how far they have come.
pub(super) struct Plan {
    state: Mutex<State>,
    every: Option<u64>,
    empty: bool,
    isa: Isa,
}

impl Plan {
    pub(super) fn new(spec: &EngineSpec, isa: Isa) -> Self {
        let mut points = BTreeMap::new();
        let mut every = None;
        for switch in &spec.switches {
            match *switch {
                SwitchAt::Insns(at, kind) => {
                    points.insert(at, kind);
                }
                SwitchAt::Every(insns) => every = Some(insns.max(1)),
            }
        }
        Plan {
            state: Mutex::new(State { retired: 0, points, kind: spec.kind }),
            every,
            empty: spec.switches.is_empty(),
            isa,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is planned, and nobody need look here.
    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    /// The engine to run on, and for how many instructions at most.
    pub(super) fn next(&self) -> (EngineKind, u64) {
        let state = self.lock();
        let point = state.points.keys().next().map(|at| at - state.retired);
        let round = self.every.map(|every| every - state.retired % every);
        let left = [point, round].into_iter().flatten().min();
        (state.kind, left.unwrap_or(u64::MAX))
    }

    /// So many more instructions have retired, or nanoseconds have passed where they are not counted.
    pub(super) fn advance(&self, insns: u64) {
        let mut state = self.lock();
        let before = state.retired;
        state.retired += insns;
        // Harts that run side by side may pass more than one round at a time; it counts as one.
        if self.every.is_some_and(|every| before / every != state.retired / every) {
            state.kind = state.kind.other(self.isa);
        }
        while let Some(point) = state.points.first_entry()
            && *point.key() <= before + insns
        {
            state.kind = point.remove();
        }
    }

    /// Somebody else has changed the harts' engine.
    pub(super) fn set(&self, kind: EngineKind) {
        self.lock().kind = kind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(switches: &[SwitchAt]) -> Plan {
        let spec = EngineSpec {
            kind: EngineKind::Interp,
            switches: switches.to_vec(),
            ..EngineSpec::default()
        };
        Plan::new(&spec, Isa::Riscv64)
    }

    #[test]
    fn changes_are_due_at_their_counts_in_any_order() {
        let plan =
            plan(&[SwitchAt::Insns(50, EngineKind::Interp), SwitchAt::Insns(20, EngineKind::Jit)]);
        assert_eq!(plan.next(), (EngineKind::Interp, 20));
        plan.advance(19);
        assert_eq!(plan.next(), (EngineKind::Interp, 1));
        plan.advance(1);
        assert_eq!(plan.next(), (EngineKind::Jit, 30));
        plan.advance(30);
        assert_eq!(plan.next(), (EngineKind::Interp, u64::MAX));
    }

    #[test]
    fn rounds_go_to_and_fro() {
        let plan = plan(&[SwitchAt::Every(10), SwitchAt::Insns(15, EngineKind::Interp)]);
        assert_eq!(plan.next(), (EngineKind::Interp, 10));
        plan.advance(10);
        assert_eq!(plan.next(), (EngineKind::Jit, 5));
        plan.advance(5);
        assert_eq!(plan.next(), (EngineKind::Interp, 5));
        plan.advance(27);
        assert_eq!(plan.next(), (EngineKind::Jit, 8));
        plan.set(EngineKind::Interp);
        plan.advance(8);
        assert_eq!(plan.next(), (EngineKind::Jit, 10));
    }
}
