//! Snapshots: everything that a machine is between two instructions, in a file and back.
//!
//! [`MachineState`] is what a snapshot holds besides memory's pages, which `pages` walks; `file` puts both
//! into a file that is written whole or not at all, and refuses one that is damaged; `hash` sums both up.
//! Only what the guest can tell is saved: what somebody typed and the guest has not read stays behind, and
//! so do the contents of disks, which have files of their own.

mod file;
mod hash;
mod pages;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mimic_cpu::bus::CpuBus;
use mimic_cpu::riscv::NS_PER_TICK;
use mimic_cpu::riscv::csr::fields::envcfg;
use mimic_devices::aclint::Mtime;
use mimic_devices::bus::{AddressSpace, RestoreError, SavedDevice, SharedDevice, lock};
use mimic_devices::memory::{GuestMemory, RegionKind};
use mimic_devices::ports::PortSpace;
use serde::{Deserialize, Serialize};

pub use file::Snapshot;
pub(super) use pages::differ as pages_differ;

use super::Shared;
use super::build::is_memory_size;
use super::control::Sample;
use super::harts::Turn;
use super::spec::{BoardKind, ConsoleKind, CpuSpec, VirtioBus};
use crate::engine::CpuState;

/// Latest guest time that a snapshot may hold: what is added to it stays far from the end of its range.
const MAX_TIME: u64 = 1 << 62;

/// Where the I/O ports are thought to begin: above every address.
pub const PORTS: u64 = 1 << 63;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The host cannot read or write the file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The disk is full. What the file held before, it still holds.
    #[error("{path}: the disk is full, nothing was written")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another kind of file.
    #[error("{0} is not a snapshot")]
    Foreign(PathBuf),
    /// Written by another version of Mimic.
    #[error(
        "{path} has snapshot format {found}, this version of mimic reads format {known}: load it with the \
         version that saved it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The file's format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The file's end is missing.
    #[error("{0} is cut off: it is not the whole snapshot")]
    Truncated(PathBuf),
    /// Some bytes are not those that were written.
    #[error("{0} is damaged: its checksum is wrong")]
    Damaged(PathBuf),
    /// A field holds what no machine can hold.
    #[error("this snapshot cannot be loaded: {0}")]
    Invalid(String),
    /// A device refuses its state.
    #[error("this snapshot cannot be loaded: {device} at {base:#x}: {source}")]
    Device {
        /// The device.
        device: String,
        /// Its address.
        base: u64,
        /// Why.
        source: RestoreError,
    },
    /// Guest memory cannot be read.
    #[error("guest memory: {0}")]
    Memory(io::Error),
    /// The machine has ended; there is nothing to save.
    #[error("the machine has ended")]
    Ended,
}

impl SnapshotError {
    /// Whether the host is to blame rather than the file.
    #[must_use]
    pub fn is_of_host(&self) -> bool {
        matches!(
            self,
            SnapshotError::Io { .. } | SnapshotError::Full { .. } | SnapshotError::Memory(_)
        )
    }

    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                SnapshotError::Full { path }
            }
            _ => SnapshotError::Io { path, source },
        }
    }
}

fn invalid(what: impl Into<String>) -> SnapshotError {
    SnapshotError::Invalid(what.into())
}

/// What was decided when the machine was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The board's name.
    pub board: String,
    /// What the harts offer.
    pub cpu: CpuSpec,
    /// Their ISA string, or the model's name.
    pub isa: String,
    /// Harts.
    pub cpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// Runs the same way every time.
    pub deterministic: bool,
    /// Where the keyboard types.
    pub console: ConsoleKind,
    /// How the guest reaches its virtio devices.
    pub virtio: VirtioBus,
    /// There is flash memory.
    pub flash: bool,
    /// HTIF's `tohost`.
    pub tohost: Option<u64>,
    /// HTIF's `fromhost`.
    pub fromhost: Option<u64>,
    /// The firmware in M-mode is our own, so the finisher's codes are known.
    pub own_firmware: bool,
    /// What a guest writes to isa-debug-exit to say that it passed.
    pub pass_exit: Option<u32>,
}

/// A device's state, and where the device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedDevice {
    /// The device's name for itself.
    pub name: String,
    /// Its first address; of one at I/O ports alone, its first port counted from [`PORTS`].
    pub base: u64,
    /// Its state.
    pub saved: SavedDevice,
}

