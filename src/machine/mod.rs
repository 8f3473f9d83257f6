//! The machine: guest memory, bus, devices and harts put together, and the threads that run them.
//!
//! One thread per hart runs its engine; one event loop owns timers and console input; devices work on
//! the thread that touches them. [`control::Control`] is what they share: how the run ends, the
//! safepoint, the pause.

mod build;
mod bus;
mod control;
mod cpus;
pub mod debug;
mod event_loop;
mod harts;
mod htif;
mod payload;
mod plan;
mod rendezvous;
mod sleep;
pub mod snapshot;
pub mod spec;
pub mod stepped;
mod tables;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mimic_cpu::bus::CpuBus;
use mimic_devices::bus::AddressSpace;
use mimic_devices::clock::{Clock, TimerQueue};
use mimic_devices::memory::{GuestMemory, VisibilityObserver, WriteObserver};
use mimic_devices::pflash::PFlash;
use mimic_devices::ports::PortSpace;
use mimic_devices::serial::SerialOutput;
use mimic_devices::virtio::block::BlockHandle;
use rustix::time::{ClockId, clock_gettime};

use crate::engine::EngineError;
use crate::loader::Symbols;
use control::{Control, Sample};
use event_loop::{ConsoleInput, EventLoop, Parts};
use harts::{Allowance, Deterministic, Loaded, Turn, run_hart};
use plan::Plan;
use rendezvous::Rendezvous;
use sleep::Wake;
use snapshot::{MachineState, Snapshot, SnapshotError};
use spec::{End, EngineKind, HartView, Limits, MachineSpec, Report, Resumption, Stats};

/// What is done with bytes typed for the guest.
pub type OnBytes = Box<dyn FnMut(&[u8], &MachineHandle) + Send>;
/// What is done when the input ends.
pub type OnEof = Box<dyn FnMut(&MachineHandle) + Send>;

/// Where the console's input comes from.
pub struct InputSource {
    /// Read by the event loop whenever it has something.
    pub fd: OwnedFd,
    /// Somebody types: keep reading even when the guest does not.
    pub interactive: bool,
    /// Called on the event loop's thread with what was read.
    pub on_bytes: OnBytes,
    /// Called once when the input has ended.
    pub on_eof: OnEof,
}

/// The machine's console.
pub struct ConsoleIo {
    /// Takes what the guest prints.
    pub output: Box<dyn SerialOutput>,
    /// Gives what the user types.
    pub input: Option<InputSource>,
}

/// Why a machine cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The image needs more RAM.
    #[error(
        "{what} needs {needed} MiB of memory, the machine has {given} MiB: try --mem {needed}M"
    )]
    TooLittleMemory {
        /// What does not fit.
        what: String,
        /// MiB needed.
        needed: u64,
        /// MiB given.
        given: u64,
    },
    /// The size of RAM is no multiple of a page, or absurd.
    #[error(
        "--mem {0} bytes is not a size of RAM: give a multiple of 4K, such as 512M or 2G, at most 1024G"
    )]
    MemorySize(u64),
    /// The board has not so many harts.
    #[error("--cpus {given}: this board has 1 to {max} here")]
    Cpus {
        /// Asked for.
        given: usize,
        /// Most that can be given.
        max: usize,
    },
    /// The image cannot be placed on this board.
    #[error("{0}")]
    Placement(String),
    /// The snapshot cannot be loaded.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The engine cannot be had.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The host failed.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The answer.
        source: io::Error,
    },
}

/// A machine that is ready to run.
pub struct Machine {
    harts: Vec<Loaded>,
    shared: Arc<Shared>,
    timers: TimerQueue,
    console: Arc<ConsoleInput>,
    input: Option<InputSource>,
    limits: Limits,
    signature: Option<SignatureDump>,
    flash: Vec<Arc<Mutex<PFlash>>>,
    _visibility: Arc<dyn VisibilityObserver>,
    hash_at_end: bool,
    save_at_limit: Option<PathBuf>,
    /// Observers of memory, which memory itself does not keep alive.
    _observers: Vec<Arc<dyn WriteObserver>>,
}

