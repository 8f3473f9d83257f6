use super::*;
use crate::virtio::entropy::{Entropy, EntropySource};
use crate::virtio::mmio::Interface;
use crate::virtio::testing::{Driver, RAM, RAM_SIZE, SIZE, available, descriptors, used};
use crate::virtio::{F_INDIRECT_DESC, VirtioDevice};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

fn entropy() -> Box<dyn VirtioDevice> {
    Box::new(Entropy::new(EntropySource::Seeded(1)))
}

/// A queue of its own beside the driver's memory.
fn queue(driver: &Driver, indirect: bool) -> Queue {
    let mut queue = Queue::new(SIZE);
    queue.set_addresses(descriptors(0), available(0), used(0));
    queue.set_features(indirect, false);
    queue.enable(&driver.memory).unwrap();
    queue
}

fn bare() -> Driver {
    Driver::bare(Interface::Modern, entropy())
}

fn pop_one(driver: &Driver, indirect: bool, head: u16) -> Result<Option<Chain>, QueueError> {
    driver.publish(0, head);
    queue(driver, indirect).pop(&driver.memory)
}

#[test]
fn chains_keep_their_order_and_kinds() {
    let driver = bare();
    driver.descriptor(descriptors(0), 5, RAM + 0x100, 10, NEXT, 2);
    driver.descriptor(descriptors(0), 2, 0x1000, 20, NEXT, 7);
    driver.descriptor(descriptors(0), 7, RAM + 0x300, 30, WRITE, 9999);
    let chain = pop_one(&driver, false, 5).unwrap().unwrap();
    let readable = [Segment { gpa: RAM + 0x100, len: 10 }, Segment { gpa: 0x1000, len: 20 }];
    assert_eq!(chain.readable(), readable);
    assert_eq!(chain.writable(), [Segment { gpa: RAM + 0x300, len: 30 }]);
    assert_eq!((chain.readable_len(), chain.writable_len()), (30, 30));
}

#[test]
fn reads_and_writes_cross_segments() {
    let driver = bare();
    driver.descriptor(descriptors(0), 0, RAM + 0x8000, 3, NEXT | WRITE, 1);
    driver.descriptor(descriptors(0), 1, RAM + 0x8100, 0, NEXT | WRITE, 2);
    driver.descriptor(descriptors(0), 2, RAM + 0x8200, 4, WRITE, 0);
    let chain = pop_one(&driver, false, 0).unwrap().unwrap();
    assert_eq!(chain.write(&driver.memory, 2, b"abcdefgh"), Ok(5));
    assert_eq!(driver.memory.load::<u8>(RAM + 0x8002), Ok(b'a'));
    assert_eq!(driver.memory.load::<u32>(RAM + 0x8200).unwrap().to_le_bytes(), *b"bcde");
    assert_eq!(chain.write(&driver.memory, 7, b"x"), Ok(0));
    assert_eq!(chain.write(&driver.memory, u32::MAX, b"x"), Ok(0));
    assert_eq!(chain.read(&driver.memory, 0, &mut [0; 4]), Ok(0));
}

#[test]
fn an_indirect_table_may_end_a_chain() {
    let driver = bare();
    let table = RAM + 0x6000;
    driver.descriptor(descriptors(0), 0, RAM + 0x100, 1, NEXT, 1);
    driver.descriptor(descriptors(0), 1, table, 32, INDIRECT | WRITE, 0);
    driver.descriptor(table, 0, RAM + 0x200, 2, NEXT, 1);
    driver.descriptor(table, 1, RAM + 0x300, 3, WRITE, 0);
    let chain = pop_one(&driver, true, 0).unwrap().unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (3, 3));
    assert_eq!(pop_one(&driver, false, 0), Err(QueueError::Indirect), "not negotiated");
}

