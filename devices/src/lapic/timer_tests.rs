//! The timer. Expected values: Intel SDM vol. 3, section 11.5.4, one tick a nanosecond.

use super::registers::{MSR_APIC_BASE, MSR_TSC_DEADLINE};
use super::tests::{EOI, Rig, rig};
use super::*;

const LVT_TIMER: u64 = 0x320;
const INITIAL: u64 = 0x380;
const CURRENT: u64 = 0x390;
const DIVIDE: u64 = 0x3e0;

impl Rig {
    fn pass(&self, until: u64) {
        self.clock.advance_to(until);
        self.timers.fire_due(until);
    }
    /// Takes and ends the timer's interrupt.
    fn rang(&self) -> bool {
        let vector = self.lapics.acknowledge(0);
        self.write(0, EOI, 0);
        vector == Some(0xe0)
    }
}

#[test]
fn one_shot_counts_down_once() {
    let rig = rig();
    rig.enable();
    rig.write(0, LVT_TIMER, 0xe0);
    rig.write(0, DIVIDE, 0b1011); // by 1
    rig.write(0, INITIAL, 1000);
    assert_eq!(rig.read(0, CURRENT), 1000);
    rig.pass(400);
    assert_eq!((rig.read(0, CURRENT), rig.rang()), (600, false));
    rig.pass(1000);
    assert!(rig.rang());
    assert_eq!((rig.read(0, CURRENT), rig.read(0, INITIAL)), (0, 1000));
    rig.write(0, LVT_TIMER, 0x2_00e0);
    rig.pass(5000);
    assert!(!rig.rang(), "a change of mode does not start it");
}

#[test]
fn every_divisor_of_figure_11_10() {
    let rig = rig();
    rig.enable();
    let codes = [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)];
    for (code, divisor) in codes {
        rig.write(0, DIVIDE, code);
        rig.write(0, INITIAL, 3);
        assert_eq!(rig.timers.next_deadline(), Some(3 * divisor), "divide by {divisor}");
    }
    // By 1, three left: by 16 those three take 48.
    rig.write(0, DIVIDE, 3);
    assert_eq!((rig.read(0, CURRENT), rig.timers.next_deadline()), (3, Some(48)));
    rig.write(0, INITIAL, 0);
    assert_eq!(rig.timers.next_deadline(), None);
}

#[test]
fn periodic_goes_on_without_drift() {
    let rig = rig();
    rig.enable();
    rig.write(0, DIVIDE, 0b1011);
    rig.write(0, LVT_TIMER, 0x2_00e0);
    rig.write(0, INITIAL, 100_000);
    rig.pass(100_007); // late
    assert!(rig.rang());
    assert_eq!(rig.read(0, CURRENT), 99_993);
    assert_eq!(rig.timers.next_deadline(), Some(200_000));
    rig.pass(1_250_000);
    assert!(rig.rang() && !rig.rang(), "what was missed is one interrupt");
    assert_eq!(rig.timers.next_deadline(), Some(1_300_000));
    rig.write(0, LVT_TIMER, 0xe0);
    assert_eq!(rig.read(0, CURRENT), 50_000, "one-shot goes on from there");
    rig.pass(1_300_000);
    assert!(rig.rang());
    assert_eq!(rig.timers.next_deadline(), None);
}

#[test]
fn a_count_of_one_does_not_stop_the_host() {
    let rig = rig();
    rig.enable();
    rig.write(0, DIVIDE, 0b1011);
    rig.write(0, LVT_TIMER, 0x2_00e0);
    rig.write(0, INITIAL, 1);
    rig.pass(50_000);
    assert!(rig.rang());
    assert_eq!(rig.timers.next_deadline(), Some(60_000));
}

#[test]
fn a_masked_timer_counts_silently() {
    let rig = rig();
    rig.enable();
    rig.write(0, LVT_TIMER, 0x1_00e0);
    rig.write(0, INITIAL, 50);
    rig.pass(60);
    assert_eq!(rig.read(0, CURRENT), 20, "reset divides by 2");
    rig.pass(100);
    rig.write(0, LVT_TIMER, 0xe0);
    assert!(!rig.rang());
}

#[test]
fn the_tsc_deadline_rings_at_its_count() {
    // The counter runs at 2 GHz.
    let rig = rig();
    rig.enable();
    let set = |tsc: u64| rig.lapics.write_msr(0, MSR_TSC_DEADLINE, tsc).unwrap();
    let get = || rig.lapics.read_msr(0, MSR_TSC_DEADLINE).unwrap();
    set(100);
    assert_eq!(get(), 0, "another mode");
    rig.write(0, LVT_TIMER, 0x4_00e0);
    set(1001);
    assert_eq!((get(), rig.timers.next_deadline()), (1001, Some(501)));
    rig.write(0, INITIAL, 7);
    assert_eq!((rig.read(0, INITIAL), rig.read(0, CURRENT)), (0, 0), "ignored in this mode");
    rig.pass(500);
    assert!(!rig.rang());
    rig.pass(501);
    assert!(rig.rang());
    assert_eq!(get(), 0);
    set(900);
    assert!(rig.rang(), "in the past: at once");
    set(5000);
    set(0);
    assert_eq!(rig.timers.next_deadline(), None, "0 disarms");
    set(5000);
    rig.write(0, LVT_TIMER, 0xe0);
    assert_eq!((get(), rig.timers.next_deadline()), (0, None), "leaving the mode disarms");
}

#[test]
fn without_a_counter_there_is_no_deadline_mode() {
    let calls: Arc<dyn CpuAttention> = Arc::new(super::tests::Calls::default());
    let config = Config { ids: vec![0], physical_bits: 36, x2apic: false, tsc: None };
    let lapics = Lapics::new(config, Clock::deterministic(), &TimerQueue::new(), calls);
    assert_eq!(lapics.read_msr(0, MSR_TSC_DEADLINE), Err(MsrFault));
    assert_eq!(lapics.write_msr(0, MSR_TSC_DEADLINE, 0), Err(MsrFault));
    lapics.write(0, LVT_TIMER, Width::Word, 0x4_00e0).unwrap();
    assert_eq!(lapics.read(0, LVT_TIMER, Width::Word), Ok(0x1_00e0));
    let x2apic = 0xfee0_0100 | BASE_EN | BASE_EXTD;
    assert_eq!(lapics.write_msr(0, MSR_APIC_BASE, x2apic), Err(MsrFault));
}

#[test]
fn a_saved_timer_rings_after_restoring() {
    let first = rig();
    first.enable();
    first.write(0, LVT_TIMER, 0xe0);
    first.write(0, INITIAL, 1000);
    let saved = LapicDevice(first.lapics.clone()).save();
    let second = rig();
    LapicDevice(second.lapics.clone()).restore(&saved).unwrap();
    assert_eq!(second.timers.next_deadline(), Some(2000));
    second.pass(2000);
    assert!(second.rang());
}
