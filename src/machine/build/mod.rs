//! Building a machine: memory, the board's devices, harts.

mod microvm;
mod pc;
mod virt;
mod x86;

use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mimic_cpu::bus::{CpuBus, Request};
use mimic_cpu::signals::Signals;
use mimic_devices::bus::AddressSpace;
use mimic_devices::clock::{Clock, TimerQueue};
use mimic_devices::memory::{GuestMemory, PAGE_SIZE, VisibilityObserver};
use mimic_devices::pflash::PFlash;
use mimic_devices::serial::{SerialInput, SerialOutput};
use mimic_devices::virtio::VirtioDevice;
use mimic_devices::virtio::block::{Block, BlockHandle, BlockOptions};
use mimic_devices::virtio::console::Console;
use mimic_devices::virtio::entropy::{Entropy, EntropySource};

use crate::board;
use crate::engine::kvm::{self, KvmGuest};
use crate::engine::{CpuState, EngineError, HartEngine};
use crate::loader::Isa;

use super::bus::{CodeLog, MachineBus, PATIENCE, Side};
use super::control::Control;
use super::event_loop::ConsoleInput;
use super::harts::{Turn, crowded};
use super::htif::Htif;
use super::payload::{self, Layout};
use super::plan::Plan;
use super::rendezvous::Rendezvous;
use super::sleep::Wake;
use super::snapshot::{self, Snapshot};
use super::spec::{BoardKind, ConsoleKind, CpuSpec, DiskSpec, EngineKind, MachineSpec, VirtioBus};
use super::tables::PageTables;
use super::{ConsoleIo, Machine, MachineError, Shared, SignatureDump, process_cpu_time};

/// Most RAM: what is kept per page is taken from the host at once, a byte each, whoever asks for the machine.
const MAX_MEMORY: u64 = 1 << 40;

/// Whether a machine may have so many bytes of RAM.
pub(super) fn is_memory_size(bytes: u64) -> bool {
    bytes != 0 && bytes.is_multiple_of(PAGE_SIZE) && bytes <= MAX_MEMORY
}

/// What a deterministic machine's real-time clock shows at its start: 2026-01-01, in nanoseconds since
/// 1970.
const DETERMINISTIC_EPOCH: u64 = 1_767_225_600 * 1_000_000_000;
/// Seed of what a deterministic machine takes for random.
const DETERMINISTIC_SEED: u64 = 0x6d69_6d69_6300;

/// Tells the harts that flash has stopped or started being memory.
struct FlashMoves(Arc<Rendezvous>);

impl VisibilityObserver for FlashMoves {
    fn hidden(&self, _gpa: u64, _len: u64) {
        self.0.tell_all(Request::FlushTranslations);
    }
}

/// The console's output, shared by those who print: the UART and HTIF.
#[derive(Clone)]
struct SharedOutput(Arc<Mutex<Box<dyn SerialOutput>>>);

impl SerialOutput for SharedOutput {
    fn write(&mut self, bytes: &[u8]) {
        mimic_devices::bus::lock(&self.0).write(bytes);
    }
}

/// What the devices of every board are made from.
struct Ground {
    clock: Clock,
    timers: TimerQueue,
    /// Of each hart.
    signals: Vec<Arc<Signals>>,
    control: Arc<Control>,
    output: SharedOutput,
    memory: Arc<GuestMemory>,
    entropy: EntropySource,
    wall_base: u64,
}

impl Ground {
    /// A source of random numbers.
    fn entropy_device(&self) -> Box<dyn VirtioDevice> {
        Box::new(Entropy::new(self.entropy.clone()))
    }

    /// A console.
    fn console(&self, made: &mut Made) -> Box<dyn VirtioDevice> {
        let (console, handle) = Console::new(Box::new(self.output.clone()), None);
        made.consoles.push((ConsoleKind::Virtio, handle.input));
        Box::new(console)
    }

    /// A disk.
    fn block(&self, disk: &DiskSpec, made: &mut Made) -> Box<dyn VirtioDevice> {
        let options = BlockOptions {
            serial: disk.serial.clone(),
            synchronous: self.clock.is_deterministic(),
        };
        let memory = Arc::clone(&self.memory);
        let (block, handle) = Block::new(Arc::clone(&disk.disk), memory, &options);
        made.disks.push(handle);
        Box::new(block)
    }
}

/// What the machine keeps of its devices besides the bus.
#[derive(Default)]
struct Made {
    consoles: Vec<(ConsoleKind, SerialInput)>,
    disks: Vec<BlockHandle>,
    flash: Vec<Arc<Mutex<PFlash>>>,
}

fn placement(error: impl std::fmt::Display) -> MachineError {
    MachineError::Placement(error.to_string())
}

fn host(what: &'static str) -> impl FnOnce(std::io::Error) -> MachineError {
    move |source| MachineError::Host { what, source }
}

fn entropy() -> Result<[u8; 32], MachineError> {
    let mut seed = [0; 32];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| host("the host's random numbers")(error.into()))?;
    Ok(seed)
}

