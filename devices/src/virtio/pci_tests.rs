//! The function as a driver finds and works it.

use super::*;
use crate::bus::{AddressSpace, lock};
use crate::memory::RegionSpec;
use crate::msi::Msi;
use crate::msi::tests::Messages;
use crate::pci::bus::{IoPorts, PciBus, devfn};
use crate::virtio::entropy::{Entropy, EntropySource};

const RAM: u64 = 0x8000_0000;
const BASE: u64 = 0x4000_0000;
const TABLE: u64 = 0x4001_0000;
/// The device 5, function 0.
const NUMBER: u8 = devfn(5, 0);

struct Rig {
    memory: Arc<GuestMemory>,
    space: Arc<AddressSpace>,
    bus: PciBus,
    line: IrqLine,
    messages: Arc<Messages>,
}

/// An entropy device whose BARs have their places.
fn rig() -> Rig {
    let memory = Arc::new(GuestMemory::new(&[RegionSpec::ram(RAM, 0x1_0000)]).unwrap());
    let space = Arc::new(AddressSpace::new());
    let (line, messages) = (IrqLine::unconnected(), Arc::<Messages>::default());
    let device = Box::new(Entropy::new(EntropySource::Seeded(1)));
    let function = VirtioPci::new(device, memory.clone(), line.clone(), Some(messages.clone()));
    let mut bus = PciBus::new(space.clone(), IoPorts::None);
    assert!(bus.insert(NUMBER, function.clone()));
    assert!(!bus.insert(NUMBER, function), "the number is taken");
    bus.write(NUMBER, 0x10, Width::Word, BASE as u32);
    bus.write(NUMBER, 0x14, Width::Word, TABLE as u32);
    bus.write(NUMBER, 0x04, Width::Half, 0x6);
    Rig { memory, space, bus, line, messages }
}

impl Rig {
    fn read(&self, offset: u64, width: Width) -> u64 {
        self.space.read(BASE + offset, width).unwrap()
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        self.space.write(BASE + offset, width, value).unwrap();
    }

    fn config(&self, register: u8, width: Width) -> u32 {
        self.bus.read(NUMBER, register, width)
    }

    /// The structure of a type: where it lies in the BAR, found by the capabilities (section 4.1.4).
    fn structure(&self, kind: u32) -> u64 {
        let mut at = self.config(0x34, Width::Byte) as u8;
        while at != 0 {
            let vendors = self.config(at, Width::Byte) == 9;
            if vendors && self.config(at + 3, Width::Byte) == kind {
                assert_eq!(self.config(at + 4, Width::Byte), 0, "BAR 0");
                return self.config(at + 8, Width::Word).into();
            }
            at = self.config(at + 1, Width::Byte) as u8;
        }
        panic!("no structure of type {kind}");
    }

    /// VIRTIO 1.2, section 3.1.1, with one queue of 8 entries at the start of RAM.
    fn initialise(&self, vector: u64) {
        let common = self.structure(1);
        self.write(common + 0x14, Width::Byte, 0);
        self.write(common + 0x14, Width::Byte, 3);
        self.write(common + 8, Width::Word, 1);
        self.write(common + 0xc, Width::Word, 1);
        self.write(common + 0x14, Width::Byte, 0xb);
        assert_eq!(self.read(common + 0x14, Width::Byte), 0xb, "features refused");
        assert_eq!(self.read(common + 0x12, Width::Half), 1, "queues");
        self.write(common + 0x16, Width::Half, 0);
        self.write(common + 0x18, Width::Half, 8);
        self.write(common + 0x1a, Width::Half, vector);
        for (offset, address) in [(0x20, RAM), (0x28, RAM + 0x100), (0x30, RAM + 0x200)] {
            self.write(common + offset, Width::Word, address & 0xffff_ffff);
            self.write(common + offset + 4, Width::Word, address >> 32);
        }
        self.write(common + 0x1c, Width::Half, 1);
        assert_eq!(self.read(common + 0x1c, Width::Half), 1);
        self.write(common + 0x14, Width::Byte, 0xf);
    }

    /// Asks for 8 random bytes; how many requests have been answered.
    fn ask(&self, request: u16) -> u16 {
        let store = |at, value: u64| self.memory.store::<u64>(at, value).unwrap();
        store(RAM, RAM + 0x1000);
        // Length 8, writable.
        store(RAM + 8, 8 | 2 << 32);
        self.memory.store::<u16>(RAM + 0x102, request).unwrap();
        self.write(self.structure(2), Width::Half, 0);
        self.memory.load::<u16>(RAM + 0x202).unwrap()
    }
}

#[test]
fn drivers_know_the_function_by_its_numbers() {
    let rig = rig();
    // Section 4.1.2: vendor 0x1af4, device 0x1040 + 4 (entropy); at least revision 1.
    assert_eq!(rig.config(0, Width::Word), 0x1044_1af4);
    assert_eq!(rig.config(8, Width::Byte), 1);
    assert_eq!(rig.config(0x3d, Width::Byte), 1, "INTA#");
    assert_eq!(rig.bus.read(devfn(5, 1), 0, Width::Word), 0xffff_ffff);
    assert_eq!(rig.bus.read(devfn(6, 0), 0, Width::Half), 0xffff);
}

