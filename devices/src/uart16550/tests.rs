use super::*;
use crate::serial::tests::Captured;

struct Rig {
    uart: Arc<Mutex<Uart16550>>,
    input: SerialInput,
    output: Captured,
    clock: Clock,
    timers: TimerQueue,
    irq: IrqLine,
}

fn rig_with(config: Config) -> Rig {
    let (clock, timers) = (Clock::deterministic(), TimerQueue::new());
    let (irq, output) = (IrqLine::unconnected(), Captured::default());
    let (uart, input) =
        Uart16550::new(config, clock.clone(), &timers, irq.clone(), Box::new(output.clone()));
    Rig { uart, input, output, clock, timers, irq }
}

fn rig() -> Rig {
    rig_with(Config::default())
}

impl Rig {
    fn read(&self, register: u64) -> u8 {
        lock(&self.uart).read(register, Width::Byte).unwrap() as u8
    }
    fn write(&self, register: u64, value: u8) {
        lock(&self.uart).write(register, Width::Byte, value.into()).unwrap();
    }
    fn pass(&self, ns: u64) {
        self.clock.advance_to(self.clock.now() + ns);
        self.timers.fire_due(self.clock.now());
    }
    fn drain(&self) -> Vec<u8> {
        std::iter::from_fn(|| (self.read(LSR) & 1 != 0).then(|| self.read(RBR_THR_DLL))).collect()
    }
}

#[test]
fn registers_after_master_reset() {
    let rig = rig();
    let values: Vec<u8> = (0..8).map(|register| rig.read(register)).collect();
    assert_eq!(values, [0, 0, 0x01, 0, 0, 0x60, 0xb0, 0]);
    assert!(!rig.irq.level());
}

#[test]
fn unused_bits_read_as_zero_and_scratch_keeps_all() {
    let rig = rig();
    for (register, kept) in [(IER_DLM, 0x0f), (MCR, 0x1f), (LCR, 0x7f), (SCR, 0xff)] {
        rig.write(register, if register == LCR { 0x7f } else { 0xff });
        assert_eq!(rig.read(register), kept);
    }
}

#[test]
fn the_divisor_latch_hides_data_and_ier() {
    let rig = rig();
    rig.write(LCR, 0x83);
    rig.write(RBR_THR_DLL, 0x34);
    rig.write(IER_DLM, 0x12);
    assert_eq!((rig.read(RBR_THR_DLL), rig.read(IER_DLM)), (0x34, 0x12));
    rig.write(LCR, 0x03);
    assert_eq!((rig.read(RBR_THR_DLL), rig.read(IER_DLM)), (0, 0));
    assert!(rig.output.take().is_empty());
}

#[test]
fn the_stride_moves_registers_apart() {
    let rig = rig_with(Config { register_shift: 2, ..Config::default() });
    lock(&rig.uart).write(SCR << 2, Width::Word, 0x5a).unwrap();
    assert_eq!(lock(&rig.uart).read(SCR << 2, Width::Word), Ok(0x5a));
    assert_eq!(lock(&rig.uart).read(8 << 2, Width::Word), Err(BusError::Refused));
}

#[test]
fn output_leaves_at_once() {
    let rig = rig();
    b"hello".iter().for_each(|&byte| rig.write(RBR_THR_DLL, byte));
    assert_eq!(rig.output.take(), b"hello");
    assert_eq!(rig.read(LSR), 0x60);
}

#[test]
fn thre_interrupt_is_taken_back_by_iir_and_caused_by_thr_or_ier() {
    let rig = rig();
    rig.write(IER_DLM, 2);
    assert!(rig.irq.level(), "enabling with THR empty causes it");
    assert_eq!(rig.read(IIR_FCR), 0x02);
    assert!(!rig.irq.level());
    assert_eq!(rig.read(IIR_FCR), 0x01);
    rig.write(RBR_THR_DLL, b'x');
    assert!(rig.irq.level());
    rig.write(IER_DLM, 0);
    assert!(!rig.irq.level());
    rig.write(IER_DLM, 2);
    rig.write(IER_DLM, 2);
    assert_eq!(rig.read(IIR_FCR), 0x02);
    rig.write(IER_DLM, 3);
    assert!(!rig.irq.level(), "already enabled: no edge, no interrupt");
}

#[test]
fn reading_iir_takes_back_only_what_it_reported() {
    let rig = rig();
    rig.input.push(b"a");
    rig.write(IER_DLM, 3);
    assert_eq!(rig.read(IIR_FCR), 0x04);
    assert_eq!(rig.read(RBR_THR_DLL), b'a');
    assert_eq!(rig.read(IIR_FCR), 0x02);
    assert_eq!(rig.read(IIR_FCR), 0x01);
}

#[test]
fn without_fifo_one_character_waits_and_none_is_lost() {
    let rig = rig();
    rig.write(IER_DLM, 1);
    assert_eq!(rig.input.push(b"abc"), 3);
    assert_eq!(rig.input.pending(), 2);
    assert!(rig.irq.level());
    assert_eq!(rig.drain(), b"abc");
    assert!(!rig.irq.level());
    assert_eq!(rig.read(LSR), 0x60);
}

