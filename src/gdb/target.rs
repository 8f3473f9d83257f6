//! What gdb's protocol asks of a machine.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::marker::PhantomData;

use gdbstub::common::{Endianness, Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{
    SingleRegisterAccess, SingleRegisterAccessOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind as GdbWatchKind,
};
use gdbstub::target::ext::host_info::{HostInfo, HostInfoOps, HostInfoResponse};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use mimic_cpu::debug::{DebugEvent, DebugPoints, WatchKind, Watchpoint};

use super::guest::Guest;
use super::monitor;
use super::x86::Shape;
use crate::machine::MachineHandle;
use crate::machine::debug::{Order, Space};
use crate::report;

/// "Bad address".
const EFAULT: u8 = 14;
/// "Invalid argument".
const EINVAL: u8 = 22;
/// Most breakpoints or watchpoints of a kind.
const MAX_POINTS: usize = 4096;

/// A machine under gdb. Its harts are gdb's threads, numbered from 1.
pub(super) struct Debuggee<G> {
    pub(super) machine: MachineHandle,
    /// gdb's addresses are guest physical ones.
    pub(super) physical: bool,
    /// What the next debugger of an x86 processor is told of, if not what fits its mode.
    pub(super) shape: Option<Shape>,
    soft: Vec<u64>,
    hard: Vec<u64>,
    watch: Vec<Watchpoint>,
    /// Harts that gdb wants to step.
    stepping: Vec<usize>,
    /// Harts that gdb wants to continue when the others shall stand.
    continuing: Vec<usize>,
    others_stand: bool,
    /// Stops that were not reported yet.
    pending: VecDeque<(usize, DebugEvent)>,
    /// The hart that stopped last.
    current: usize,
    guest: PhantomData<G>,
}

fn tid(hart: usize) -> Tid {
    Tid::MIN.saturating_add(hart)
}

fn watch_kind(kind: GdbWatchKind) -> WatchKind {
    match kind {
        GdbWatchKind::Read => WatchKind::Read,
        GdbWatchKind::Write => WatchKind::Write,
        GdbWatchKind::ReadWrite => WatchKind::Access,
    }
}

fn add<T>(points: &mut Vec<T>, point: T) -> bool {
    let room = points.len() < MAX_POINTS;
    if room {
        points.push(point);
    }
    room
}

fn remove<T: PartialEq>(points: &mut Vec<T>, point: &T) -> bool {
    let found = points.iter().position(|other| other == point);
    if let Some(at) = found {
        points.swap_remove(at);
    }
    found.is_some()
}

impl<G: Guest> Debuggee<G> {
    pub(super) fn new(machine: MachineHandle) -> Self {
        Debuggee {
            machine,
            physical: false,
            shape: None,
            soft: Vec::new(),
            hard: Vec::new(),
            watch: Vec::new(),
            stepping: Vec::new(),
            continuing: Vec::new(),
            others_stand: false,
            pending: VecDeque::new(),
            current: 0,
            guest: PhantomData,
        }
    }

    /// The thread that stopped last.
    pub(super) fn current(&self) -> Tid {
        tid(self.current)
    }

    /// The hart of a thread.
    fn hart(&self, tid: Tid) -> Option<usize> {
        let hart = tid.get() - 1;
        (hart < self.machine.hart_count()).then_some(hart)
    }

    fn known(&self, tid: Tid) -> TargetResult<usize, Self> {
        self.hart(tid).ok_or(TargetError::Errno(EINVAL))
    }

    fn space(&self, hart: usize) -> Space {
        if self.physical { Space::Physical } else { Space::Virtual(hart) }
    }

    /// Lets the guest go on as if nobody had been there.
    pub(super) fn leave(&mut self) {
        self.machine.debug_stop();
        drop(self.machine.debug_events());
        let orders = vec![Order::Run(DebugPoints::default()); self.machine.hart_count()];
        self.machine.debug_go(orders);
    }

    /// Why the machine stands, if it has stopped by itself since it was let go.
    pub(super) fn stopped(&mut self) -> Option<MultiThreadStopReason<u64>> {
        if let Some(end) = self.machine.end() {
            return Some(MultiThreadStopReason::Exited(report::status(&end, false)));
        }
        if self.pending.is_empty() {
            if !self.machine.debug_has_events() {
                return None;
            }
            self.machine.debug_stop();
            let mut events = self.machine.debug_events().into_iter();
            self.pending.extend(events.next());
            // Who stands before a breakpoint will meet it again; who has used watched data will not.
            self.pending
                .extend(events.filter(|(_, event)| matches!(event, DebugEvent::Watch { .. })));
        }
        let (hart, event) = self.pending.pop_front()?;
        self.current = hart;
        Some(self.reason(hart, event))
    }

    fn reason(&self, hart: usize, event: DebugEvent) -> MultiThreadStopReason<u64> {
        let tid = tid(hart);
        match event {
            DebugEvent::Breakpoint => {
                let pc = self.machine.view(hart).map(|view| view.pc);
                if pc.is_some_and(|pc| self.hard.contains(&pc)) {
                    MultiThreadStopReason::HwBreak(tid)
                } else {
                    MultiThreadStopReason::SwBreak(tid)
                }
            }
            DebugEvent::Watch { addr, point } => {
                let kind = match point.kind {
                    WatchKind::Read => GdbWatchKind::Read,
                    WatchKind::Write => GdbWatchKind::Write,
                    WatchKind::Access => GdbWatchKind::ReadWrite,
                };
                // gdb finds the watchpoint by an address inside it.
                let inside = addr.wrapping_sub(point.addr) < point.len;
                let addr = if inside { addr } else { point.addr };
                MultiThreadStopReason::Watch { tid, kind, addr }
            }
            DebugEvent::Step => {
                MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP }
            }
        }
    }

    /// What a hart shall do now.
    fn order(&self, hart: usize) -> Order {
        let step = self.stepping.contains(&hart);
        if !step && self.others_stand && !self.continuing.contains(&hart) {
            return Order::Stand;
        }
        let mut breakpoints = [&self.soft[..], &self.hard[..]].concat();
        breakpoints.sort_unstable();
        breakpoints.dedup();
        Order::Run(DebugPoints { breakpoints, watchpoints: self.watch.clone(), step })
    }
}

