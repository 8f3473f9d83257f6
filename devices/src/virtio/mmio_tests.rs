use super::*;
use crate::bus::lock;
use crate::virtio::entropy::{Entropy, EntropySource};
use crate::virtio::testing::{Driver, RAM, SIZE as QUEUE_SIZE, available, descriptors};

fn entropy() -> Box<dyn VirtioDevice> {
    Box::new(Entropy::new(EntropySource::Seeded(1)))
}

fn request(driver: &mut Driver) {
    driver.add(0, &[(RAM + 0x8000, 4, true)]);
    driver.notify(0);
}

#[test]
fn identification_registers() {
    for (interface, version) in [(Interface::Legacy, 1), (Interface::Modern, 2)] {
        let driver = Driver::bare(interface, entropy());
        assert_eq!(driver.read(0x000), 0x7472_6976);
        assert_eq!(driver.read(0x004), version);
        assert_eq!(driver.read(0x008), 4);
        let empty = VirtioMmio::empty(interface);
        let read = |offset| lock(&empty).read(offset, Width::Word).unwrap();
        assert_eq!((read(0), read(4), read(8)), (0x7472_6976, version.into(), 0));
        lock(&empty).write(0x70, Width::Word, 0xf).unwrap();
        lock(&empty).write(0x50, Width::Word, 0).unwrap();
        assert_eq!((read(0x70), read(0x100)), (0, 0));
    }
}

#[test]
fn the_modern_interface_offers_version_1() {
    let driver = Driver::bare(Interface::Modern, entropy());
    assert_eq!(driver.read(0x10), 1 << 28 | 1 << 29);
    driver.write(0x14, 1);
    assert_eq!(driver.read(0x10), 1);
    driver.write(0x14, 2);
    assert_eq!(driver.read(0x10), 0);
    driver.write(0x70, 3);
    driver.write(0x24, 1);
    driver.write(0x20, 1 | 1 << 8);
    driver.write(0x70, 0xb);
    assert_eq!(driver.read(0x70), 3, "with a feature that is not offered");
    driver.write(0x70, 7);
    assert_eq!(driver.read(0x70), 3, "DRIVER_OK without FEATURES_OK");
    driver.write(0x20, 1);
    driver.write(0x70, 0xb);
    assert_eq!(driver.read(0x70), 0xb);
}

#[test]
fn requests_are_served_over_both_interfaces() {
    for interface in [Interface::Legacy, Interface::Modern] {
        let mut driver = Driver::new(interface, entropy(), 0);
        request(&mut driver);
        assert_eq!(driver.used(0), [(0, 4)]);
        assert_eq!((driver.read(0x60), driver.irq.level()), (1, true));
        driver.write(0x64, 1);
        assert_eq!((driver.read(0x60), driver.irq.level()), (0, false));
    }
}

/// As xv6 does it.
#[test]
fn a_driver_may_leave_version_1_alone() {
    let driver = Driver::bare(Interface::Modern, entropy());
    driver.write(0x70, 3);
    driver.write(0x20, 0);
    driver.write(0x70, 0xb);
    assert_eq!(driver.read(0x70), 0xb);
}

#[test]
fn legacy_queues_read_back_their_page_frame() {
    let driver = Driver::new(Interface::Legacy, entropy(), 0);
    assert_eq!(driver.read(0x40), (RAM / 0x1000) as u32);
    driver.write(0x40, 0);
    assert_eq!(driver.read(0x40), 0);
    driver.write(0x30, 1);
    assert_eq!((driver.read(0x34), driver.read(0x40)), (0, 0), "no queue 1");
    driver.write(0x14, 1);
    assert_eq!(driver.read(0x10), 0, "no VERSION_1");
}

#[test]
fn nothing_happens_before_driver_ok_and_everything_at_it() {
    let mut driver = Driver::bare(Interface::Modern, entropy());
    driver.initialise(Interface::Modern, 0);
    driver.write(0x70, 0xb);
    request(&mut driver);
    assert_eq!(driver.used(0), []);
    driver.write(0x70, 0xf);
    assert_eq!(driver.used(0), [(0, 4)]);
}