/// Builds the machine of `spec`; with a snapshot, the one that it holds and that `spec` was made for.
pub(super) fn build(
    spec: MachineSpec,
    io: ConsoleIo,
    mut snapshot: Option<Snapshot>,
) -> Result<Machine, MachineError> {
    let (most, disks) = match spec.board {
        BoardKind::Virt => (board::virt::MAX_HARTS, board::virt::DISK_SLOTS.len()),
        BoardKind::Pc => (board::pc::MAX_CPUS, board::pc::DISKS.len()),
        BoardKind::Microvm => (board::pc::MAX_CPUS, board::microvm::DISK_SLOTS.len()),
    };
    if spec.cpus == 0 || spec.cpus > most {
        return Err(MachineError::Cpus { given: spec.cpus, max: most });
    }
    if spec.disks.len() > disks {
        return Err(MachineError::Placement(format!(
            "{} disks are given, the board has room for {disks}",
            spec.disks.len(),
        )));
    }
    let board = spec.board.name();
    if spec.board != BoardKind::Virt
        && spec.virtio != VirtioBus::default_for(spec.board, spec.image.kind)
    {
        return Err(MachineError::Placement(format!(
            "the board {board} has its virtio devices elsewhere: leave --virtio away"
        )));
    }
    if spec.board != BoardKind::Virt && spec.flash.is_some() {
        return Err(MachineError::Placement(format!(
            "the board {board} has no flash yet: leave --flash away"
        )));
    }
    if !is_memory_size(spec.memory) {
        return Err(MachineError::MemorySize(spec.memory));
    }
    let seed = if spec.deterministic { [0x6d; 32] } else { entropy()? };
    let layout = match &snapshot {
        None => payload::lay_out(&spec, seed)?,
        Some(snapshot) => {
            let state = snapshot.state();
            Layout::empty(state.config.own_firmware, state.rom())
        }
    };
    let mut cpu = spec.cpu.clone();
    let mut tsc = 0;
    if let CpuSpec::X86(model) = &mut cpu {
        model.cpus = spec.cpus as u32;
        let may_change = snapshot.is_none() && !spec.deterministic;
        if may_change && spec.engine.uses(EngineKind::Kvm, Isa::X86_64) {
            let fit = kvm::fit(model).map_err(EngineError::from)?;
            log::info!(target: "kvm", "the processors go without {}", fit.lost);
            tsc = fit.tsc;
        }
    }
    let config = snapshot::Config {
        board: spec.board.name().into(),
        isa: cpu.isa_string(),
        cpu: cpu.clone(),
        cpus: spec.cpus as u32,
        memory: spec.memory,
        deterministic: spec.deterministic,
        console: spec.console,
        virtio: spec.virtio,
        flash: spec.flash.is_some(),
        tohost: spec.image.tohost,
        fromhost: spec.image.fromhost,
        own_firmware: layout.own_firmware,
        pass_exit: spec.pass_exit,
    };

    let regions = match spec.board {
        BoardKind::Virt => virt::regions(spec.memory, spec.flash.is_some()),
        BoardKind::Pc | BoardKind::Microvm => x86::regions(spec.memory, layout.rom),
    };
    let memory = GuestMemory::new(&regions)
        .map_err(|error| host("guest memory")(std::io::Error::other(error)))?;
    let memory = Arc::new(memory);
    for piece in &layout.pieces {
        memory.fill(piece.addr, &piece.bytes).map_err(|error| {
            MachineError::Placement(format!("the image cannot be placed: {error}"))
        })?;
    }

    let signals: Vec<Arc<Signals>> = (0..spec.cpus).map(|_| Arc::default()).collect();
    let control = Arc::new(Control::new(signals.clone(), layout.own_firmware));
    let clock = if spec.deterministic { Clock::deterministic() } else { Clock::real() };
    let rendezvous = Arc::new(Rendezvous::new(signals.clone()));
    if let Some(snapshot) = &snapshot {
        // It goes on when the machine does.
        clock.stop();
        clock.set(snapshot.state().time);
    }
    let timers = TimerQueue::new();
    let real_time =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let (entropy, wall_base) = if spec.deterministic {
        (EntropySource::Seeded(DETERMINISTIC_SEED), DETERMINISTIC_EPOCH)
    } else {
        (EntropySource::Host, real_time)
    };
    let ground = Ground {
        clock: clock.clone(),
        timers: timers.clone(),
        signals: signals.clone(),
        control: Arc::clone(&control),
        output: SharedOutput(Arc::new(Mutex::new(io.output))),
        memory: Arc::clone(&memory),
        entropy,
        wall_base,
    };
    let space = Arc::new(AddressSpace::new());
    let mut made = Made::default();
    let mut ports = None;
    let mut firmware = None;
    let (sides, mut states) = match &cpu {
        CpuSpec::Riscv(model) => {
            let side = Arc::new(virt::wire(&ground, &space, &spec, &mut made)?);
            let sides = vec![Side::Riscv(side); spec.cpus];
            (sides, virt::harts(*model, spec.cpus))
        }
        CpuSpec::X86(model) => {
            let wired = match spec.board {
                BoardKind::Microvm => microvm::wire(&ground, &space, model, &spec, &mut made)?,
                _ => {
                    let start = (model, layout.start, layout.rom);
                    pc::wire(&ground, &space, start, &spec, &mut made)?
                }
            };
            firmware = wired.firmware;
            ports = Some(wired.ports);
            let sides = wired.sides.into_iter().map(|side| Side::Pc(Arc::new(side))).collect();
            (sides, x86::processors(model, spec.cpus, layout.start, tsc))
        }
    };
    if let Some(snapshot) = &mut snapshot {
        snapshot.read_memory(&memory)?;
    }
    let serial = made.consoles.into_iter().find(|(kind, _)| *kind == spec.console);
    let Some((_, serial)) = serial else {
        return Err(MachineError::Placement("the board has no such console".into()));
    };

    let coherent = spec.deterministic.then(|| Arc::clone(&rendezvous));
    // No instruction tells an x86 processor that another one has written code; it must find out before its next
    // serialising instruction is over (SDM vol. 3, 9.1.3).
    let looks = spec.deterministic || cpu.isa() == Isa::X86_64;
    let code = CodeLog::new(&memory, looks.then(|| Arc::clone(&rendezvous)));
    let tables = coherent.map(|rendezvous| PageTables::new(&memory, rendezvous));
    let mut observers: Vec<Arc<dyn mimic_devices::memory::WriteObserver>> = vec![code.clone()];
    if let Some(tohost) = spec.image.tohost {
        let output = Box::new(ground.output.clone());
        let control = Arc::clone(&control);
        observers.push(Htif::watch(&memory, tohost, spec.image.fromhost, control, output));
    }
    let moved: Arc<dyn VisibilityObserver> = Arc::new(FlashMoves(Arc::clone(&rendezvous)));
    memory.observe_visibility(&moved);
    let patience = match spec.deterministic {
        // The others run on the same thread.
        true => u32::MAX,
        false if crowded(spec.cpus) => 1,
        false => PATIENCE,
    };
    let bus_of = |side: &Side| -> Arc<dyn CpuBus> {
        Arc::new(MachineBus {
            memory: Arc::clone(&memory),
            space: Arc::clone(&space),
            side: side.clone(),
            code: Arc::clone(&code),
            tables: tables.clone(),
            rendezvous: Arc::clone(&rendezvous),
            patience,
        })
    };
    let buses: Vec<Arc<dyn CpuBus>> = match sides.first() {
        // All see the same.
        Some(side @ Side::Riscv(_)) => vec![bus_of(side); sides.len()],
        _ => sides.iter().map(bus_of).collect(),
    };
    let Some(bus) = buses.first().cloned() else {
        return Err(MachineError::Cpus { given: 0, max: most });
    };
    let mut turn = Turn::new(spec.cpus);
    if let Some(snapshot) = &snapshot {
        let state = snapshot.state();
        state.restore_devices(&space, ports.as_deref())?;
        if let Some(Side::Riscv(side)) = sides.first() {
            state.arm_timers(&*bus, &side.mtime);
        }
        turn = state.turn();
        states.clone_from(&state.harts);
    }
    let guest = Arc::new(KvmGuest::new(Arc::clone(&memory)));
    let mut engine = spec.engine.clone();
    engine.jit.background &= !spec.deterministic && !crowded(states.len() + 1);
    let harts = signals
        .into_iter()
        .zip(states)
        .zip(buses)
        .map(|((signals, state), bus): ((_, CpuState), _)| {
            let (pins, guest) = (Arc::clone(&signals), Arc::clone(&guest));
            Ok((HartEngine::new(engine.clone(), state, bus, pins, guest)?, signals))
        })
        .collect::<Result<_, MachineError>>()?;

    let disks: Arc<[BlockHandle]> = made.disks.into();
    let wake = firmware.zip(ports.clone()).map(|(firmware, ports)| {
        let (memory, space) = (Arc::clone(&memory), Arc::clone(&space));
        let disks = Arc::clone(&disks);
        Arc::new(Wake { firmware, memory, space, ports, disks, tsc })
    });
    let signature = spec.signature.zip(spec.image.signature);
    Ok(Machine {
        harts,
        shared: Arc::new(Shared {
            control,
            rendezvous,
            bus,
            plan: Arc::new(Plan::new(&spec.engine, cpu.isa())),
            holders: Mutex::default(),
            clock,
            memory,
            space,
            ports,
            symbols: spec.image.symbols,
            disks,
            config,
            turn: Arc::new(Mutex::new(turn)),
            wake,
            started: Instant::now(),
            cpu_at_start: process_cpu_time(),
        }),
        timers,
        console: Arc::new(ConsoleInput::new(serial)),
        input: io.input,
        limits: spec.limits,
        signature: signature.map(|((path, granularity), range)| SignatureDump {
            path,
            granularity,
            range,
        }),
        flash: made.flash,
        hash_at_end: false,
        save_at_limit: None,
        _observers: observers,
        _visibility: moved,
    })
}