#[test]
fn hostile_chains_are_refused() {
    type Setup = fn(&Driver);
    let cases: [(&str, Setup, QueueError); 11] = [
        (
            "a loop",
            |d| {
                d.descriptor(descriptors(0), 0, RAM, 1, NEXT, 1);
                d.descriptor(descriptors(0), 1, RAM, 1, NEXT, 0);
            },
            QueueError::Loop,
        ),
        (
            "an index outside the table",
            |d| d.descriptor(descriptors(0), 0, RAM, 1, NEXT, SIZE),
            QueueError::DescriptorIndex(SIZE),
        ),
        (
            "a buffer outside memory",
            |d| d.descriptor(descriptors(0), 0, u64::MAX - 1, 16, 0, 0),
            QueueError::Memory(OutOfRange { gpa: u64::MAX - 1, len: 16 }),
        ),
        (
            "a buffer over the end",
            |d| d.descriptor(descriptors(0), 0, RAM + RAM_SIZE - 1, 2, WRITE, 0),
            QueueError::Memory(OutOfRange { gpa: RAM + RAM_SIZE - 1, len: 2 }),
        ),
        (
            "writing ROM",
            |d| d.descriptor(descriptors(0), 0, 0x1000, 4, WRITE, 0),
            QueueError::Memory(OutOfRange { gpa: 0x1000, len: 4 }),
        ),
        (
            "readable after writable",
            |d| {
                d.descriptor(descriptors(0), 0, RAM, 1, NEXT | WRITE, 1);
                d.descriptor(descriptors(0), 1, RAM, 1, 0, 0);
            },
            QueueError::Order,
        ),
        (
            "an indirect descriptor with a successor",
            |d| d.descriptor(descriptors(0), 0, RAM + 0x6000, 16, INDIRECT | NEXT, 1),
            QueueError::Indirect,
        ),
        (
            "an indirect table of half a descriptor",
            |d| d.descriptor(descriptors(0), 0, RAM + 0x6000, 24, INDIRECT, 0),
            QueueError::Indirect,
        ),
        (
            "nested indirect tables",
            |d| {
                d.descriptor(descriptors(0), 0, RAM + 0x6000, 16, INDIRECT, 0);
                d.descriptor(RAM + 0x6000, 0, RAM + 0x6000, 16, INDIRECT, 0);
            },
            QueueError::Indirect,
        ),
        (
            "an indirect table outside memory",
            |d| d.descriptor(descriptors(0), 0, RAM + RAM_SIZE - 16, 32, INDIRECT, 0),
            QueueError::Memory(OutOfRange { gpa: RAM + RAM_SIZE - 16, len: 32 }),
        ),
        (
            "a loop in an indirect table",
            |d| {
                d.descriptor(descriptors(0), 0, RAM + 0x6000, 16, INDIRECT, 0);
                d.descriptor(RAM + 0x6000, 0, RAM, 1, NEXT, 0);
            },
            QueueError::Loop,
        ),
    ];
    for (what, setup, error) in cases {
        let driver = bare();
        setup(&driver);
        assert_eq!(pop_one(&driver, true, 0), Err(error), "{what}");
    }
}

#[test]
fn a_chain_of_four_gigabytes_is_refused() {
    let memory = GuestMemory::new(&[crate::memory::RegionSpec::ram(RAM, 8 << 30)]).unwrap();
    let mut queue = Queue::new(SIZE);
    queue.set_addresses(RAM, RAM + 0x100, RAM + 0x200);
    queue.enable(&memory).unwrap();
    for (index, flags) in [(0, NEXT | WRITE), (1, WRITE)] {
        memory.store(RAM + 16 * index, RAM).unwrap();
        memory.store(RAM + 16 * index + 8, 1_u64 << 31 | u64::from(flags) << 32 | 1 << 48).unwrap();
    }
    memory.store(RAM + 0x102, 1_u16).unwrap();
    assert_eq!(queue.pop(&memory), Err(QueueError::TooLong));
}

#[test]
fn a_wild_available_index_is_refused() {
    let driver = bare();
    driver.memory.store(available(0) + 2, SIZE + 1).unwrap();
    assert_eq!(queue(&driver, false).pop(&driver.memory), Err(QueueError::AvailableIndex));
}