/// What the user's handle and the machine both need.
struct Shared {
    control: Arc<Control>,
    rendezvous: Arc<Rendezvous>,
    bus: Arc<dyn CpuBus>,
    plan: Arc<Plan>,
    /// Who wants the machine to stand still.
    holders: Mutex<Vec<Holder>>,
    clock: Clock,
    memory: Arc<GuestMemory>,
    space: Arc<AddressSpace>,
    /// The I/O ports, on a PC.
    ports: Option<Arc<PortSpace>>,
    symbols: Symbols,
    disks: Arc<[BlockHandle]>,
    config: snapshot::Config,
    /// Where a deterministic run stands, left with the harts' samples.
    turn: Arc<Mutex<Turn>>,
    /// How the machine wakes, if it may sleep.
    wake: Option<Arc<Wake>>,
    started: Instant,
    cpu_at_start: Duration,
}

struct SignatureDump {
    path: std::path::PathBuf,
    granularity: usize,
    range: (u64, u64),
}

/// CPU time that this process has used.
fn process_cpu_time() -> Duration {
    cpu_time(ClockId::ProcessCPUTime)
}

fn cpu_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Shared {
    /// Adds up what the harts left.
    fn stats(&self, samples: &[Option<Sample>]) -> Stats {
        let mut total = Stats {
            cpu_time: process_cpu_time().saturating_sub(self.cpu_at_start),
            wall_time: self.started.elapsed(),
            ..Stats::default()
        };
        for sample in samples.iter().flatten() {
            let Stats {
                insns,
                hart_time,
                tlb_misses,
                blocks_decoded,
                device_accesses,
                engine_switches,
                jit,
                kvm,
                cpu_time: _,
                wall_time: _,
            } = sample.stats;
            total.insns += insns;
            total.hart_time += hart_time;
            total.tlb_misses += tlb_misses;
            total.blocks_decoded += blocks_decoded;
            total.device_accesses += device_accesses;
            total.engine_switches += engine_switches;
            if let Some(jit) = jit {
                total.jit.get_or_insert_default().add(&jit);
            }
            if let Some(kvm) = kvm {
                total.kvm.get_or_insert_default().add(&kvm);
            }
        }
        total
    }
}

impl Shared {
    /// Takes the devices away, for good.
    fn unplug(&self) {
        let ports = self.ports.as_ref().map(|ports| ports.space());
        for space in std::iter::once(&*self.space).chain(ports) {
            space.clear();
        }
    }

    /// Hashes and saves a machine that has ended.
    fn sum_up(
        &self,
        hash: bool,
        state_hash: &mut Option<u128>,
        save: Option<&Path>,
    ) -> Result<(), SnapshotError> {
        let state = MachineState::capture(self, &self.control.samples())?;
        if hash {
            *state_hash = Some(state.hash(&self.memory)?);
        }
        save.map_or(Ok(()), |path| state.write(path, &self.memory))
    }
}

/// Who may hold a machine still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    User,
    Debugger,
}

/// The outside of a machine, usable from any thread but the harts' own.
#[derive(Clone)]
pub struct MachineHandle {
    shared: Arc<Shared>,
    console: Arc<ConsoleInput>,
}

impl MachineHandle {
    /// Types `bytes` on the console. What the guest cannot take yet is kept; the number of bytes that it
    /// took at once is returned.
    pub fn input(&self, bytes: &[u8]) -> usize {
        self.console.push(bytes)
    }

    /// Ends the run at the user's wish.
    pub fn quit(&self) {
        self.shared.control.end(End::Quit);
    }

    /// Stops the harts and the guest's time; on return they stand.
    pub fn pause(&self) {
        self.hold(Holder::User);
    }

    /// Lets the harts and the guest's time go on, unless a debugger holds them.
    pub fn resume(&self) {
        self.release(Holder::User);
    }

