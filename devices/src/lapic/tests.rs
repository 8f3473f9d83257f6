//! Expected values: Intel SDM vol. 3, chapter 11, sections and tables as named.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use super::registers::{MSR_APIC_BASE, MSR_TSC_DEADLINE};
use super::*;
use crate::bus::lock;

pub(super) const TPR: u64 = 0x80;
pub(super) const PPR: u64 = 0xa0;
pub(super) const EOI: u64 = 0xb0;
pub(super) const LDR: u64 = 0xd0;
pub(super) const DFR: u64 = 0xe0;
pub(super) const SVR: u64 = 0xf0;
pub(super) const ESR: u64 = 0x280;
pub(super) const ICR_LOW: u64 = 0x300;
pub(super) const ICR_HIGH: u64 = 0x310;
pub(super) const LINT0: u64 = 0x350;
pub(super) const LINT1: u64 = 0x360;
pub(super) const LVT_ERROR: u64 = 0x370;

/// Counts the calls to each CPU.
#[derive(Default)]
pub(super) struct Calls([AtomicUsize; 4]);

impl CpuAttention for Calls {
    fn call(&self, cpu: usize) {
        self.0[cpu].fetch_add(1, Ordering::SeqCst);
    }
}

impl Calls {
    pub(super) fn take(&self, cpu: usize) -> usize {
        self.0[cpu].swap(0, Ordering::SeqCst)
    }
}

/// Four CPUs with the ids 0, 1, 2 and 18.
pub(super) struct Rig {
    pub(super) lapics: Arc<Lapics>,
    pub(super) calls: Arc<Calls>,
    pub(super) clock: Clock,
    pub(super) timers: TimerQueue,
}

/// Two ticks a nanosecond.
struct TwoGhz(Clock);

impl Tsc for TwoGhz {
    fn now(&self, _cpu: usize) -> u64 {
        self.0.now() * 2
    }
    fn deadline(&self, _cpu: usize, tsc: u64) -> u64 {
        tsc.div_ceil(2)
    }
}

pub(super) fn rig() -> Rig {
    let (clock, timers, calls) =
        (Clock::deterministic(), TimerQueue::new(), Arc::new(Calls::default()));
    let config = Config {
        ids: vec![0, 1, 2, 18],
        physical_bits: 40,
        x2apic: true,
        tsc: Some(Arc::new(TwoGhz(clock.clone()))),
    };
    let lapics = Lapics::new(config, clock.clone(), &timers, calls.clone());
    Rig { lapics, calls, clock, timers }
}

impl Rig {
    pub(super) fn read(&self, cpu: usize, offset: u64) -> u64 {
        self.lapics.read(cpu, offset, Width::Word).unwrap()
    }
    pub(super) fn write(&self, cpu: usize, offset: u64, value: u64) {
        self.lapics.write(cpu, offset, Width::Word, value).unwrap();
    }
    pub(super) fn enable(&self) {
        (0..4).for_each(|cpu| self.write(cpu, SVR, 0x1ff));
    }
    fn msr(&self, cpu: usize, msr: u32) -> Result<u64, MsrFault> {
        self.lapics.read_msr(cpu, msr)
    }
    fn set_msr(&self, cpu: usize, msr: u32, value: u64) -> Result<(), MsrFault> {
        self.lapics.write_msr(cpu, msr, value)
    }
    fn x2apic(&self, cpu: usize) {
        let base = self.msr(cpu, MSR_APIC_BASE).unwrap();
        self.set_msr(cpu, MSR_APIC_BASE, base | BASE_EXTD).unwrap();
    }
    fn ipi(&self, cpu: usize, destination: u64, command: u64) {
        self.write(cpu, ICR_HIGH, destination << 24);
        self.write(cpu, ICR_LOW, command);
    }
    /// Which CPUs have an interrupt pending; it is taken and ended.
    fn receivers(&self) -> Vec<usize> {
        let taken = (0..4).filter(|&cpu| self.lapics.acknowledge(cpu).is_some()).collect();
        (0..4).for_each(|cpu| self.lapics.end_of_interrupt(cpu));
        taken
    }
}