#[test]
fn trigger_levels_raise_the_interrupt() {
    for (fcr, level) in [(0x01, 1), (0x41, 4), (0x81, 8), (0xc1, 14)] {
        let rig = rig();
        rig.write(IIR_FCR, fcr);
        rig.write(IER_DLM, 1);
        for _ in 1..level {
            rig.input.push(b"x");
            assert!(!rig.irq.level());
        }
        rig.input.push(b"x");
        assert!(rig.irq.level());
        assert_eq!(rig.read(IIR_FCR), 0xc4);
        rig.read(RBR_THR_DLL);
        assert!(!rig.irq.level(), "below the trigger again");
    }
}

#[test]
fn the_fifo_holds_sixteen_and_refills_from_the_host() {
    let rig = rig();
    rig.write(IIR_FCR, 0x01);
    let paste: Vec<u8> = (0..200).collect();
    assert_eq!(rig.input.push(&paste), 200);
    assert_eq!(rig.input.pending(), 184);
    assert_eq!(rig.drain(), paste);
}

#[test]
fn characters_below_the_trigger_time_out() {
    let rig = rig();
    // 115200 baud from 3.6864 MHz, 8N1: a character takes 86.8 us.
    rig.write(LCR, 0x83);
    rig.write(RBR_THR_DLL, 2);
    rig.write(IER_DLM, 0);
    rig.write(LCR, 0x03);
    rig.write(IIR_FCR, 0xc1);
    rig.write(IER_DLM, 1);
    rig.input.push(b"ab");
    rig.pass(347_000);
    assert!(!rig.irq.level());
    rig.pass(1_000);
    assert!(rig.irq.level());
    assert_eq!(rig.read(IIR_FCR), 0xcc);
    assert_eq!(rig.read(RBR_THR_DLL), b'a');
    assert!(!rig.irq.level(), "reading a character clears the timeout");
    rig.pass(348_000);
    assert_eq!(rig.read(IIR_FCR), 0xcc);
    assert_eq!(rig.read(RBR_THR_DLL), b'b');
    rig.pass(1_000_000);
    assert_eq!(rig.read(IIR_FCR), 0xc1);
    assert_eq!(rig.timers.next_deadline(), None);
}

#[test]
fn bytes_typed_before_a_fifo_reset_arrive_after_it() {
    let rig = rig();
    rig.input.push(b"abc");
    rig.write(IIR_FCR, 0x01);
    rig.write(IIR_FCR, 0x07);
    rig.write(IIR_FCR, 0x00);
    rig.write(IIR_FCR, 0x01);
    assert_eq!(rig.drain(), b"abc");
}

#[test]
fn loopback_returns_what_was_sent_and_overruns() {
    let rig = rig();
    rig.write(IIR_FCR, 0x01);
    rig.write(MCR, 0x10);
    rig.input.push(b"from outside");
    (0..17).for_each(|byte| rig.write(RBR_THR_DLL, byte));
    rig.write(IER_DLM, 4);
    assert_eq!(rig.read(IIR_FCR), 0xc6);
    assert_eq!(rig.read(LSR), 0x63);
    assert_eq!(rig.read(LSR), 0x61, "reading LSR clears the overrun");
    assert_eq!(rig.drain(), (0..16).collect::<Vec<u8>>());
    assert!(rig.output.take().is_empty());
    rig.write(MCR, 0);
    assert_eq!(rig.drain(), b"from outside");
}

#[test]
fn loopback_without_fifo_overwrites_rbr() {
    let rig = rig();
    rig.write(MCR, 0x10);
    rig.write(RBR_THR_DLL, 1);
    rig.write(RBR_THR_DLL, 2);
    assert_eq!(rig.read(LSR), 0x63);
    assert_eq!(rig.drain(), [2]);
}

#[test]
fn loopback_joins_modem_outputs_to_inputs() {
    let rig = rig();
    rig.write(MCR, 0x10);
    assert_eq!(rig.read(MSR), 0x0b, "CTS, DSR and DCD fell");
    assert_eq!(rig.read(MSR), 0x00);
    rig.write(IER_DLM, 8);
    for (mcr, msr) in [(0x11, 0x22), (0x12, 0x13), (0x14, 0x41), (0x18, 0x8c), (0x10, 0x08)] {
        rig.write(MCR, mcr);
        assert_eq!(rig.read(IIR_FCR) == 0, msr & 0xf != 0);
        assert_eq!(rig.read(MSR), msr, "MCR {mcr:#x}");
        assert!(!rig.irq.level());
    }
}

#[test]
fn saved_state_comes_back_with_fifo_timer_and_line() {
    let first = rig();
    first.write(IIR_FCR, 0xc1);
    first.write(IER_DLM, 3);
    first.input.push(b"abc");
    let saved = lock(&first.uart).save();
    let second = rig();
    lock(&second.uart).restore(&saved).unwrap();
    assert!(second.irq.level());
    assert_eq!(second.timers.next_deadline(), first.timers.next_deadline());
    assert_eq!(lock(&second.uart).save(), saved);
    assert_eq!(second.drain(), b"abc");
    lock(&second.uart).reset();
    assert!(!second.irq.level());
}

#[test]
fn impossible_saved_states_are_refused() {
    let uart = rig().uart;
    let refuse = |change: fn(&mut UartState)| {
        let mut state = UartState::new();
        change(&mut state);
        let saved = SavedDevice::encode(VERSION, &state);
        assert!(matches!(lock(&uart).restore(&saved), Err(RestoreError::Invalid(_))));
    };
    refuse(|state| state.ier = 0x10);
    refuse(|state| state.mcr = 0x20);
    refuse(|state| state.msr_delta = 0x10);
    refuse(|state| state.trigger = 0);
    refuse(|state| state.received = VecDeque::from(vec![0; 2]));
}