#[test]
fn bars_tell_their_size_and_move() {
    let mut rig = rig();
    rig.bus.write(NUMBER, 0x10, Width::Word, 0xffff_ffff);
    assert_eq!(rig.config(0x10, Width::Word), 0xffff_c000, "16 KiB of memory");
    assert!(rig.space.read(BASE + 0x14, Width::Byte).is_err());
    rig.bus.write(NUMBER, 0x10, Width::Word, 0x5000_0000);
    assert_eq!(rig.space.read(0x5000_0012, Width::Half), Ok(1));
    rig.bus.write(NUMBER, 0x04, Width::Half, 0);
    assert!(rig.space.read(0x5000_0012, Width::Half).is_err(), "memory is not decoded");
    assert_eq!(rig.space.devices().len(), 0, "windows are the bus's own");
}

#[test]
fn a_request_ends_in_an_interrupt_that_reading_the_isr_takes_back() {
    let rig = rig();
    rig.initialise(0xffff);
    assert_eq!(rig.ask(1), 1);
    assert!(rig.line.level());
    assert_eq!(rig.config(6, Width::Half) & 8, 8, "interrupt status");
    assert_eq!(rig.read(rig.structure(3), Width::Byte), 1);
    assert!(!rig.line.level());
    assert_eq!(rig.read(rig.structure(3), Width::Byte), 0);
    assert_eq!(rig.messages.take(), []);
}

#[test]
fn a_request_ends_in_a_message_where_the_driver_wants_it() {
    let mut rig = rig();
    // MSI-X: 2 entries, table in BAR 1.
    assert_eq!(rig.config(0x98, Width::Byte), 0x11);
    assert_eq!(rig.config(0x9a, Width::Half) & 0x7ff, 1);
    assert_eq!(rig.config(0x9c, Width::Word), 1);
    rig.bus.write(NUMBER, 0x9a, Width::Half, 0x8000);
    for (offset, value) in [(0x10, 0xfee0_1000), (0x14, 0), (0x18, 0x41), (0x1c, 1)] {
        rig.space.write(TABLE + offset, Width::Word, value).unwrap();
    }
    rig.initialise(1);
    assert_eq!(rig.ask(1), 1);
    assert_eq!((rig.messages.take(), rig.line.level()), (vec![], false), "masked");
    assert_eq!(rig.space.read(TABLE + 0x800, Width::Word), Ok(2), "pending");
    rig.space.write(TABLE + 0x1c, Width::Word, 0).unwrap();
    let message = Msi { address: 0xfee0_1000, data: 0x41 };
    assert_eq!(rig.messages.take(), [message]);
    assert_eq!(rig.ask(2), 2);
    assert_eq!((rig.messages.take(), rig.line.level()), (vec![message], false));
    // A vector that there is not.
    let common = rig.structure(1);
    rig.write(common + 0x1a, Width::Half, 2);
    assert_eq!(rig.read(common + 0x1a, Width::Half), 0xffff);
}

#[test]
fn the_registers_are_reached_through_the_configuration_space() {
    let mut rig = rig();
    // Bar 0, offset of the number of queues, 2 bytes.
    rig.bus.write(NUMBER, 0x8c, Width::Word, 0x12);
    rig.bus.write(NUMBER, 0x90, Width::Word, 2);
    assert_eq!(rig.config(0x94, Width::Half), 1);
    rig.bus.write(NUMBER, 0x8c, Width::Word, 0x14);
    rig.bus.write(NUMBER, 0x90, Width::Word, 1);
    rig.bus.write(NUMBER, 0x94, Width::Byte, 3);
    assert_eq!(rig.read(0x14, Width::Byte), 3);
    // Beyond the BAR, and of no width: nothing happens.
    rig.bus.write(NUMBER, 0x8c, Width::Word, 0xffff_fff0);
    rig.bus.write(NUMBER, 0x94, Width::Byte, 0);
    rig.bus.write(NUMBER, 0x8c, Width::Word, 0x14);
    rig.bus.write(NUMBER, 0x90, Width::Word, 3);
    rig.bus.write(NUMBER, 0x94, Width::Byte, 0);
    assert_eq!(rig.read(0x14, Width::Byte), 3);
}

#[test]
fn a_restored_function_goes_on_where_it_was() {
    let first = rig();
    first.initialise(0xffff);
    assert_eq!(first.ask(1), 1);
    let mut second = rig();
    second.bus.write(NUMBER, 0x04, Width::Half, 0);
    second.bus.restore(&first.bus.save()).unwrap();
    assert!(second.line.level());
    assert_eq!(second.read(0x14, Width::Byte), 0xf);
    assert_eq!(second.bus.save(), first.bus.save());
    // The numbers of a function are not a matter of its state.
    let function = VirtioPci::new(
        Box::new(Entropy::new(EntropySource::Seeded(1))),
        first.memory.clone(),
        IrqLine::unconnected(),
        None,
    );
    let saved = lock(&function).save();
    let mut other = PciBus::new(first.space.clone(), IoPorts::None);
    assert!(other.insert(NUMBER, function));
    assert!(other.restore(&first.bus.save()).is_err(), "it has no messages");
    assert_eq!(saved, lock(&other.function(NUMBER).unwrap()).save());
}