#[test]
fn the_state_after_power_on() {
    // Section 11.4.7.1; version: section 11.4.8.
    let rig = rig();
    assert_eq!(rig.read(3, 0x20), 18 << 24);
    assert_eq!(rig.read(0, 0x30), 0x0105_0014);
    assert_eq!((rig.read(0, DFR), rig.read(0, SVR), rig.read(0, LDR)), (0xffff_ffff, 0xff, 0));
    for entry in 0x32..=0x37 {
        assert_eq!(rig.read(0, entry << 4), 0x1_0000);
    }
    assert_eq!(rig.msr(0, MSR_APIC_BASE), Ok(0xfee0_0900));
    assert_eq!(rig.msr(1, MSR_APIC_BASE), Ok(0xfee0_0800));
    assert_eq!(rig.lapics.mmio_base(1), Some(0xfee0_0000));
}

#[test]
fn vectors_are_taken_by_priority_and_ended_in_turn() {
    let rig = rig();
    rig.enable();
    for vector in [0x31, 0x35, 0x52] {
        rig.write(0, ICR_LOW, 0x4_0000 | vector);
    }
    assert_eq!(rig.calls.take(0), 3);
    assert_eq!(rig.read(0, 0x210), 1 << 17 | 1 << 21, "IRR of 0x31 and 0x35");
    assert_eq!(rig.lapics.acknowledge(0), Some(0x52));
    assert_eq!((rig.read(0, PPR), rig.read(0, 0x120)), (0x50, 1 << 18));
    assert!(!rig.lapics.interrupt_pending(0), "the class 3 is below 5");
    rig.write(0, EOI, 0);
    assert_eq!(rig.calls.take(0), 1, "the end lets the next one through");
    assert_eq!(rig.lapics.acknowledge(0), Some(0x35));
    assert_eq!(rig.lapics.acknowledge(0), None, "same class as the one in service");
    rig.write(0, EOI, 0);
    assert_eq!(rig.lapics.acknowledge(0), Some(0x31));
}

#[test]
fn the_task_priority_holds_back_its_class_and_those_below() {
    // Section 11.8.3.1: PPR is TPR if its class is not below that of the ISR vector.
    let rig = rig();
    rig.enable();
    rig.write(0, TPR, 0x1_004f);
    assert_eq!((rig.read(0, TPR), rig.read(0, PPR), rig.lapics.cr8(0)), (0x4f, 0x4f, 4));
    rig.write(0, ICR_LOW, 0x4_0041);
    assert!(!rig.lapics.interrupt_pending(0));
    rig.lapics.set_cr8(0, 3);
    assert_eq!(rig.read(0, TPR), 0x30);
    assert!(rig.lapics.interrupt_pending(0));
    assert_eq!(rig.calls.take(0), 2, "once when it came, once when the priority fell");
}

#[test]
fn destinations_of_xapic_mode() {
    let rig = rig();
    rig.enable();
    for (destination, receivers) in
        [(1, vec![1]), (18, vec![3]), (3, vec![]), (0xff, vec![0, 1, 2, 3])]
    {
        rig.ipi(0, destination, 0x4050);
        assert_eq!(rig.receivers(), receivers, "physical {destination:#x}");
    }
    for (shorthand, receivers) in [(1, vec![2]), (2, vec![0, 1, 2, 3]), (3, vec![0, 1, 3])] {
        rig.ipi(2, 0, shorthand << 18 | 0x4050);
        assert_eq!(rig.receivers(), receivers, "shorthand {shorthand}");
    }
    // Flat model: a bit each.
    (0..4).for_each(|cpu| rig.write(cpu, LDR, 1 << (24 + cpu)));
    for (destination, receivers) in [(0b101, vec![0, 2]), (0xff, vec![0, 1, 2, 3]), (0x10, vec![])]
    {
        rig.ipi(3, destination, 0x4850);
        assert_eq!(rig.receivers(), receivers, "flat {destination:#x}");
    }
    // Cluster model: cluster in bits 7 to 4, members in bits 3 to 0.
    for (cpu, logical) in [0x11, 0x12, 0x21, 0x28].into_iter().enumerate() {
        rig.write(cpu, DFR, 0);
        rig.write(cpu, LDR, logical << 24);
    }
    for (destination, receivers) in
        [(0x13, vec![0, 1]), (0x28, vec![3]), (0xf1, vec![0, 2]), (0x31, vec![])]
    {
        rig.ipi(0, destination, 0x4850);
        assert_eq!(rig.receivers(), receivers, "cluster {destination:#x}");
    }
    assert_eq!(rig.read(0, DFR), 0x0fff_ffff);
}

