//! The pages of guest memory that hold anything.

use std::io;

use mimic_devices::memory::{GuestMemory, PAGE_SIZE};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Bytes of a page.
pub(super) type Page = [u8; PAGE_SIZE as usize];

/// Calls `each` for every page that is not zero, in ascending order. Pages that were never touched are not
/// even looked at: reading them would make the host give them memory.
pub(super) fn walk(
    memory: &GuestMemory,
    mut each: impl FnMut(u64, &Page) -> io::Result<()>,
) -> io::Result<()> {
    let mut page: Page = [0; PAGE_SIZE as usize];
    for region in memory.regions() {
        let mut offset = 0;
        while offset < region.size() {
            offset = match rustix::fs::seek(region.fd(), SeekFrom::Data(offset)) {
                Ok(data) => data & !(PAGE_SIZE - 1),
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let hole = rustix::fs::seek(region.fd(), SeekFrom::Hole(offset))?;
            let end = hole.next_multiple_of(PAGE_SIZE).min(region.size());
            while offset < end {
                let gpa = region.base() + offset;
                memory.read_into(gpa, &mut page).map_err(io::Error::other)?;
                if page != [0; PAGE_SIZE as usize] {
                    each(gpa, &page)?;
                }
                offset += PAGE_SIZE;
            }
        }
    }
    Ok(())
}

/// The first words (address, contents of each) in which two memories of the same layout differ, at most `most`.
pub(in crate::machine) fn differ(
    a: &GuestMemory,
    b: &GuestMemory,
    most: usize,
) -> io::Result<Vec<(u64, u64, u64)>> {
    const ZERO: Page = [0; PAGE_SIZE as usize];
    let (mut found, mut seen) = (Vec::new(), Vec::new());
    let mut compare = |gpa: u64, a: &Page, b: &Page| {
        let word = |page: &Page, at: usize| {
            page[at..at + 8].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
        };
        let words = (0..a.len()).step_by(8).map(|at| (gpa + at as u64, word(a, at), word(b, at)));
        found.extend(words.filter(|(_, a, b)| a != b).take(most - found.len()));
    };
    let mut other = ZERO;
    walk(a, |gpa, page| {
        seen.push(gpa);
        b.read_into(gpa, &mut other).map_err(io::Error::other)?;
        if other != *page {
            compare(gpa, page, &other);
        }
        Ok(())
    })?;
    let mut seen = seen.into_iter().peekable();
    walk(b, |gpa, page| {
        while seen.next_if(|&before| before < gpa).is_some() {}
        if seen.next_if_eq(&gpa).is_none() {
            compare(gpa, &ZERO, page);
        }
        Ok(())
    })?;
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mimic_devices::memory::RegionSpec;

    #[test]
    fn pages_that_hold_something_are_found_in_order() {
        let regions = [RegionSpec::ram(0x8000_0000, 1 << 30), RegionSpec::rom(0x1000, 0x1000)];
        let memory = GuestMemory::new(&regions).unwrap();
        memory.store(0x8000_5ff8, 1u64).unwrap();
        memory.store(0xbfff_f000, 2u8).unwrap();
        memory.store(0x9000_0000, 0u8).unwrap();
        memory.fill(0x1010, &[3]).unwrap();
        let mut found = Vec::new();
        walk(&memory, |gpa, page| {
            found.push((gpa, page.iter().map(|&byte| u64::from(byte)).sum::<u64>()));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [(0x1000, 3), (0x8000_5000, 1), (0xbfff_f000, 2)]);
    }

    #[test]
    fn differences_are_found_on_both_sides() {
        let memory = || GuestMemory::new(&[RegionSpec::ram(0x8000_0000, 1 << 20)]).unwrap();
        let (a, b) = (memory(), memory());
        assert_eq!(differ(&a, &b, 8).unwrap(), []);
        for memory in [&a, &b] {
            memory.store(0x8000_1000, 5u64).unwrap();
        }
        b.store(0x8000_0ff8, 0u64).unwrap();
        assert_eq!(differ(&a, &b, 8).unwrap(), [], "a page that was touched is still zero");
        a.store(0x8000_1004, 1u8).unwrap();
        b.store(0x8000_0ff8, 7u64).unwrap();
        let both = [(0x8000_0ff8, 0, 7), (0x8000_1000, 0x1_0000_0005, 5)];
        assert_eq!(differ(&a, &b, 8).unwrap(), both);
        assert_eq!(differ(&a, &b, 1).unwrap().len(), 1);
    }
}