#[test]
fn unsound_queues_cannot_be_enabled() {
    let driver = bare();
    let enable = |size: u16, desc, avail, used| {
        let mut queue = Queue::new(64);
        queue.set_size(size);
        queue.set_addresses(desc, avail, used);
        queue.enable(&driver.memory)
    };
    let (d, a, u) = (descriptors(0), available(0), used(0));
    assert_eq!(enable(64, d, a + 0x1000, u + 0x1000), Ok(()));
    for size in [0, 3, 128, 0x8001] {
        assert_eq!(enable(size, d, a, u), Err(QueueError::Size(size)));
    }
    assert_eq!(enable(8, d + 8, a, u), Err(QueueError::Misaligned(d + 8)));
    assert_eq!(enable(8, d, a + 1, u), Err(QueueError::Misaligned(a + 1)));
    assert_eq!(enable(8, d, a, u + 2), Err(QueueError::Misaligned(u + 2)));
    for bad in [0, 0x1000, RAM + RAM_SIZE - 16, !15] {
        assert!(matches!(enable(8, bad, a, u), Err(QueueError::Memory(_))));
        assert!(matches!(enable(8, d, bad, u), Err(QueueError::Memory(_))));
        assert!(matches!(enable(8, d, a, bad), Err(QueueError::Memory(_))));
    }
}

#[test]
fn without_event_idx_the_flag_decides_about_signals() {
    let mut driver = Driver::new(Interface::Modern, entropy(), 0);
    driver.memory.store(available(0), 1_u16).unwrap();
    driver.add(0, &[(RAM + 0x8000, 4, true)]);
    driver.notify(0);
    assert_eq!((driver.used(0).len(), driver.irq.level()), (1, false));
    driver.memory.store(available(0), 0_u16).unwrap();
    driver.notify(0);
    assert!(!driver.irq.level(), "nothing new was used");
    driver.add(0, &[(RAM + 0x8000, 4, true)]);
    driver.notify(0);
    assert!(driver.irq.level());
}

#[test]
fn event_indices_decide_about_signals_and_notifications() {
    let mut driver = Driver::new(Interface::Modern, entropy(), Driver::EVENT_IDX);
    driver.set_used_event(0, 1);
    driver.add(0, &[(RAM + 0x8000, 4, true)]);
    driver.notify(0);
    assert!(!driver.irq.level(), "wanted after the second buffer");
    assert_eq!(driver.avail_event(0), 1);
    driver.add(0, &[(RAM + 0x8000, 4, true)]);
    driver.notify(0);
    assert!(driver.irq.level());
    driver.ack();
    driver.add(0, &[(RAM + 0x8000, 4, true)]);
    driver.notify(0);
    assert!(!driver.irq.level(), "the event has passed");
    assert_eq!(driver.avail_event(0), 3);
}

#[test]
fn indices_wrap_around() {
    let mut driver = Driver::new(Interface::Modern, entropy(), Driver::EVENT_IDX);
    for i in 0..70_000_u32 {
        driver.set_used_event(0, i as u16);
        driver.add(0, &[(RAM + 0x8000, 1, true)]);
        driver.notify(0);
        assert!(driver.irq.level(), "no signal at {i}");
        driver.ack();
    }
    assert_eq!(driver.memory.load::<u16>(used(0) + 2), Ok(70_000_u32 as u16));
}

#[test]
fn indirect_requests_are_served() {
    let driver = Driver::new(Interface::Modern, entropy(), F_INDIRECT_DESC);
    driver.descriptor(descriptors(0), 3, RAM + 0x6000, 32, INDIRECT, 0);
    driver.descriptor(RAM + 0x6000, 0, RAM + 0x8000, 4, NEXT | WRITE, 1);
    driver.descriptor(RAM + 0x6000, 1, RAM + 0x9000, 4, WRITE, 0);
    driver.publish(0, 3);
    driver.notify(0);
    assert_eq!(driver.used(0), [(3, 8)]);
}