impl<G: Guest> Target for Debuggee<G> {
    type Arch = G;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, G, Infallible> {
        BaseOps::MultiThread(self)
    }
    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
    fn support_host_info(&mut self) -> Option<HostInfoOps<'_, Self>> {
        Some(self)
    }
}

impl<G: Guest> MultiThreadBase for Debuggee<G> {
    fn read_registers(&mut self, regs: &mut G::Registers, tid: Tid) -> TargetResult<(), Self> {
        let hart = self.known(tid)?;
        *regs = G::core(&self.machine, hart).ok_or(TargetError::NonFatal)?;
        Ok(())
    }

    fn write_registers(&mut self, regs: &G::Registers, tid: Tid) -> TargetResult<(), Self> {
        let hart = self.known(tid)?;
        G::set_core(&self.machine, hart, regs.clone()).ok_or(TargetError::NonFatal)
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, addr: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let space = self.space(self.known(tid)?);
        match self.machine.debug_read(space, addr, data) {
            0 if !data.is_empty() => Err(TargetError::Errno(EFAULT)),
            len => Ok(len),
        }
    }

    fn write_addrs(&mut self, addr: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let space = self.space(self.known(tid)?);
        if self.machine.debug_write(space, addr, data) < data.len() {
            return Err(TargetError::Errno(EFAULT));
        }
        Ok(())
    }

    fn list_active_threads(&mut self, active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        (0..self.machine.hart_count()).for_each(|hart| active(tid(hart)));
        Ok(())
    }