#[test]
fn the_lowest_priority_receives() {
    let rig = rig();
    rig.enable();
    for (cpu, tpr) in [0x50, 0x20, 0x30, 0].into_iter().enumerate() {
        rig.write(cpu, LDR, 1 << (24 + cpu));
        rig.write(cpu, TPR, tpr);
    }
    rig.ipi(0, 0b0111, 0x4960);
    assert_eq!(rig.receivers(), [1]);
    rig.write(1, SVR, 0xff);
    rig.ipi(0, 0b0111, 0x4960);
    assert_eq!(rig.receivers(), [2], "a disabled one takes no part");
}

#[test]
fn init_start_up_and_nmi_are_requests() {
    let rig = rig();
    rig.write(1, SVR, 0x1ff);
    rig.write(1, TPR, 0x20);
    rig.ipi(0, 1, 0x4500);
    rig.ipi(0, 1, 0x8500); // level de-assert does nothing
    rig.ipi(0, 1, 0x4609);
    rig.ipi(0, 1, 0x460a);
    assert!(rig.lapics.has_requests(1) && rig.calls.take(1) > 0);
    let expected = Requests { init: true, startup: Some(9), nmi: false };
    assert_eq!(rig.lapics.take_requests(1), expected);
    assert_eq!((rig.read(1, TPR), rig.read(1, SVR)), (0, 0xff), "INIT resets the LAPIC");
    assert_eq!(rig.read(1, 0x20), 1 << 24);
    assert_eq!(rig.lapics.take_requests(1), Requests::default());
    for _ in 0..3 {
        rig.ipi(0, 1, 0x4400);
    }
    assert!(rig.lapics.take_requests(1).nmi && rig.lapics.has_requests(1));
    assert!(rig.lapics.take_requests(1).nmi, "one is served, one waits");
    assert!(!rig.lapics.has_requests(1), "more are lost");
    rig.ipi(0, 1, 0x460a);
    rig.ipi(0, 1, 0x4500);
    let expected = Requests { init: true, startup: None, nmi: false };
    assert_eq!(rig.lapics.take_requests(1), expected, "INIT after the start-up message");
}

#[test]
fn a_disabled_lapic_accepts_nothing_but_keeps_what_it_has() {
    // Section 11.4.7.2.
    let rig = rig();
    rig.enable();
    rig.write(1, LVT_ERROR, 0x60);
    rig.ipi(0, 1, 0x4050);
    rig.write(1, SVR, 0xff);
    assert_eq!(rig.read(1, LVT_ERROR), 0x1_0060);
    rig.write(1, LVT_ERROR, 0x60);
    assert_eq!(rig.read(1, LVT_ERROR), 0x1_0060, "the mask bit cannot be cleared");
    rig.ipi(0, 1, 0x4051);
    rig.ipi(0, 1, 0x4400);
    assert!(rig.lapics.take_requests(1).nmi);
    assert_eq!(rig.lapics.acknowledge(1), Some(0x50));
    assert_eq!(rig.lapics.acknowledge(1), None);
}

#[test]
fn errors_show_after_a_write_and_interrupt_once() {
    // Section 11.5.3, figure 11-9.
    let rig = rig();
    rig.enable();
    rig.write(0, LVT_ERROR, 0xfe);
    rig.write(0, ICR_LOW, 0x4_000f);
    assert_eq!(rig.lapics.acknowledge(0), Some(0xfe));
    rig.write(0, EOI, 0);
    assert_eq!(rig.read(0, 0x40), 0, "no such register");
    assert_eq!(rig.lapics.acknowledge(0), None, "one interrupt until ESR is written");
    assert_eq!(rig.read(0, ESR), 0);
    rig.write(0, ESR, 0);
    assert_eq!(rig.read(0, ESR), 0xa0);
    rig.write(0, ESR, 0);
    assert_eq!(rig.read(0, ESR), 0);
    rig.lapics.send(Msi { address: 0xfee0_0000, data: 0x05 });
    assert_eq!(rig.lapics.acknowledge(0), Some(0xfe));
    rig.write(0, ESR, 0);
    assert_eq!(rig.read(0, ESR), 0x40);
    rig.write(0, LVT_ERROR, 0x03); // an illegal vector there leads to no second error interrupt
    rig.write(0, ICR_LOW, 0x4_0001);
    rig.write(0, ESR, 0);
    assert_eq!(rig.read(0, ESR), 0x60);
}