    /// Whether the machine is paused, by [`pause`](Self::pause) or by a debugger.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.control.is_paused()
    }

    /// Stops the machine for `holder`; on return nothing moves any more.
    fn hold(&self, holder: Holder) {
        let mut holders = self.shared.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if !holders.contains(&holder) {
            holders.push(holder);
        }
        if self.shared.control.set_paused(true) {
            self.shared.control.stop_world(|_| self.shared.clock.stop());
        }
    }

    /// Lets the machine go on if `holder` was the last who held it.
    fn release(&self, holder: Holder) {
        let mut holders = self.shared.holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.retain(|&other| other != holder);
        if holders.is_empty() && self.shared.control.is_paused() {
            self.shared.clock.resume();
            self.shared.control.set_paused(false);
            self.shared.control.wake_event_loop();
        }
    }

    /// Presses the power button, which wakes a guest that sleeps and asks others to end. Whether there is one.
    pub fn press_power_button(&self) -> bool {
        self.shared.wake.as_ref().map(|wake| (wake.firmware.power_button)()).is_some()
    }

    /// Wakes a machine that the guest has suspended; the harts stand meanwhile, and then go on.
    fn wake(&self) {
        let control = &self.shared.control;
        if let Some(wake) = &self.shared.wake {
            let Some(states) = control.stop_world(|_| wake.reset(control)) else {
                return control.end(End::Reset);
            };
            for (hart, state) in states.into_iter().enumerate() {
                // After the end of the run nobody needs it.
                control.on_hart(hart, move |engine| sleep::load(engine, state));
                control.signals(hart).call_attention();
            }
        }
        control.end_sleep();
    }

    /// Counters up to now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.control.stop_world(|samples| self.shared.stats(samples))
    }

    /// Where the harts are.
    #[must_use]
    pub fn harts(&self) -> Vec<HartView> {
        self.shared
            .control
            .stop_world(|samples| samples.iter().flatten().map(|sample| sample.view).collect())
    }

    /// Changes the engine of all harts, from the one that the first runs on to the other. Which one that is;
    /// `None` after the end of the run.
    ///
    /// # Errors
    /// The host refuses what the engine needs; all stay where they are.
    pub fn switch_engine(&self) -> Result<Option<EngineKind>, EngineError> {
        let control = &self.shared.control;
        let Some(from) = control.on_hart(0, |engine| engine.kind()) else { return Ok(None) };
        let to = from.other(self.shared.config.cpu.isa());
        for hart in 0..control.harts() {
            let Some(switched) = control.on_hart(hart, move |engine| engine.switch(to)) else {
                return Ok(None);
            };
            if let Err(error) = switched {
                for hart in 0..hart {
                    // Where the hart has been it can go back to.
                    control.on_hart(hart, move |engine| engine.switch(from));
                }
                return Err(error);
            }
        }
        self.shared.plan.set(to);
        Ok(Some(to))
    }

    /// Saves the machine to a file. It goes on afterwards, and nothing of the time that this took is guest
    /// time.
    ///
    /// # Errors
    /// [`SnapshotError`]; a file that was there is then unchanged.
    pub fn save(&self, path: &Path) -> Result<(), SnapshotError> {
        let shared = &*self.shared;
        let paused = self.is_paused();
        shared.control.stop_world(|samples| {
            if shared.control.ended() {
                return Err(SnapshotError::Ended);
            }
            shared.clock.stop();
            shared.disks.iter().for_each(BlockHandle::drain);
            let saved = MachineState::capture(shared, samples)
                .and_then(|state| state.write(path, &shared.memory));
            if !paused {
                shared.clock.resume();
            }
            saved
        })
    }

    /// The name of the place `pc` in the image, if it has symbols there.
    #[must_use]
    pub fn symbolize(&self, pc: u64) -> Option<String> {
        self.shared.symbols.describe(pc)
    }
}

impl Machine {
    /// Builds the machine that `spec` describes.
    ///
    /// # Errors
    /// [`MachineError`] says what to change.
    pub fn new(spec: MachineSpec, io: ConsoleIo) -> Result<Machine, MachineError> {
        build::build(spec, io, None)
    }

    /// Builds the machine that a snapshot holds; it goes on where it was.
    ///
    /// # Errors
    /// [`MachineError`] says what to change.
    pub fn resume(
        snapshot: Snapshot,
        how: &Resumption,
        io: ConsoleIo,
    ) -> Result<Machine, MachineError> {
        build::build(how.spec(&snapshot.state().config), io, Some(snapshot))
    }

    /// Asks for [`Report::state_hash`].
    pub fn hash_at_end(&mut self) {
        self.hash_at_end = true;
    }

    /// Asks for a snapshot when [`Limits::insns`] is reached.
    pub fn save_at_limit(&mut self, path: PathBuf) {
        self.save_at_limit = Some(path);
    }

    /// The machine's outside.
    #[must_use]
    pub fn handle(&self) -> MachineHandle {
        MachineHandle { shared: Arc::clone(&self.shared), console: Arc::clone(&self.console) }
    }