impl fmt::Display for PlacedDevice {
    /// The name, and where it is: `uart16550@10000000`, `pit@port-40`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base.checked_sub(PORTS) {
            Some(port) => write!(f, "{}@port-{port:x}", self.name),
            None => write!(f, "{}@{:x}", self.name, self.base),
        }
    }
}

/// A region of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// The guest cannot write it.
    pub rom: bool,
}

/// A machine between two instructions, without the contents of its memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineState {
    /// What was decided when the machine was made.
    pub config: Config,
    /// The harts.
    pub harts: Vec<CpuState>,
    /// Guest time in nanoseconds.
    pub time: u64,
    /// Where a deterministic run is in its round.
    turn: Turn,
    /// Every device, by address.
    pub devices: Vec<PlacedDevice>,
    /// Memory, by address.
    pub regions: Vec<Region>,
}

/// Every device, by address, those at ports last; where a device appears first is its place.
pub(super) fn devices(space: &AddressSpace, ports: Option<&PortSpace>) -> Vec<(u64, SharedDevice)> {
    let here = space.devices().into_iter().map(|(base, _, device)| (base, device));
    let ports = ports.map(|ports| ports.space().devices()).unwrap_or_default();
    let there = ports.into_iter().map(|(port, _, device)| (PORTS + port, device));
    let mut found: Vec<(u64, SharedDevice)> = Vec::new();
    for (base, device) in here.chain(there) {
        if !found.iter().any(|(_, other)| Arc::ptr_eq(other, &device)) {
            found.push((base, device));
        }
    }
    found
}

fn regions(memory: &GuestMemory) -> Vec<Region> {
    let region = |region: &mimic_devices::memory::Region| Region {
        base: region.base(),
        size: region.size(),
        rom: region.kind() == RegionKind::Rom,
    };
    memory.regions().iter().map(region).collect()
}

impl MachineState {
    /// The state of a machine whose harts stand still, left in `samples`.
    pub(super) fn capture(
        shared: &Shared,
        samples: &[Option<Sample>],
    ) -> Result<MachineState, SnapshotError> {
        let hart = |sample: &Option<Sample>| {
            let mut hart = sample.as_ref().ok_or(SnapshotError::Ended)?.hart.clone();
            // A deterministic run goes on as if it had not been interrupted, so its SC must succeed; the
            // reservation holds the value that LR saw, which is all that SC asks for. Elsewhere LR and SC
            // start again.
            if let CpuState::Riscv(hart) = &mut hart
                && !shared.config.deterministic
            {
                hart.reservation = None;
            }
            Ok(hart)
        };
        let harts = samples.iter().map(hart).collect::<Result<_, _>>()?;
        let turn = shared.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let device = |(base, device): (u64, SharedDevice)| {
            let device = lock(&device);
            PlacedDevice { name: device.name().into(), base, saved: device.save() }
        };
        Ok(MachineState {
            config: shared.config.clone(),
            harts,
            time: shared.clock.now(),
            turn,
            devices: devices(&shared.space, shared.ports.as_deref())
                .into_iter()
                .map(device)
                .collect(),
            regions: regions(&shared.memory),
        })
    }

    /// Checks all that does not need the machine.
    fn check(&self) -> Result<(), SnapshotError> {
        let MachineState { config, harts, time, turn, devices: _, regions: _ } = self;
        let board = BoardKind::named(&config.board).filter(|board| board.isa() == config.cpu.isa());
        if board.is_none() || !config.cpu.is_legal(config.cpus) {
            return Err(invalid(format!("there is no board named {:?}", config.board)));
        }
        let isa = config.cpu.isa_string();
        if config.isa != isa {
            return Err(invalid(format!(
                "its harts have the ISA {:?}, those of this version {isa:?}",
                config.isa
            )));
        }
        if !is_memory_size(config.memory) {
            return Err(invalid(format!("no machine has {} bytes of memory", config.memory)));
        }
        if harts.len() != config.cpus as usize {
            return Err(invalid("the number of harts is not the machine's"));
        }
        for (index, hart) in harts.iter().enumerate() {
            let named = |what| invalid(format!("hart {index} has an impossible {what}"));
            let (id, model) = match hart {
                CpuState::Riscv(hart) => {
                    hart.check().map_err(named)?;
                    (hart.hartid, CpuSpec::Riscv(hart.model))
                }
                CpuState::X86(cpu) => (cpu.id.into(), CpuSpec::X86(cpu.model.clone())),
            };
            if id != index as u64 {
                return Err(named("hartid"));
            }
            if model != config.cpu {
                return Err(named("model"));
            }
        }
        if *time > MAX_TIME || !turn.is_legal(harts.len()) {
            return Err(invalid("its time is impossible"));
        }
        Ok(())
    }

