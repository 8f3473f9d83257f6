//! Building a machine: memory, devices by the board's placement list, harts.

use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mimic_cpu::bus::{CpuBus, Request};
use mimic_cpu::riscv::csr::fields::irq;
use mimic_cpu::riscv::hart::Hart;
use mimic_cpu::signals::Signals;
use mimic_devices::aclint::{Aclint, HartLines, Mtime};
use mimic_devices::bus::{AddressSpace, SharedDevice};
use mimic_devices::clock::{Clock, TimerQueue};
use mimic_devices::finisher::Finisher;
use mimic_devices::fw_cfg::{self, FwCfg, FwCfgItems};
use mimic_devices::goldfish_rtc::GoldfishRtc;
use mimic_devices::irq::{IrqLine, IrqSink};
use mimic_devices::memory::{GuestMemory, PAGE_SIZE, RegionSpec, VisibilityObserver};
use mimic_devices::pflash::{FlashContents, FlashFile, PFlash};
use mimic_devices::plic::{self, Plic};
use mimic_devices::power::PowerSink;
use mimic_devices::serial::{SerialInput, SerialOutput};
use mimic_devices::uart16550::{self, Uart16550};
use mimic_devices::virtio::VirtioDevice;
use mimic_devices::virtio::block::{Block, BlockHandle, BlockOptions};
use mimic_devices::virtio::console::Console;
use mimic_devices::virtio::entropy::{Entropy, EntropySource};
use mimic_devices::virtio::mmio::{Interface, VirtioMmio};

use crate::board::virt::{self, Part, Placement};
use crate::engine::HartEngine;

use super::bus::{CodeLog, MachineBus, PATIENCE};
use super::control::Control;
use super::event_loop::ConsoleInput;
use super::harts;
use super::harts::{Turn, crowded};
use super::htif::Htif;
use super::payload::Layout;
use super::plan::Plan;
use super::rendezvous::Rendezvous;
use super::snapshot::{self, Snapshot};
use super::spec::{ConsoleKind, DiskSpec, FlashSpec, MachineSpec};
use super::tables::PageTables;
use super::{ConsoleIo, Machine, MachineError, Shared, SignatureDump, payload, process_cpu_time};

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

/// Interrupt lines of one hart, as an IRQ sink: the input number is the bit of `mip`.
struct HartPins(Arc<Signals>);

impl IrqSink for HartPins {
    fn set_level(&self, input: u32, level: bool) {
        self.0.set_lines(1 << input, level);
    }
}

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

/// What the devices of a board are made from.
struct Wiring {
    clock: Clock,
    timers: TimerQueue,
    mtime: Mtime,
    pins: Vec<Arc<dyn IrqSink>>,
    plic: Arc<Mutex<Plic>>,
    control: Arc<Control>,
    output: SharedOutput,
    memory: Arc<GuestMemory>,
    entropy: EntropySource,
    disks: Vec<DiskSpec>,
    flash: Option<FlashSpec>,
    wall_base: u64,
}

/// What the machine keeps of its devices besides the bus.
#[derive(Default)]
struct Made {
    consoles: Vec<(ConsoleKind, SerialInput)>,
    disks: Vec<BlockHandle>,
    flash: Vec<Arc<Mutex<PFlash>>>,
}

impl Wiring {
    fn line(&self, place: &Placement) -> IrqLine {
        place
            .irq
            .map_or_else(IrqLine::unconnected, |irq| IrqLine::new(plic::inputs(&self.plic), irq))
    }

    fn pin(&self, hart: usize, bit: u64) -> IrqLine {
        IrqLine::new(Arc::clone(&self.pins[hart]), bit.trailing_zeros())
    }

    fn virtio(&self, device: impl VirtioDevice + 'static, line: IrqLine) -> SharedDevice {
        VirtioMmio::new(Interface::Modern, Box::new(device), Arc::clone(&self.memory), line)
    }