    /// Runs until the guest, the user or a limit ends it.
    pub fn run(self) -> Report {
        let handle = self.handle();
        let Machine {
            harts,
            shared,
            timers,
            console,
            input,
            limits,
            signature,
            flash,
            _visibility,
            hash_at_end,
            save_at_limit,
            _observers,
        } = self;
        let control = Arc::clone(&shared.control);
        let parts = Parts {
            control: Arc::clone(&control),
            clock: shared.clock.clone(),
            timers: timers.clone(),
            console,
            input,
            limit: limits.time,
            handle,
        };
        // A resumed machine's clock has stood still until now.
        if !control.is_paused() {
            shared.clock.resume();
        }
        let threads = match EventLoop::new(parts) {
            Ok(event_loop) => start(event_loop, harts, &shared, timers, limits.insns),
            Err(error) => {
                control.end(End::Host(format!("the event loop cannot start: {error}")));
                Vec::new()
            }
        };
        for thread in threads {
            if thread.join().is_err() {
                control.end(End::Host("a thread of the emulator panicked".into()));
            }
        }
        let mut end = control.take_end().unwrap_or(End::Quit);
        shared.disks.iter().for_each(BlockHandle::drain);
        for bank in flash {
            if let Err(error) = mimic_devices::bus::lock(&bank).sync() {
                end = End::Host(format!("the flash's variables cannot be saved: {error}"));
            }
        }
        shared.clock.stop();
        let mut state_hash = None;
        let save = save_at_limit.filter(|_| end == End::InsnLimit);
        if (hash_at_end || save.is_some())
            && let Err(error) = shared.sum_up(hash_at_end, &mut state_hash, save.as_deref())
        {
            end = End::Host(error.to_string());
        }
        // A user's handle may outlive the machine; its devices, and the files they hold, must not.
        shared.unplug();
        if let Some(dump) = signature
            && let Err(error) = dump.write(&shared.memory)
        {
            end = End::Host(format!("{}: {error}", dump.path.display()));
        }
        Report {
            end,
            stats: shared.stats(&control.samples()),
            unmapped: shared.space.unmapped().map(|unmapped| (unmapped.count, unmapped.first)),
            post: control.last_post(),
            state_hash,
        }
    }
}

impl SignatureDump {
    /// One hexadecimal word a line, lowest address first.
    fn write(&self, memory: &GuestMemory) -> io::Result<()> {
        let (begin, end) = self.range;
        let mut bytes = vec![0; usize::try_from(end - begin).unwrap_or(0)];
        memory.read_into(begin, &mut bytes).map_err(io::Error::other)?;
        let mut text = String::with_capacity(bytes.len() * 3);
        for word in bytes.chunks(self.granularity) {
            text.extend(word.iter().rev().map(|byte| format!("{byte:02x}")));
            text.push('\n');
        }
        std::fs::write(&self.path, text)
    }
}

/// Starts the event loop's thread and the harts': one each, or one for all in a deterministic run.
fn start(
    event_loop: EventLoop,
    harts: Vec<Loaded>,
    shared: &Shared,
    timers: TimerQueue,
    insns: Option<u64>,
) -> Vec<JoinHandle<()>> {
    let control = &shared.control;
    let mut threads = Vec::new();
    let mut spawn = |name: String, body: Box<dyn FnOnce() + Send>| match std::thread::Builder::new()
        .name(name)
        .spawn(body)
    {
        Ok(thread) => threads.push(thread),
        Err(error) => control.end(End::Host(format!("a thread cannot start: {error}"))),
    };
    spawn("events".into(), Box::new(move || event_loop.run()));
    if shared.clock.is_deterministic() {
        let (control, clock) = (Arc::clone(control), shared.clock.clone());
        let left_turn = Arc::clone(&shared.turn);
        let turn = left_turn.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let plan = Arc::clone(&shared.plan);
        let wake = shared.wake.clone();
        let all =
            Deterministic { harts, control, clock, timers, insns, plan, turn, left_turn, wake };
        spawn("harts".into(), Box::new(move || all.run()));
        return threads;
    }
    let allowance = Arc::new(Allowance::new(insns));
    let crowded = harts::crowded(harts.len());
    for (index, hart) in harts.into_iter().enumerate() {
        let (control, rendezvous) = (Arc::clone(control), Arc::clone(&shared.rendezvous));
        let (allowance, plan) = (Arc::clone(&allowance), Arc::clone(&shared.plan));
        let body = move || run_hart(index, hart, &control, &rendezvous, &allowance, &plan, crowded);
        spawn(format!("hart {index}"), Box::new(body));
    }
    threads
}