#[test]
fn the_page_is_accessed_by_aligned_words() {
    let rig = rig();
    let lapics = &rig.lapics;
    rig.write(0, SVR, 0x1a5);
    assert_eq!(lapics.read(0, 0xf0, Width::Byte), Ok(0xa5));
    assert_eq!(lapics.read(0, 0xf1, Width::Byte), Ok(1));
    assert_eq!(lapics.read(0, 0xf0, Width::Double), Err(BusError::Refused));
    assert_eq!(lapics.read(0, 0xf4, Width::Word), Err(BusError::Refused));
    assert_eq!(lapics.write(0, 0xf0, Width::Byte, 0), Err(BusError::Refused));
    assert_eq!(lapics.write(0, 0xf4, Width::Word, 0), Err(BusError::Refused));
    assert_eq!(lapics.read(0, 0x1000, Width::Word), Err(BusError::Refused));
    assert_eq!(lapics.read(9, 0, Width::Word), Err(BusError::Refused));
    rig.write(0, SVR, 0xffff_ffff);
    assert_eq!(rig.read(0, SVR), 0x13ff);
    rig.write(0, LINT0, 0xffff_ffff);
    assert_eq!(rig.read(0, LINT0), 0x1_a7ff);
    rig.write(0, ICR_LOW, 0xfff3_fb30); // a reserved delivery mode
    assert_eq!(rig.read(0, ICR_LOW), 0xcb30);
}

#[test]
fn level_triggered_ends_are_broadcast() {
    #[derive(Default)]
    struct Ends(Mutex<Vec<u8>>);
    impl EoiSink for Ends {
        fn end_of_interrupt(&self, vector: u8) {
            lock(&self.0).push(vector);
        }
    }
    let rig = rig();
    rig.enable();
    let ends = Arc::new(Ends::default());
    let sink: Arc<dyn EoiSink> = ends.clone();
    rig.lapics.connect_ioapic(Arc::downgrade(&sink));
    let one = |data: u32| {
        rig.lapics.send(Msi { address: 0xfee0_1000, data });
        let vector = rig.lapics.acknowledge(1);
        rig.write(1, EOI, 0);
        vector
    };
    assert_eq!(one(0xc050), Some(0x50));
    assert_eq!(one(0x0051), Some(0x51));
    assert_eq!(one(0xc052), Some(0x52));
    rig.write(1, SVR, 0x11ff);
    assert_eq!(one(0xc053), Some(0x53));
    assert_eq!(*lock(&ends.0), [0x50, 0x52]);
    assert_eq!(rig.read(1, 0x1a0), 1 << 0x10 | 1 << 0x12 | 1 << 0x13, "TMR");
}

#[test]
fn pins_follow_their_entries() {
    struct Pic;
    impl ExtIntSource for Pic {
        fn acknowledge(&self) -> u8 {
            0x08
        }
    }
    let rig = rig();
    let pic: Arc<dyn ExtIntSource> = Arc::new(Pic);
    rig.lapics.connect_pic(Arc::downgrade(&pic));
    let lapics = &rig.lapics;
    lapics.set_level(0, true);
    assert!(!lapics.interrupt_pending(0), "masked after reset");
    rig.enable();
    rig.write(0, LINT0, 0x700);
    rig.write(0, TPR, 0xff);
    assert!(lapics.interrupt_pending(0), "no priority holds back the PIC");
    assert_eq!(lapics.acknowledge(0), Some(8));
    assert_eq!(rig.read(0, 0x100), 0, "nothing is in service");
    lapics.set_level(0, false);
    assert_eq!(lapics.acknowledge(0), None);

    rig.write(0, LINT1, 0x400);
    lapics.set_level(1, true);
    assert!(lapics.take_requests(0).nmi);

    // Level-triggered and fixed: again after the end, while the pin is high.
    rig.write(0, TPR, 0);
    rig.write(0, LINT0, 0x8044);
    lapics.set_level(0, true);
    assert_eq!(rig.read(0, LINT0), 0xc044, "remote IRR");
    assert_eq!(lapics.acknowledge(0), Some(0x44));
    rig.write(0, EOI, 0);
    assert_eq!(lapics.acknowledge(0), Some(0x44));
    lapics.set_level(0, false);
    rig.write(0, EOI, 0);
    assert_eq!((lapics.acknowledge(0), rig.read(0, LINT0)), (None, 0x8044));

    // Edge-triggered: once.
    rig.write(0, LINT0, 0x45);
    lapics.set_level(0, true);
    assert_eq!(lapics.acknowledge(0), Some(0x45));
    rig.write(0, EOI, 0);
    assert_eq!(lapics.acknowledge(0), None);

    // Disabled by IA32_APIC_BASE the pins are INTR and NMI (section 11.4.3).
    rig.set_msr(0, MSR_APIC_BASE, 0xfee0_0100).unwrap();
    assert_eq!(lapics.acknowledge(0), Some(8));
    lapics.set_level(1, false);
    lapics.set_level(1, true);
    assert!(lapics.take_requests(0).nmi);
}

