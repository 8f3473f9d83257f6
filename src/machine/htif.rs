//! HTIF, the host-target interface of the RISC-V test programs: the guest writes commands to `tohost`,
//! the host answers in `fromhost` (riscv-isa-sim, fesvr). The page of `tohost` is watched.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use mimic_devices::memory::{GuestMemory, WatchBits, WriteObserver};
use mimic_devices::serial::SerialOutput;

use super::control::Control;
use super::spec::End;

/// Longest text a guest may print by one system call, in bytes.
const MAX_WRITE: u64 = 1 << 20;
const SYS_WRITE: u64 = 64;
const SYS_EXIT: u64 = 93;
/// What a system call answers that is not served here: `-ENOSYS`.
const ENOSYS: u64 = -38i64 as u64;

/// The host's end of HTIF.
pub(super) struct Htif {
    tohost: u64,
    fromhost: Option<u64>,
    memory: Weak<GuestMemory>,
    control: Arc<Control>,
    console: Mutex<Box<dyn SerialOutput>>,
}

impl Htif {
    /// Serves `tohost` from now on. The caller keeps the result alive.
    pub(super) fn watch(
        memory: &Arc<GuestMemory>,
        tohost: u64,
        fromhost: Option<u64>,
        control: Arc<Control>,
        console: Box<dyn SerialOutput>,
    ) -> Arc<dyn WriteObserver> {
        let htif: Arc<dyn WriteObserver> = Arc::new(Htif {
            tohost,
            fromhost,
            memory: Arc::downgrade(memory),
            control,
            console: Mutex::new(console),
        });
        memory.observe(WatchBits::HTIF, &htif);
        memory.watch(tohost, WatchBits::HTIF);
        htif
    }

    fn print(&self, bytes: &[u8]) {
        self.console.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
    }

    fn serve(&self, memory: &GuestMemory, command: u64) {
        let (device, function) = (command >> 56, command >> 48 & 0xff);
        let payload = command & 0xffff_ffff_ffff;
        match (device, function) {
            (0, 0) if payload & 1 != 0 => {
                let code = payload >> 1;
                self.control.end(if code == 0 { End::Pass } else { End::Fail(code) });
            }
            (0, 0) => {
                self.system_call(memory, payload);
                self.answer(memory, 1);
            }
            (1, 1) => {
                self.print(&[payload as u8]);
                self.answer(memory, command & 0xffff_0000_0000_0000);
            }
            _ => {
                // Console input has no answer until a key is pressed; nothing else exists.
                self.set(memory, self.tohost, 0);
            }
        }
    }

    fn set(&self, memory: &GuestMemory, addr: u64, value: u64) {
        if memory.store(addr, value).is_err() {
            log::warn!(target: "htif", "{addr:#x} is not in RAM");
        }
    }

    fn answer(&self, memory: &GuestMemory, value: u64) {
        self.set(memory, self.tohost, 0);
        if let Some(fromhost) = self.fromhost {
            self.set(memory, fromhost, value);
        }
    }

    /// A system call: the payload points to its number and arguments, and takes the result.
    fn system_call(&self, memory: &GuestMemory, block: u64) {
        let word = |index: u64| memory.load::<u64>(block + 8 * index).unwrap_or(0);
        let (number, _fd, pointer, len) = (word(0), word(1), word(2), word(3));
        let result = match number {
            SYS_WRITE => {
                let mut bytes = vec![0; len.min(MAX_WRITE) as usize];
                match memory.read_into(pointer, &mut bytes) {
                    Ok(()) => {
                        self.print(&bytes);
                        bytes.len() as u64
                    }
                    Err(_) => -14i64 as u64, // EFAULT
                }
            }
            SYS_EXIT => {
                let code = word(1);
                self.control.end(if code == 0 { End::Pass } else { End::Fail(code) });
                0
            }
            _ => ENOSYS,
        };
        self.set(memory, block, result);
    }
}

impl WriteObserver for Htif {
    fn written(&self, gpa: u64, len: u64, _bits: WatchBits) {
        if gpa >= self.tohost + 8 || gpa + len <= self.tohost {
            return;
        }
        let Some(memory) = self.memory.upgrade() else { return };
        match memory.load::<u64>(self.tohost) {
            Ok(0) | Err(_) => {}
            Ok(command) => self.serve(&memory, command),
        }
    }
}