    /// Makes the device of a placement, if there shall be one.
    fn device(
        &self,
        place: &Placement,
        made: &mut Made,
    ) -> Result<Option<SharedDevice>, MachineError> {
        let line = self.line(place);
        let device: SharedDevice = match place.part {
            Part::BootRom => return Ok(None),
            Part::Virtio(virt::ENTROPY_SLOT) => {
                self.virtio(Entropy::new(self.entropy.clone()), line)
            }
            Part::Virtio(virt::CONSOLE_SLOT) => {
                let (console, handle) = Console::new(Box::new(self.output.clone()), None);
                made.consoles.push((ConsoleKind::Virtio, handle.input));
                self.virtio(console, line)
            }
            Part::Virtio(slot) => match self.disks.get(slot as usize) {
                Some(disk) => {
                    let options = BlockOptions {
                        serial: disk.serial.clone(),
                        synchronous: self.clock.is_deterministic(),
                    };
                    let memory = Arc::clone(&self.memory);
                    let (block, handle) = Block::new(Arc::clone(&disk.disk), memory, &options);
                    made.disks.push(handle);
                    self.virtio(block, line)
                }
                None => VirtioMmio::empty(Interface::Modern),
            },
            Part::FwCfg => {
                let mut items = FwCfgItems::new();
                let cpus = self.pins.len() as u16;
                items.set_u16(fw_cfg::key::CPUS, cpus).map_err(placement)?;
                items.set_u16(fw_cfg::key::MAX_CPUS, cpus).map_err(placement)?;
                let memory = Arc::clone(&self.memory);
                Arc::new(Mutex::new(FwCfg::new(memory, fw_cfg::Layout::Mmio, items)))
            }
            Part::Flash(bank) => {
                let Some(flash) = &self.flash else { return Ok(None) };
                let contents = match (bank, &flash.variables) {
                    (0, _) => FlashContents::ReadOnly(&flash.code),
                    (_, Some(path)) => {
                        FlashContents::File(FlashFile::open(path).map_err(placement)?)
                    }
                    (_, None) => FlashContents::Volatile(&[]),
                };
                let flash = PFlash::new(Arc::clone(&self.memory), place.base, contents);
                let flash = Arc::new(Mutex::new(flash.map_err(placement)?));
                made.flash.push(Arc::clone(&flash));
                flash
            }
            Part::Finisher => {
                let power: Arc<dyn PowerSink> = Arc::<Control>::clone(&self.control);
                Arc::new(Mutex::new(Finisher::new(power)))
            }
            Part::Rtc => GoldfishRtc::new(self.clock.clone(), &self.timers, line, self.wall_base),
            Part::Aclint => {
                let lines = (0..self.pins.len())
                    .map(|hart| HartLines {
                        msip: self.pin(hart, irq::MSI),
                        mtip: self.pin(hart, irq::MTI),
                    })
                    .collect();
                Aclint::new(self.mtime.clone(), &self.timers, lines)
            }
            Part::Plic => Arc::<Mutex<Plic>>::clone(&self.plic),
            Part::Uart => {
                let config = uart16550::Config {
                    clock_hz: u64::from(virt::UART_CLOCK),
                    ..uart16550::Config::default()
                };
                let output = Box::new(self.output.clone());
                let (uart, input) =
                    Uart16550::new(config, self.clock.clone(), &self.timers, line, output);
                made.consoles.push((ConsoleKind::Uart, input));
                uart
            }
        };
        Ok(Some(device))
    }
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
    if spec.cpus == 0 || spec.cpus > virt::MAX_HARTS {
        return Err(MachineError::Cpus { given: spec.cpus, max: virt::MAX_HARTS });
    }
    if spec.disks.len() > virt::DISK_SLOTS.len() {
        return Err(MachineError::Placement(format!(
            "{} disks are given, the board has room for {}",
            spec.disks.len(),
            virt::DISK_SLOTS.len()
        )));
    }
    if !is_memory_size(spec.memory) {
        return Err(MachineError::MemorySize(spec.memory));
    }
    let seed = if spec.deterministic { [0x6d; 32] } else { entropy()? };
    let layout = match &snapshot {
        None => payload::lay_out(&spec, seed)?,
        Some(snapshot) => Layout::empty(snapshot.state().config.own_firmware),
    };
    let config = snapshot::Config {
        board: "virt".into(),
        cpu: spec.cpu,
        isa: spec.cpu.isa_string(),
        cpus: spec.cpus as u32,
        memory: spec.memory,
        deterministic: spec.deterministic,
        console: spec.console,
        flash: spec.flash.is_some(),
        tohost: spec.image.tohost,
        fromhost: spec.image.fromhost,
        own_firmware: layout.own_firmware,
    };