    fn is_thread_alive(&mut self, tid: Tid) -> Result<bool, Infallible> {
        Ok(self.hart(tid).is_some())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl<G: Guest> SingleRegisterAccess<Tid> for Debuggee<G> {
    fn read_register(
        &mut self,
        tid: Tid,
        register: G::RegId,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let hart = self.known(tid)?;
        let value = G::read(&self.machine, hart, register).ok_or(TargetError::NonFatal)?;
        let size = value.len().min(buf.len());
        buf[..size].copy_from_slice(&value[..size]);
        Ok(size)
    }

    fn write_register(
        &mut self,
        tid: Tid,
        register: G::RegId,
        val: &[u8],
    ) -> TargetResult<(), Self> {
        let hart = self.known(tid)?;
        if G::write(&self.machine, hart, register, val) {
            Ok(())
        } else {
            Err(TargetError::Errno(EINVAL))
        }
    }
}

impl<G: Guest> ThreadExtraInfo for Debuggee<G> {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, Infallible> {
        let mut text = String::from("gone");
        if let Some(hart) = self.hart(tid)
            && let Some(view) = self.machine.view(hart)
        {
            let waiting = if view.waiting { ", waiting" } else { "" };
            text = format!("hart {hart}, {}-mode{waiting}", view.mode);
        }
        let len = text.len().min(buf.len());
        buf[..len].copy_from_slice(&text.as_bytes()[..len]);
        Ok(len)
    }
}

impl<G: Guest> MultiThreadResume for Debuggee<G> {
    fn resume(&mut self) -> Result<(), Infallible> {
        // What happened already comes first.
        if self.pending.is_empty() {
            let orders = (0..self.machine.hart_count()).map(|hart| self.order(hart)).collect();
            self.machine.debug_go(orders);
        }
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.stepping.clear();
        self.continuing.clear();
        self.others_stand = false;
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), Infallible> {
        self.continuing.extend(self.hart(tid));
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl<G: Guest> MultiThreadSingleStep for Debuggee<G> {
    fn set_resume_action_step(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), Infallible> {
        self.stepping.extend(self.hart(tid));
        Ok(())
    }
}

impl<G: Guest> MultiThreadSchedulerLocking for Debuggee<G> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.others_stand = true;
        Ok(())
    }
}

// Both kinds of breakpoint are the engine's: nothing is ever written into the guest's code.
impl<G: Guest> Breakpoints for Debuggee<G> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl<G: Guest> SwBreakpoint for Debuggee<G> {
    fn add_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(add(&mut self.soft, addr))
    }
    fn remove_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(remove(&mut self.soft, &addr))
    }
}

impl<G: Guest> HwBreakpoint for Debuggee<G> {
    fn add_hw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(add(&mut self.hard, addr))
    }
    fn remove_hw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(remove(&mut self.hard, &addr))
    }
}

impl<G: Guest> HwWatchpoint for Debuggee<G> {
    fn add_hw_watchpoint(
        &mut self,
        addr: u64,
        len: u64,
        kind: GdbWatchKind,
    ) -> TargetResult<bool, Self> {
        let point = Watchpoint { addr, len, kind: watch_kind(kind) };
        Ok(len > 0 && add(&mut self.watch, point))
    }
    fn remove_hw_watchpoint(
        &mut self,
        addr: u64,
        len: u64,
        kind: GdbWatchKind,
    ) -> TargetResult<bool, Self> {
        Ok(remove(&mut self.watch, &Watchpoint { addr, len, kind: watch_kind(kind) }))
    }
}

impl<G: Guest> MonitorCmd for Debuggee<G> {
    fn handle_monitor_cmd(
        &mut self,
        cmd: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), Infallible> {
        let text = monitor::obey(self, &String::from_utf8_lossy(cmd));
        out.write_raw(text.as_bytes());
        Ok(())
    }
}

impl<G: Guest> HostInfo for Debuggee<G> {
    fn host_info(
        &self,
        write_item: &mut dyn FnMut(&HostInfoResponse<'_>),
    ) -> Result<(), Infallible> {
        write_item(&HostInfoResponse::Triple(G::TRIPLE));
        write_item(&HostInfoResponse::Endianness(Endianness::Little));
        write_item(&HostInfoResponse::PointerSize(8));
        Ok(())
    }
}
