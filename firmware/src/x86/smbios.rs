//! SMBIOS: what the machine calls itself, and its memory.
//!
//! Source: DMTF DSP0134, "System Management BIOS (SMBIOS) Reference Specification", version 3.4, chapters 5 (entry
//! point) and 7 (structures).

use super::{PcConfig, checksum};

/// Bytes of the 64-bit entry point, and where the structures begin behind it.
const ENTRY: usize = 24;
const STRUCTURES: u32 = 32;

/// Handles of structures that others refer to.
const MEMORY_ARRAY: u16 = 0x1000;
/// There is no information about errors.
const NO_ERRORS: u16 = 0xfffe;
/// Not known: a state of the chassis.
const UNKNOWN: u8 = 2;
const SAFE: u8 = 3;
/// From here on a memory device's size is in the field for large ones.
const LARGE_MIB: u64 = 0x7fff;

/// A structure: what follows its header, and its texts, which fields name by number from 1 on.
fn structure(kind: u8, handle: u16, fields: &[u8], texts: &[&str]) -> Vec<u8> {
    let mut bytes = vec![kind, 4 + fields.len() as u8];
    bytes.extend(handle.to_le_bytes());
    bytes.extend(fields);
    for text in texts {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    // Two zeros end a structure, texts or not.
    bytes.push(0);
    if texts.is_empty() {
        bytes.push(0);
    }
    bytes
}

/// The structures of a machine with RAM at these places.
fn structures(config: &PcConfig, memory: &[(u64, u64)]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let mut all = Vec::new();
    let mut add = |kind, handle, fields: &[&[u8]], texts: &[&str]| {
        all.extend(structure(kind, handle, &fields.concat(), texts));
    };
    // Firmware: vendor, version, segment, date; no characteristics, a virtual machine; no releases.
    let characteristics = 8u64.to_le_bytes();
    let rest = [0, 0x10, 0xff, 0xff, 0xff, 0xff];
    add(
        0,
        0,
        &[&[1, 2, 0, 0xe0, 3, 0], &characteristics, &rest],
        &["Mimic", version, "01/01/2026"],
    );
    // System: no serial number and no UUID, started by the power switch.
    add(1, 0x100, &[&[1, 2, 3, 0], &[0; 16], &[6, 0, 0]], &["Mimic", "pc", version]);
    // Chassis.
    let states = [1, 1, 0, 0, 0, SAFE, SAFE, SAFE, UNKNOWN];
    add(3, 0x300, &[&states, &[0; 8]], &["Mimic"]);
    for cpu in 0..u16::from(config.cpus) {
        // A processor that is enabled, in a socket of another kind.
        let fields: [&[u8]; 2] = [&[1, 3, 1, 2], &[0; 8]];
        let speeds = [3, 0, 0, 0, 0, 0, 0, 0, 0x41, 1];
        let socket = format!("CPU {cpu}");
        add(4, 0x400 + cpu, &[fields[0], fields[1], &speeds], &[&socket, "Mimic", "x86-64"]);
    }
    let total: u64 = memory.iter().map(|(_, size)| size).sum();
    let (kib, mib) = ((total >> 10) as u32, total >> 20);
    let errors = NO_ERRORS.to_le_bytes();
    // An array on the board, system memory, no error correction, one device.
    add(16, MEMORY_ARRAY, &[&[3, 3, 3], &kib.to_le_bytes(), &errors, &[1, 0]], &[]);
    let (size, large) = if mib < LARGE_MIB { (mib as u16, 0) } else { (0x7fff, mib as u32) };
    let array = MEMORY_ARRAY.to_le_bytes();
    // 64 bits wide, a DIMM of RAM of another kind.
    let widths = [64, 0, 64, 0];
    let kind = [9, 0, 1, 0, 7, 2, 0, 0, 0, 0, 0, 0, 0, 0];
    let (size, large) = (size.to_le_bytes(), large.to_le_bytes());
    add(17, 0x1100, &[&array, &errors, &widths, &size, &kind, &large, &[0, 0]], &["DIMM 0"]);
    for (handle, (base, size)) in (0x1300..).zip(memory) {
        let first = (base >> 10) as u32;
        let last = ((base + size) >> 10) as u32 - 1;
        add(19, handle, &[&first.to_le_bytes(), &last.to_le_bytes(), &array, &[1]], &[]);
    }
    // No errors at boot; the end.
    add(32, 0x2000, &[&[0; 7]], &[]);
    add(127, 0x7f00, &[], &[]);
    all
}

/// Entry point and structures of a machine with RAM at these places (base and size, multiples of 1 KiB), to be placed
/// at `base`, a multiple of 16 in the last 64 KiB below 1 MiB.
#[must_use]
pub fn tables(config: &PcConfig, memory: &[(u64, u64)], base: u32) -> Vec<u8> {
    let structures = structures(config, memory);
    let mut bytes = b"_SM3_".to_vec();
    // Checksum, length, version 3.4.0, revision of the entry point.
    bytes.extend([0, ENTRY as u8, 3, 4, 0, 1, 0]);
    bytes.extend((structures.len() as u32).to_le_bytes());
    bytes.extend(u64::from(base + STRUCTURES).to_le_bytes());
    bytes[5] = checksum(&bytes);
    bytes.resize(STRUCTURES as usize, 0);
    bytes.extend(structures);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86::tests::config;

    #[test]
    fn structures_follow_one_another_to_the_end() {
        let memory = [(0, 0x9_fc00), (0x10_0000, 0x3ff0_0000)];
        let bytes = tables(&config(), &memory, 0xf_1000);
        assert_eq!((&bytes[..5], bytes[6]), (&b"_SM3_"[..], 24));
        assert_eq!(checksum(&bytes[..24]), 0);
        assert_eq!(bytes[16..24], 0xf_1020u64.to_le_bytes());
        let mut rest = &bytes[32..];
        assert_eq!(rest.len() as u32, u32::from_le_bytes(bytes[12..16].try_into().unwrap()));
        let mut found = Vec::new();
        while !rest.is_empty() {
            found.push((rest[0], rest[1]));
            let texts = &rest[rest[1].into()..];
            let end = texts.windows(2).position(|pair| pair == [0, 0]).unwrap();
            rest = &texts[end + 2..];
        }
        // Lengths of the structures' versions, chapter 7: 2.4, 2.4, 2.3, 2.0, 2.1, 2.7, 2.1, 2.3.
        let (cpu, range) = ((4, 0x1a), (19, 0xf));
        let all = [
            (0, 0x18),
            (1, 0x1b),
            (3, 0x15),
            cpu,
            cpu,
            (16, 0xf),
            (17, 0x22),
            range,
            range,
            (32, 0xb),
            (127, 4),
        ];
        assert_eq!(found, all);
    }
}