#[test]
fn modes_change_as_figure_11_27_allows() {
    let rig = rig();
    let base = 0xfee0_0100;
    let set = |mode: u64| rig.set_msr(0, MSR_APIC_BASE, base | mode);
    let (disabled, xapic, x2apic, invalid) = (0, BASE_EN, BASE_EN | BASE_EXTD, BASE_EXTD);
    assert_eq!(set(invalid), Err(MsrFault));
    assert_eq!(set(x2apic), Ok(()));
    assert_eq!((set(xapic), set(invalid)), (Err(MsrFault), Err(MsrFault)));
    assert_eq!(set(disabled), Ok(()));
    assert_eq!((set(x2apic), set(invalid)), (Err(MsrFault), Err(MsrFault)));
    assert!(!rig.lapics.is_enabled(0));
    assert_eq!(rig.lapics.mmio_base(0), None);
    assert_eq!(set(xapic), Ok(()));
    // Reserved bits, and a page elsewhere.
    assert_eq!(set(xapic | 1), Err(MsrFault));
    assert_eq!(set(xapic | 1 << 40), Err(MsrFault));
    assert_eq!(rig.set_msr(0, MSR_APIC_BASE, 0xff_ffff_f900), Ok(()));
    assert_eq!(rig.lapics.mmio_base(0), Some(0xff_ffff_f000));
}

#[test]
fn disabling_loses_all_but_cr8() {
    let rig = rig();
    rig.enable();
    rig.write(2, 0x20, 7 << 24);
    rig.lapics.set_cr8(2, 9);
    rig.ipi(0, 7, 0x40f0);
    rig.set_msr(2, MSR_APIC_BASE, 0xfee0_0000).unwrap();
    assert_eq!((rig.lapics.cr8(2), rig.lapics.acknowledge(2)), (9, None));
    rig.ipi(0, 0xff, 0x4400);
    assert_eq!(rig.lapics.take_requests(2), Requests::default(), "it is not on the bus");
    rig.set_msr(2, MSR_APIC_BASE, 0xfee0_0800).unwrap();
    assert_eq!((rig.read(2, 0x20), rig.read(2, SVR)), (2 << 24, 0xff));
}

#[test]
fn x2apic_registers_and_their_faults() {
    // Table 11-6.
    let rig = rig();
    assert_eq!(rig.msr(3, 0x802), Err(MsrFault), "not in xAPIC mode");
    rig.write(3, TPR, 0x20);
    rig.x2apic(3);
    assert_eq!(rig.lapics.mmio_base(3), None);
    assert_eq!(rig.msr(3, 0x802), Ok(18));
    assert_eq!(rig.msr(3, 0x80d), Ok(1 << 16 | 1 << 2), "cluster 1, member 2");
    assert_eq!(rig.msr(3, 0x808), Ok(0x20));
    let no_read = [0x800, 0x801, 0x809, 0x80b, 0x80c, 0x80e, 0x82f, 0x831, 0x83a, 0x83f, 0x840];
    for msr in no_read {
        assert_eq!(rig.msr(3, msr), Err(MsrFault), "reading {msr:#x}");
    }
    for msr in [0x802, 0x803, 0x80a, 0x80d, 0x80e, 0x810, 0x827, 0x831, 0x839, 0x8ff] {
        assert_eq!(rig.set_msr(3, msr, 0), Err(MsrFault), "writing {msr:#x}");
    }
    for (msr, good, bad) in [
        (0x808, 0xff, 0x100),
        (0x80b, 0, 1),
        (0x80f, 0x11ff, 0x2000),
        (0x828, 0, 1),
        (0x832, 0x7_00ff, 0x8_0000),
        (0x835, 0x1_a7ff, 0x800),
        (0x837, 0x1_00ff, 0x100),
        (0x838, 0xffff_ffff, 1 << 32),
        (0x83e, 0xb, 4),
        (0x830, 0x1_000c_40ff, 0x2000),
        (0x83f, 0xff, 0x100),
    ] {
        assert_eq!(rig.set_msr(3, msr, bad), Err(MsrFault), "{bad:#x} to {msr:#x}");
        assert_eq!(rig.set_msr(3, msr, good), Ok(()), "{good:#x} to {msr:#x}");
    }
    assert_eq!(rig.msr(3, 0x830), Ok(0x1_000c_40ff));
    rig.set_msr(3, 0x808, 0).unwrap();
    assert_eq!(rig.lapics.acknowledge(3), Some(0xff), "SELF IPI");
}

