//! The bus: functions by number, and their windows in the two spaces.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::{PciFunction, Space, Window};
use crate::bus::{
    AddressSpace, MapError, RestoreError, SavedDevice, SharedDevice, Width, check, lock,
};
use crate::ports::PortSpace;

/// What a configuration access reads where nothing is.
const NOTHING: u32 = u32::MAX;

/// Where the I/O ports of functions are.
pub enum IoPorts {
    /// A PC's ports.
    Ports(Arc<PortSpace>),
    /// A window of memory: port n is at this address plus n, up to so many ports.
    Memory {
        /// Address of port 0.
        base: u64,
        /// Number of ports.
        count: u64,
    },
    /// Nowhere.
    None,
}

/// A device number of 5 bits and a function number of 3.
#[must_use]
pub const fn devfn(device: u8, function: u8) -> u8 {
    device << 3 | function & 7
}

struct Slot {
    function: Arc<Mutex<dyn PciFunction>>,
    device: SharedDevice,
    name: &'static str,
    /// Windows that are in their space.
    placed: Vec<Window>,
}

/// A bus.
pub struct PciBus {
    memory: Arc<AddressSpace>,
    ports: IoPorts,
    slots: BTreeMap<u8, Slot>,
}

impl PciBus {
    /// A bus without functions, whose windows lie in these spaces.
    #[must_use]
    pub fn new(memory: Arc<AddressSpace>, ports: IoPorts) -> Self {
        PciBus { memory, ports, slots: BTreeMap::new() }
    }

    /// Adds a function ([`devfn`]). False: the number is taken.
    pub fn insert<F: PciFunction + 'static>(
        &mut self,
        number: u8,
        function: Arc<Mutex<F>>,
    ) -> bool {
        if self.slots.contains_key(&number) {
            return false;
        }
        let name = lock(&function).name();
        let device: SharedDevice = function.clone();
        self.slots.insert(number, Slot { function, device, name, placed: Vec::new() });
        self.move_windows(number);
        true
    }

    /// A function.
    #[must_use]
    pub fn function(&self, number: u8) -> Option<Arc<Mutex<dyn PciFunction>>> {
        self.slots.get(&number).map(|slot| Arc::clone(&slot.function))
    }

    /// Reads a register of a function: up to 4 bytes that do not cross a word.
    #[must_use]
    pub fn read(&self, number: u8, register: u8, width: Width) -> u32 {
        match self.slots.get(&number) {
            Some(slot) => lock(&slot.function).read_config(register, width),
            None => NOTHING & width.mask() as u32,
        }
    }

    /// Writes a register of a function, and moves its windows if need be.
    pub fn write(&mut self, number: u8, register: u8, width: Width, value: u32) {
        if let Some(slot) = self.slots.get(&number) {
            lock(&slot.function).write_config(register, width, value);
            self.move_windows(number);
        }
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        for number in self.numbers() {
            lock(&self.slots[&number].function).reset();
            self.move_windows(number);
        }
    }

    fn numbers(&self) -> Vec<u8> {
        self.slots.keys().copied().collect()
    }

    /// Puts the windows of a function where it wants them now.
    fn move_windows(&mut self, number: u8) {
        let Some(slot) = self.slots.get_mut(&number) else { return };
        let wanted = lock(&slot.function).windows();
        if wanted == slot.placed {
            return;
        }
        for window in std::mem::take(&mut slot.placed) {
            if !wanted.contains(&window) {
                take(&self.memory, &self.ports, &window);
            } else {
                slot.placed.push(window);
            }
        }
        for window in wanted {
            if slot.placed.contains(&window) {
                continue;
            }
            match put(&self.memory, &self.ports, slot, &window) {
                Ok(true) => slot.placed.push(window),
                Ok(false) => {}
                // Software has put it on top of something else, which answers there.
                Err(error) => log::debug!(target: "pci", "a window stays closed: {error}"),
            }
        }
    }

    /// The states of all functions.
    #[must_use]
    pub fn save(&self) -> BusState {
        let saved = |(number, slot): (&u8, &Slot)| (*number, lock(&slot.function).save());
        BusState(self.slots.iter().map(saved).collect())
    }

    /// Takes over saved states.
    ///
    /// # Errors
    /// The first function that refuses its own; those before it have taken theirs.
    pub fn restore(&mut self, state: &BusState) -> Result<(), RestoreError> {
        let same = state.0.iter().map(|(number, _)| *number).eq(self.slots.keys().copied());
        check(same, "functions of the PCI bus")?;
        for (number, saved) in &state.0 {
            lock(&self.slots[number].function).restore(saved)?;
        }
        self.numbers().into_iter().for_each(|number| self.move_windows(number));
        Ok(())
    }
}

/// The state of a [`PciBus`] as saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusState(Vec<(u8, SavedDevice)>);

/// Where a window lies in memory; `None` if it does not.
fn in_memory(ports: &IoPorts, window: &Window) -> Option<u64> {
    match (window.space, ports) {
        (Space::Memory, _) => Some(window.base),
        (Space::Io, IoPorts::Memory { base, count }) => {
            let end = window.base.checked_add(window.size)?;
            (end <= *count).then(|| base + window.base)
        }
        (Space::Io, _) => None,
    }
}

/// Opens a window. False: nothing leads there.
fn put(
    memory: &AddressSpace,
    ports: &IoPorts,
    slot: &Slot,
    window: &Window,
) -> Result<bool, MapError> {
    let Window { size, first, .. } = *window;
    let device = Arc::clone(&slot.device);
    if let Some(base) = in_memory(ports, window) {
        return memory.map_window(slot.name, base, size, device, first).map(|()| true);
    }
    match (ports, u16::try_from(window.base)) {
        (IoPorts::Ports(ports), Ok(port)) => {
            ports.map_window(slot.name, port, size, device, first).map(|()| true)
        }
        _ => Ok(false),
    }
}

/// Closes a window.
fn take(memory: &AddressSpace, ports: &IoPorts, window: &Window) {
    match (in_memory(ports, window), ports) {
        (Some(base), _) => memory.unmap(base),
        (None, IoPorts::Ports(ports)) => ports.space().unmap(window.base),
        (None, _) => false,
    };
}