    /// Bytes of ROM that end at 4 GiB.
    pub(super) fn rom(&self) -> u64 {
        let ends =
            |region: &&Region| region.rom && region.base.checked_add(region.size) == Some(1 << 32);
        self.regions.iter().find(ends).map_or(0, |region| region.size)
    }

    /// Where a deterministic run goes on.
    pub(super) fn turn(&self) -> Turn {
        self.turn.clone()
    }

    /// Checks that memory is laid out as it was.
    fn check_memory(&self, memory: &GuestMemory) -> Result<(), SnapshotError> {
        if regions(memory) == self.regions {
            Ok(())
        } else {
            Err(invalid("its memory is laid out otherwise than this board's"))
        }
    }

    /// Puts the devices into their states. Time is set, and memory holds what it held.
    pub(super) fn restore_devices(
        &self,
        space: &AddressSpace,
        ports: Option<&PortSpace>,
    ) -> Result<(), SnapshotError> {
        let present = devices(space, ports);
        let here: Vec<_> =
            present.iter().map(|(base, device)| (*base, lock(device).name())).collect();
        let there: Vec<_> =
            self.devices.iter().map(|saved| (saved.base, saved.name.as_str())).collect();
        if here != there {
            let only = |these: &[(u64, &str)], others: &[(u64, &str)]| {
                let only = these.iter().filter(|device| !others.contains(device));
                let only: Vec<_> =
                    only.map(|(base, name)| format!("{name} at {base:#x}")).collect();
                if only.is_empty() { "nothing".to_owned() } else { only.join(", ") }
            };
            return Err(invalid(format!(
                "its devices are not this machine's: it has {}, here is {}; give the disks that the saved \
                 machine had (--disk)",
                only(&there, &here),
                only(&here, &there),
            )));
        }
        // The interrupt controllers come last: what the others do to their inputs on the way is forgotten.
        const LAST: [&str; 4] = ["plic", "pic", "ioapic", "lapic"];
        let mut order: Vec<_> = self.devices.iter().collect();
        order.sort_by_key(|device| LAST.iter().position(|last| *last == device.name));
        for saved in order {
            let Some((_, device)) = present.iter().find(|(base, _)| *base == saved.base) else {
                continue;
            };
            let restored = lock(device).restore(&saved.saved);
            restored.map_err(|source| SnapshotError::Device {
                device: saved.name.clone(),
                base: saved.base,
                source,
            })?;
        }
        Ok(())
    }

    /// Arms the supervisor timers, which harts do by themselves only once they run.
    pub(super) fn arm_timers(&self, bus: &dyn CpuBus, mtime: &Mtime) {
        for (index, hart) in self.harts.iter().enumerate() {
            let CpuState::Riscv(hart) = hart else { continue };
            let compares = hart.menvcfg & envcfg::STCE != 0 && hart.stimecmp != u64::MAX;
            if compares && mtime.ticks() < hart.stimecmp {
                bus.set_deadline(index, hart.stimecmp.saturating_mul(NS_PER_TICK));
            }
        }
    }

    /// Sums up the state and the contents of memory.
    pub(super) fn hash(&self, memory: &GuestMemory) -> Result<u128, SnapshotError> {
        hash::state_hash(self, memory).map_err(SnapshotError::Memory)
    }

    /// Writes the snapshot, with memory's pages, to `path`.
    pub(super) fn write(&self, path: &Path, memory: &GuestMemory) -> Result<(), SnapshotError> {
        file::write(path, self, memory).map_err(|source| SnapshotError::io(path, source))
    }
}

#[cfg(test)]
mod tests;