#[test]
fn destinations_of_x2apic_mode() {
    let rig = rig();
    rig.enable();
    (0..4).for_each(|cpu| rig.x2apic(cpu));
    for (icr, receivers) in [
        (18 << 32 | 0x4050, vec![3]),
        (0x102 << 32 | 0x4050, vec![]),
        (0xffff_ffff << 32 | 0x4050, vec![0, 1, 2, 3]),
        (0x5 << 32 | 0x4850, vec![0, 2]),
        (0x1_0004 << 32 | 0x4850, vec![3]),
    ] {
        rig.set_msr(0, 0x830, icr).unwrap();
        assert_eq!(rig.receivers(), receivers, "{icr:#x}");
    }
    rig.lapics.send(Msi { address: 0xfee1_2000, data: 0x50 });
    assert_eq!(rig.receivers(), [3], "a message of 8 bits names the id 18");
    rig.lapics.send(Msi { address: 0xfeef_f000, data: 0x50 });
    assert_eq!(rig.receivers(), [0, 1, 2, 3]);
}

#[test]
fn writes_of_devices_to_the_range_are_messages() {
    let rig = rig();
    rig.enable();
    let mut device = LapicDevice(rig.lapics.clone());
    device.write(0x2000, Width::Word, 0x61).unwrap();
    assert_eq!(rig.lapics.acknowledge(2), Some(0x61));
    assert_eq!(device.write(0x2000, Width::Byte, 0x61), Err(BusError::Refused));
    assert_eq!(device.read(0x30, Width::Word), Err(BusError::Refused));
}

#[test]
fn a_saved_machine_goes_on() {
    let first = rig();
    first.enable();
    first.write(1, TPR, 0x10);
    first.ipi(0, 1, 0x4050);
    first.ipi(0, 1, 0x4400);
    first.lapics.set_level(0, true);
    first.write(0, LINT0, 0x700);
    first.x2apic(3);
    first.set_msr(1, MSR_TSC_DEADLINE, 5).unwrap(); // not in that mode: ignored
    let saved = LapicDevice(first.lapics.clone()).save();
    let second = rig();
    let mut device = LapicDevice(second.lapics.clone());
    device.restore(&saved).unwrap();
    assert!(second.calls.take(1) > 0, "restored CPUs look again");
    assert_eq!(device.save(), saved);
    assert_eq!(second.lapics.acknowledge(1), Some(0x50));
    assert!(second.lapics.take_requests(1).nmi);
    assert!(second.lapics.interrupt_pending(0), "the pin is high");
    assert_eq!(second.msr(3, 0x802), Ok(18));

    let mut state: LapicsState = saved.decode(VERSION).unwrap();
    state.locals.pop();
    let short = SavedDevice::encode(VERSION, &state);
    assert_eq!(device.restore(&short), Err(RestoreError::Invalid("number of LAPICs")));
    device.reset();
    assert_eq!(second.msr(3, MSR_APIC_BASE), Ok(0xfee0_0800));
    assert_eq!(second.lapics.take_requests(1), Requests::default());
}

#[test]
fn no_message_between_threads_is_lost() {
    // Three CPUs send, the first takes; every vector sent while none was pending is taken.
    const ROUNDS: usize = 20_000;
    let end = Instant::now() + Duration::from_secs(60);
    let wait = || {
        assert!(Instant::now() < end, "a message was lost");
        std::thread::yield_now();
    };
    let rig = rig();
    rig.enable();
    let taken: [AtomicBool; 3] = Default::default();
    std::thread::scope(|scope| {
        for cpu in 1..4 {
            let (rig, taken) = (&rig, &taken);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    rig.ipi(cpu, 0, 0x4040 + 0x10 * cpu as u64);
                    while !taken[cpu - 1].swap(false, Ordering::SeqCst) {
                        wait();
                    }
                }
            });
        }
        let mut count = 0;
        while count < 3 * ROUNDS {
            if rig.calls.take(0) == 0 {
                wait();
                continue;
            }
            while let Some(vector) = rig.lapics.acknowledge(0) {
                rig.write(0, EOI, 0);
                taken[usize::from(vector) / 0x10 - 5].store(true, Ordering::SeqCst);
                count += 1;
            }
        }
    });
    assert!(!rig.lapics.interrupt_pending(0));
}
