//! Entropy device: VIRTIO 1.2, section 5.4.
#![allow(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::queue::QueueError;
use super::{Queues, VirtioDevice};
use crate::bus::{RestoreError, SavedDevice, Width};

const DEVICE_ID: u32 = 4;
const REQUEST: u16 = 0;
const QUEUES: [u16; 1] = [64];
/// The most bytes for one buffer; a driver asks again for more (section 5.4.6.2 demands one).
const MAX_BYTES: usize = 64 << 10;

const VERSION: u32 = 1;

/// Where the bytes come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntropySource {
    /// The host kernel's generator.
    Host,
    /// A reproducible sequence for deterministic runs (SplitMix64 with this state): not secret.
    Seeded(u64),
}

impl EntropySource {
    fn fill(&mut self, bytes: &mut [u8]) {
        match self {
            EntropySource::Host => host_random(bytes),
            EntropySource::Seeded(state) => {
                for chunk in bytes.chunks_mut(8) {
                    chunk.copy_from_slice(&split_mix(state).to_le_bytes()[..chunk.len()]);
                }
            }
        }
    }
}

/// SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Fills `bytes`; what the host cannot provide stays as it is, which `getrandom` with no flags only
/// does if the host lacks the system call.
fn host_random(mut bytes: &mut [u8]) {
    while !bytes.is_empty() {
        // SAFETY: pointer and length of a live, writable slice.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => bytes = &mut bytes[got..],
            Err(_) => {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::Interrupted {
                    log::error!(target: "virtio", "no random bytes from the host: {error}");
                    return;
                }
            }
        }
    }
}

/// The device.
pub struct Entropy {
    source: EntropySource,
}

impl Entropy {
    /// A device that hands out bytes of `source`.
    pub fn new(source: EntropySource) -> Self {
        Self { source }
    }
}

impl VirtioDevice for Entropy {
    fn name(&self) -> &'static str {
        "virtio-rng"
    }

    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, _offset: u64, _width: Width) -> u64 {
        0
    }

    fn notified(&mut self, _queue: u16, queues: &mut Queues<'_>) -> Result<(), QueueError> {
        while let Some(chain) = queues.pop(REQUEST)? {
            let mut bytes = vec![0; MAX_BYTES.min(chain.writable_len() as usize)];
            self.source.fill(&mut bytes);
            let written = chain.write(queues.memory(), 0, &bytes)?;
            queues.complete(REQUEST, chain, written as u32)?;
        }
        queues.signal(REQUEST)
    }

    fn reset(&mut self) {
        // A driver's reset does not rewind the sequence.
    }

    fn save(&self) -> SavedDevice {
        let Self { source } = self;
        SavedDevice::encode(VERSION, source)
    }

    fn restore(&mut self, saved: &SavedDevice) -> Result<(), RestoreError> {
        self.source = saved.decode(VERSION)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::mmio::Interface;
    use crate::virtio::testing::{Driver, RAM};

    #[test]
    fn the_seeded_sequence_is_split_mix_64() {
        // First outputs for seed 1234567 of the reference implementation (Vigna, splitmix64.c).
        let mut state = 1_234_567;
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([split_mix(&mut state), split_mix(&mut state)], expected);
    }

    #[test]
    fn host_bytes_differ() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        EntropySource::Host.fill(&mut a);
        EntropySource::Host.fill(&mut b);
        assert_ne!(a, b);
        assert_ne!(a, [0; 32]);
    }

    #[test]
    fn every_writable_piece_is_filled_and_counted() {
        let device = Entropy::new(EntropySource::Seeded(1_234_567));
        let mut driver = Driver::new(Interface::Modern, Box::new(device), 0);
        let buffers = [(RAM + 0x8000, 3, true), (RAM + 0x9000, 0, true), (RAM + 0x9100, 5, true)];
        driver.add(0, &buffers);
        driver.notify(0);
        assert_eq!(driver.used(0), [(0, 8)]);
        let first = driver.memory.load::<u32>(RAM + 0x8000).unwrap();
        let expected = 6_457_827_717_110_365_317_u64.to_le_bytes();
        assert_eq!(first.to_le_bytes(), [expected[0], expected[1], expected[2], 0]);
        let mut rest = [0; 5];
        driver.memory.read_into(RAM + 0x9100, &mut rest).unwrap();
        assert_eq!(rest, expected[3..]);
        assert_eq!(driver.memory.load::<u8>(RAM + 0x9105), Ok(0));
        assert!(driver.irq.level());
    }

    #[test]
    fn a_restored_sequence_goes_on() {
        let mut first = Entropy::new(EntropySource::Seeded(9));
        first.source.fill(&mut [0; 16]);
        let mut second = Entropy::new(EntropySource::Host);
        second.restore(&first.save()).unwrap();
        let (mut a, mut b) = ([0; 8], [0; 8]);
        first.source.fill(&mut a);
        second.source.fill(&mut b);
        assert_eq!(a, b);
    }
}