#[test]
fn a_broken_queue_needs_a_reset_and_works_after_it() {
    let mut driver = Driver::new(Interface::Modern, entropy(), 0);
    driver.publish(0, QUEUE_SIZE);
    driver.notify(0);
    assert_eq!(driver.read(0x70), 0x4f);
    assert_eq!((driver.read(0x60), driver.irq.level()), (2, true));
    driver.write(0x70, 0xf);
    assert_eq!(driver.read(0x70), 0x4f, "only a reset takes it away");
    request(&mut driver);
    assert_eq!(driver.used(0), []);
    driver.write(0x70, 0);
    assert_eq!((driver.read(0x70), driver.read(0x60), driver.irq.level()), (0, 0, false));
    driver.memory.store(available(0), 0_u32).unwrap();
    driver.initialise(Interface::Modern, 0);
    request(&mut driver);
    assert_eq!(driver.used(0).len(), 1);
}

#[test]
fn an_unsound_queue_is_not_enabled() {
    let driver = Driver::new(Interface::Modern, entropy(), 0);
    driver.write(0x44, 0);
    driver.write(0x80, descriptors(0) as u32 + 8);
    driver.write(0x44, 1);
    assert_eq!((driver.read(0x44), driver.read(0x70)), (0, 0x4f));
    let legacy = Driver::bare(Interface::Legacy, entropy());
    legacy.write(0x28, 0x1000);
    legacy.write(0x38, 8);
    legacy.write(0x3c, 3);
    legacy.write(0x40, 0x80000);
    assert_eq!(legacy.read(0x40), 0);
    legacy.write(0x3c, 0x8000_0000);
    legacy.write(0x28, 0x8000_0000);
    legacy.write(0x40, u32::MAX);
    assert_eq!(legacy.read(0x40), 0);
}

#[test]
fn registers_take_words_and_configuration_any_width() {
    let driver = Driver::bare(Interface::Modern, entropy());
    let mut slot = lock(&driver.slot);
    assert_eq!(slot.read(0, Width::Byte), Err(BusError::Width));
    assert_eq!(slot.read(2, Width::Word), Err(BusError::Width));
    assert_eq!(slot.write(0x70, Width::Double, 0), Err(BusError::Width));
    for width in Width::ALL {
        assert_eq!(slot.read(0x1000 - width.bytes(), width), Ok(0));
        assert_eq!(slot.write(0x101, width, 0), Ok(()));
    }
    drop(slot);
    assert_eq!((driver.read(0xb0), driver.read(0xbc)), (u32::MAX, u32::MAX));
}

#[test]
fn a_saved_slot_goes_on() {
    let mut first = Driver::new(Interface::Modern, entropy(), Driver::EVENT_IDX);
    request(&mut first);
    let saved = lock(&first.slot).save();
    let second =
        VirtioMmio::new(Interface::Modern, entropy(), first.memory.clone(), first.irq.clone());
    first.slot = second;
    lock(&first.slot).restore(&saved).unwrap();
    assert_eq!(lock(&first.slot).save(), saved);
    assert_eq!(first.read(0x60), 1);
    request(&mut first);
    assert_eq!(first.used(0), [(0, 4), (1, 4)]);
}

#[test]
fn impossible_saved_states_are_refused() {
    let driver = Driver::new(Interface::Modern, entropy(), 0);
    let saved = lock(&driver.slot).save();
    let legacy = Driver::bare(Interface::Legacy, entropy());
    assert!(lock(&legacy.slot).restore(&saved).is_err());
    let empty = VirtioMmio::empty(Interface::Modern);
    assert!(lock(&empty).restore(&saved).is_err());
    let mut state: MmioState = saved.decode(STATE_VERSION).unwrap();
    state.interrupt_status = 4;
    let bad = SavedDevice::encode(STATE_VERSION, &state);
    assert!(lock(&driver.slot).restore(&bad).is_err());
    // Any one byte may be wrong: the state is taken or refused, and the slot then still works.
    for index in 0..saved.bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bad = saved.clone();
            bad.bytes[index] ^= flip;
            let _ = lock(&driver.slot).restore(&bad);
            driver.notify(0);
            for offset in (0..0x100).step_by(4) {
                driver.read(offset);
            }
        }
    }
}