    let mut regions = vec![
        RegionSpec::rom(virt::BOOT_ROM.base, virt::BOOT_ROM.size),
        RegionSpec::ram(virt::RAM_BASE, spec.memory),
    ];
    if spec.flash.is_some() {
        regions.extend(virt::FLASH.map(|bank| RegionSpec::rom(bank.base, bank.size)));
    }
    let memory = GuestMemory::new(&regions)
        .map_err(|error| host("guest memory")(std::io::Error::other(error)))?;
    let memory = Arc::new(memory);
    let place = |addr, bytes: &[u8]| {
        memory.fill(addr, bytes).map_err(|error| {
            MachineError::Placement(format!("the image cannot be placed: {error}"))
        })
    };
    for piece in &layout.pieces {
        place(piece.addr, &piece.bytes)?;
    }
    place(virt::BOOT_ROM.base, &layout.boot_rom)?;

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
    let mtime = Mtime::new(clock.clone());
    let pins: Vec<Arc<dyn IrqSink>> = signals
        .iter()
        .map(|signals| Arc::new(HartPins(Arc::clone(signals))) as Arc<dyn IrqSink>)
        .collect();
    // Contexts: M and S of hart 0, M and S of hart 1, ...
    let contexts = pins
        .iter()
        .flat_map(|pin| {
            [irq::MEI, irq::SEI].map(|bit| IrqLine::new(Arc::clone(pin), bit.trailing_zeros()))
        })
        .collect();
    let real_time =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let (entropy, wall_base) = if spec.deterministic {
        (EntropySource::Seeded(DETERMINISTIC_SEED), DETERMINISTIC_EPOCH)
    } else {
        (EntropySource::Host, real_time)
    };
    let wiring = Wiring {
        clock: clock.clone(),
        timers: timers.clone(),
        mtime: mtime.clone(),
        pins,
        plic: Plic::new(virt::PLIC_SOURCES, contexts, clock.clone(), &timers),
        control: Arc::clone(&control),
        output: SharedOutput(Arc::new(Mutex::new(io.output))),
        memory: Arc::clone(&memory),
        entropy,
        disks: spec.disks,
        flash: spec.flash,
        wall_base,
    };
    let space = Arc::new(AddressSpace::new());
    let mut made = Made::default();
    for place in &virt::PLACEMENTS {
        if let Some(device) = wiring.device(place, &mut made)? {
            space.map(place.base, place.size, device).map_err(placement)?;
        }
    }
    if let Some(snapshot) = &mut snapshot {
        snapshot.read_memory(&memory)?;
    }
    let serial = made.consoles.into_iter().find(|(kind, _)| *kind == spec.console);
    let Some((_, serial)) = serial else {
        return Err(MachineError::Placement("the board has no such console".into()));
    };

    let hart_timers = signals
        .iter()
        .map(|signals| {
            let signals = Arc::clone(signals);
            timers.register(Arc::new(move |_| signals.call_attention()))
        })
        .collect();
    let moved = signals.clone();
    mtime.on_change(move || moved.iter().for_each(|signals| signals.call_attention()));
    let coherent = spec.deterministic.then(|| Arc::clone(&rendezvous));
    let code = CodeLog::new(&memory, coherent.clone());
    let tables = coherent.map(|rendezvous| PageTables::new(&memory, rendezvous));
    let mut observers: Vec<Arc<dyn mimic_devices::memory::WriteObserver>> = vec![code.clone()];
    if let Some(tohost) = spec.image.tohost {
        let output = Box::new(wiring.output.clone());
        let control = Arc::clone(&control);
        observers.push(Htif::watch(&memory, tohost, spec.image.fromhost, control, output));
    }
    let moved: Arc<dyn VisibilityObserver> = Arc::new(FlashMoves(Arc::clone(&rendezvous)));
    memory.observe_visibility(&moved);
    let bus: Arc<dyn CpuBus> = Arc::new(MachineBus {
        memory: Arc::clone(&memory),
        space: Arc::clone(&space),
        mtime: mtime.clone(),
        hart_timers,
        code,
        tables,
        rendezvous: Arc::clone(&rendezvous),
        patience: match spec.deterministic {
            // The others run on the same thread.
            true => u32::MAX,
            false if harts::crowded(spec.cpus) => 1,
            false => PATIENCE,
        },
    });
    let mut turn = Turn::new(spec.cpus);
    let mut states: Vec<Hart> =
        (0..spec.cpus).map(|id| Hart::of_model(spec.cpu, id as u64, virt::BOOT_ROM.base)).collect();
    if let Some(snapshot) = &snapshot {
        let state = snapshot.state();
        state.restore_devices(&space)?;
        state.arm_timers(&*bus, &mtime);
        turn = state.turn();
        states.clone_from(&state.harts);
    }
    let mut engine = spec.engine.clone();
    engine.jit.background &= !spec.deterministic && !crowded(states.len() + 1);
    let harts = signals
        .into_iter()
        .zip(states)
        .map(|(signals, hart)| {
            let (bus, pins) = (Arc::clone(&bus), Arc::clone(&signals));
            Ok((HartEngine::new(engine.clone(), hart, bus, pins)?, signals))
        })
        .collect::<Result<_, MachineError>>()?;

    let signature = spec.signature.zip(spec.image.signature);
    Ok(Machine {
        harts,
        shared: Arc::new(Shared {
            control,
            rendezvous,
            bus,
            plan: Arc::new(Plan::new(&spec.engine)),
            holders: Mutex::default(),
            clock,
            memory,
            space,
            symbols: spec.image.symbols,
            disks: made.disks,
            config,
            turn: Arc::new(Mutex::new(turn)),
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
