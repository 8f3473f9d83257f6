//! What a machine is made from, and what it says when it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mimic_devices::disk::Disk;
use mimic_jit::options::JitOptions;
use serde::{Deserialize, Serialize};

use super::snapshot;
use crate::loader::{ImageKind, Isa, LoadedImage};

pub use super::cpus::CpuSpec;

/// The boards Mimic can build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardKind {
    /// RISC-V `virt`: QEMU's memory map.
    Virt,
    /// x86 `pc`.
    Pc,
    /// x86 `microvm`: no PCI.
    Microvm,
}

impl BoardKind {
    /// The board for an image of this instruction set.
    #[must_use]
    pub fn for_isa(isa: Isa) -> Self {
        match isa {
            Isa::Riscv64 => BoardKind::Virt,
            Isa::X86_64 => BoardKind::Pc,
        }
    }

    /// The instruction set of its harts.
    #[must_use]
    pub fn isa(self) -> Isa {
        match self {
            BoardKind::Virt => Isa::Riscv64,
            BoardKind::Pc | BoardKind::Microvm => Isa::X86_64,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            BoardKind::Virt => "virt",
            BoardKind::Pc => "pc",
            BoardKind::Microvm => "microvm",
        }
    }

    /// The board of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|board| board.name() == name)
    }
}

/// The engines that can run a machine's harts. The default runs a guest unless told otherwise, everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// The interpreter.
    Interp,
    /// The translator.
    #[default]
    Jit,
    /// The host's processor, by Linux's KVM.
    Kvm,
}

impl EngineKind {
    /// The engine that runs guests of an instruction set unless told otherwise.
    #[must_use]
    pub fn default_for(isa: Isa) -> Self {
        match isa {
            Isa::Riscv64 => EngineKind::default(),
            // There is no translator yet.
            Isa::X86_64 => EngineKind::Interp,
        }
    }

    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Interp => "interp",
            EngineKind::Jit => "jit",
            EngineKind::Kvm => "kvm",
        }
    }

    /// What the name stands for.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            EngineKind::Interp => "the interpreter",
            EngineKind::Jit => "the translator",
            EngineKind::Kvm => "the host's processor (KVM)",
        }
    }

    /// The engine that a change from this one leads to with guests of an instruction set, unless one is named.
    #[must_use]
    pub fn other(self, isa: Isa) -> Self {
        match (self, isa) {
            (EngineKind::Interp, Isa::Riscv64) => EngineKind::Jit,
            (EngineKind::Interp, Isa::X86_64) => EngineKind::Kvm,
            (EngineKind::Jit | EngineKind::Kvm, _) => EngineKind::Interp,
        }
    }
}

/// When all harts change their engine, counted in instructions that they retire together in this run. On KVM, which
/// counts no instructions, a nanosecond of a hart's time counts as one, and a hart stays there for at least a tenth
/// of a millisecond. Exact in a deterministic machine and where there is one hart; harts that run side by side
/// follow one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchAt {
    /// Once, to this engine.
    Insns(u64, EngineKind),
    /// To the other one, again and again.
    Every(u64),
}

/// What runs the harts' instructions.
#[derive(Clone, Debug, Default)]
pub struct EngineSpec {
    /// The engine at the start.
    pub kind: EngineKind,
    /// How a translator works.
    pub jit: JitOptions,
    /// Changes of the engine.
    pub switches: Vec<SwitchAt>,
}

impl EngineSpec {
    /// Whether harts of an instruction set are to run on `kind` at some time, as far as is known before.
    #[must_use]
    pub fn uses(&self, kind: EngineKind, isa: Isa) -> bool {
        let planned = |switch: &SwitchAt| match switch {
            SwitchAt::Insns(_, to) => *to == kind,
            SwitchAt::Every(_) => self.kind.other(isa) == kind,
        };
        self.kind == kind || self.switches.iter().any(planned)
    }
}

impl From<EngineKind> for EngineSpec {
    fn from(kind: EngineKind) -> Self {
        EngineSpec { kind, ..EngineSpec::default() }
    }
}

/// A disk of the machine.
#[derive(Clone)]
pub struct DiskSpec {
    /// What is read and written. Opened before the machine is made and kept when it is made anew after a
    /// reset.
    pub disk: Arc<dyn Disk>,
    /// Serial number that the guest sees.
    pub serial: String,
}

/// Flash memory with firmware, and with the variables that it keeps.
#[derive(Clone)]
pub struct FlashSpec {
    /// Contents of the first bank, which the guest cannot change.
    pub code: Vec<u8>,
    /// File behind the second bank; without one it is blank and forgotten at the end.
    pub variables: Option<PathBuf>,
}

/// Who runs in M-mode before the image.
#[derive(Clone, Debug)]
pub enum Firmware {
    /// Chosen from the image: kernels get the built-in SBI, ELF files run bare in M-mode.
    Auto,
    /// No firmware: the image is entered in M-mode.
    None,
    /// Mimic's own SBI.
    Builtin,
    /// Other people's, such as OpenSBI: entered in M-mode, told by `fw_dynamic`'s protocol where the image
    /// lies.
    File(Box<LoadedImage>),
}

