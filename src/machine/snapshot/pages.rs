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
}