/// Which device of the guest the keyboard types into. Both may print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsoleKind {
    /// The 16550A serial port (`ttyS0`).
    #[default]
    Uart,
    /// The virtio console (`hvc0`).
    Virtio,
}

/// How a guest reaches its virtio devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VirtioBus {
    /// Registers at fixed addresses.
    Mmio,
    /// Functions of a PCI bus.
    Pci,
}

impl VirtioBus {
    /// The one that a board has for an image unless told otherwise. Distributions' kernels for RISC-V have PCI built in,
    /// and the devices at fixed addresses as modules; small systems know fixed addresses alone.
    #[must_use]
    pub fn default_for(board: BoardKind, image: ImageKind) -> Self {
        match board {
            BoardKind::Virt if image == ImageKind::LinuxImage => VirtioBus::Pci,
            BoardKind::Virt | BoardKind::Microvm => VirtioBus::Mmio,
            BoardKind::Pc => VirtioBus::Pci,
        }
    }
}

/// When to stop a guest that does not stop by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Retired instructions, all harts together.
    pub insns: Option<u64>,
    /// Wall time.
    pub time: Option<Duration>,
}

impl Limits {
    /// What is left after a machine has run and was reset.
    #[must_use]
    pub fn after(self, stats: &Stats) -> Self {
        Limits {
            insns: self.insns.map(|insns| insns.saturating_sub(stats.insns)),
            time: self.time.map(|time| time.saturating_sub(stats.wall_time)),
        }
    }
}

/// Everything that is decided before a machine exists.
pub struct MachineSpec {
    /// The board.
    pub board: BoardKind,
    /// What the harts offer.
    pub cpu: CpuSpec,
    /// Number of harts.
    pub cpus: usize,
    /// Bytes of RAM.
    pub memory: u64,
    /// The same guest with the same input does the same every time: one thread runs all harts in turn, and
    /// guest time is counted in retired instructions.
    pub deterministic: bool,
    /// Engine of all harts.
    pub engine: EngineSpec,
    /// M-mode firmware.
    pub firmware: Firmware,
    /// The image to start.
    pub image: LoadedImage,
    /// Initial RAM disk, as bytes.
    pub initrd: Option<Vec<u8>>,
    /// Kernel command line.
    pub cmdline: String,
    /// Where console input goes.
    pub console: ConsoleKind,
    /// Limits.
    pub limits: Limits,
    /// How the guest reaches its virtio devices.
    pub virtio: VirtioBus,
    /// Disks, in the order of their slots.
    pub disks: Vec<DiskSpec>,
    /// Flash memory, entered if there is no image.
    pub flash: Option<FlashSpec>,
    /// Where to write the signature region when the guest ends, and its granularity in bytes.
    pub signature: Option<(PathBuf, usize)>,
    /// What a guest writes to isa-debug-exit to say that it passed.
    pub pass_exit: Option<u32>,
}

/// What is decided anew when a snapshot's machine goes on.
#[derive(Clone)]
pub struct Resumption {
    /// Engine of all harts.
    pub engine: EngineSpec,
    /// Limits.
    pub limits: Limits,
    /// Disks, as the saved machine had them: what they hold is not in the snapshot.
    pub disks: Vec<DiskSpec>,
}

impl Resumption {
    /// An image of nothing: what the machine runs is in its memory.
    #[must_use]
    pub fn image(&self, config: &snapshot::Config) -> LoadedImage {
        LoadedImage {
            isa: config.cpu.isa(),
            tohost: config.tohost,
            fromhost: config.fromhost,
            ..LoadedImage::nothing(0)
        }
    }

    /// The specification of the machine that `config` describes.
    pub(super) fn spec(&self, config: &snapshot::Config) -> MachineSpec {
        MachineSpec {
            board: BoardKind::named(&config.board).unwrap_or(BoardKind::for_isa(config.cpu.isa())),
            cpu: config.cpu.clone(),
            cpus: config.cpus as usize,
            memory: config.memory,
            deterministic: config.deterministic,
            engine: self.engine.clone(),
            firmware: Firmware::Auto,
            image: self.image(config),
            initrd: None,
            cmdline: String::new(),
            console: config.console,
            virtio: config.virtio,
            limits: self.limits,
            disks: self.disks.clone(),
            // Its contents are in the snapshot, and what becomes of them stays in memory.
            flash: config.flash.then(|| FlashSpec { code: Vec::new(), variables: None }),
            signature: None,
            pass_exit: config.pass_exit,
        }
    }
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest powered the machine off (finisher, SBI SRST shutdown).
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest reported success (`tohost` = 1, finisher pass).
    Pass,
    /// The guest reported failure: the HTIF case number or the finisher's code.
    Fail(u64),
    /// The guest wrote this to isa-debug-exit.
    Exit(u32),
    /// The guest reported that its system failed (SRST "system failure").
    Panicked,
    /// The guest can not go on (trap loop, ...); the text explains the chain of faults.
    Died(String),
    /// All harts wait where no interrupt that can be masked is taken, and no device can send another.
    Halted,
    /// `Limits::insns` was reached.
    InsnLimit,
    /// `Limits::time` was reached.
    TimeLimit,
    /// The user quit.
    Quit,
    /// The host failed: what, and what to do.
    Host(String),
}

/// Counters of the translators of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitStats {
    /// Blocks translated.
    pub blocks: u64,
    /// Bytes of host code made.
    pub host_bytes: u64,
    /// Bytes of host code held.
    pub held_bytes: u64,
    /// Guest instructions translated.
    pub insns: u64,
    /// Regions translated.
    pub regions: u64,
    /// Guest instructions in regions.
    pub region_insns: u64,
    /// Samples of what is executed.
    pub samples: u64,
    /// Time spent in preparing regions beside the guest.
    pub background: Duration,
    /// Time spent in translation.
    pub time: Duration,
    /// Parts of code memory that were emptied to make room.
    pub recycled: u64,
    /// Jumps that were made to lead straight to their block.
    pub links: u64,
    /// Times that translated code was left for a trap or something to look at.
    pub exits_event: u64,
    /// ... by a jump that did not lead to its block yet.
    pub exits_link: u64,
    /// ... because it did not know the code at an address.
    pub exits_lookup: u64,
    /// ... because its share of instructions was used up.
    pub exits_slice: u64,
    /// Instructions that translated code had the interpreter perform.
    pub performed: u64,
    /// Blocks that were interpreted.
    pub interpreted: u64,
}

impl JitStats {
    /// Adds another translator's.
    pub fn add(&mut self, more: &JitStats) {
        let JitStats {
            blocks,
            host_bytes,
            held_bytes,
            insns,
            regions,
            region_insns,
            samples,
            background,
            time,
            recycled,
            links,
            exits_event,
            exits_link,
            exits_lookup,
            exits_slice,
            performed,
            interpreted,
        } = *more;
        self.blocks += blocks;
        self.host_bytes += host_bytes;
        self.held_bytes += held_bytes;
        self.insns += insns;
        self.regions += regions;
        self.region_insns += region_insns;
        self.samples += samples;
        self.background += background;
        self.time += time;
        self.recycled += recycled;
        self.links += links;
        self.exits_event += exits_event;
        self.exits_link += exits_link;
        self.exits_lookup += exits_lookup;
        self.exits_slice += exits_slice;
        self.performed += performed;
        self.interpreted += interpreted;
    }
}

/// Counters of KVM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvmStats {
    /// Times that the guest was entered.
    pub entries: u64,
    /// Times that the interpreter performed what KVM cannot.
    pub fallbacks: u64,
    /// Instructions that it performed then.
    pub interpreted: u64,
}

impl KvmStats {
    /// Adds another processor's.
    pub fn add(&mut self, more: &KvmStats) {
        let KvmStats { entries, fallbacks, interpreted } = *more;
        self.entries += entries;
        self.fallbacks += fallbacks;
        self.interpreted += interpreted;
    }
}

/// Counters of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Instructions retired by all harts.
    pub insns: u64,
    /// CPU time of this process since the machine was started.
    pub cpu_time: Duration,
    /// CPU time of the harts' threads: what their instructions cost, without other machines in the
    /// same process.
    pub hart_time: Duration,
    /// Wall time since the machine was started.
    pub wall_time: Duration,
    /// Soft-TLB misses that walked a page table or looked up the bus.
    pub tlb_misses: u64,
    /// Blocks decoded.
    pub blocks_decoded: u64,
    /// Accesses served by devices.
    pub device_accesses: u64,
    /// Changes of engine, of all harts together.
    pub engine_switches: u64,
    /// The translators', if there were any.
    pub jit: Option<JitStats>,
    /// KVM's, if a hart ran on it. What it executed is not among the instructions, but for those interpreted.
    pub kvm: Option<KvmStats>,
}

/// What a hart was doing when it was last looked at.
#[derive(Clone, Copy, Debug)]
pub struct HartView {
    /// Program counter.
    pub pc: u64,
    /// Privilege mode's name: `M`, `S` or `U`; `real`, `virtual-8086`, `user` or `supervisor`.
    pub mode: &'static str,
    /// Waiting for an interrupt.
    pub waiting: bool,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Why it ended.
    pub end: End,
    /// Counters.
    pub stats: Stats,
    /// Accesses where nothing is: how many, and the first address.
    pub unmapped: Option<(u64, u64)>,
    /// The last POST code that a PC's guest wrote.
    pub post: Option<u8>,
    /// Sum of all that the guest could tell at the end, if it was asked for.
    pub state_hash: Option<u128>,
}
