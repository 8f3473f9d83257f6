use std::fs;
use std::path::PathBuf;

use super::*;
use crate::disk::{Access, DiskImage};

const SECTORS: u64 = 3 * PART_SECTORS / 2;

/// An overlay of an image whose bytes are the low byte of their sector's number.
fn overlay() -> (tempfile::TempDir, PathBuf, Overlay) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.img");
    let bytes: Vec<u8> = (0..SECTORS).flat_map(|sector| [sector as u8; 512]).collect();
    fs::write(&path, bytes).unwrap();
    let base = DiskImage::open(&path, Access::ReadOnly).unwrap();
    let overlay = Overlay::new(Arc::new(base)).unwrap();
    (folder, path, overlay)
}

/// The first byte of each sector, all of which are uniform.
fn read(disk: &Overlay, sector: u64, count: u64) -> Vec<u8> {
    let mut bytes = vec![0xee; (count * 512) as usize];
    disk.read_at(sector * 512, &mut bytes).unwrap();
    let sectors = bytes.as_chunks::<512>().0;
    assert!(sectors.iter().all(|sector| sector.iter().all(|&byte| byte == sector[0])));
    sectors.iter().map(|sector| sector[0]).collect()
}

#[test]
fn writes_are_seen_and_the_base_is_not_changed() {
    let (_folder, path, disk) = overlay();
    let before = fs::read(&path).unwrap();
    assert_eq!((disk.sectors(), disk.is_read_only()), (SECTORS, false));
    assert_eq!(read(&disk, 60, 10), (60..70).collect::<Vec<u8>>());
    disk.write_at(62 * 512, &[0xaa; 5 * 512]).unwrap();
    assert_eq!(read(&disk, 60, 10), [60, 61, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 67, 68, 69]);
    disk.write_zeroes(64 * 512, 512, true).unwrap();
    disk.discard(69 * 512, 512).unwrap();
    assert_eq!(read(&disk, 60, 10), [60, 61, 0xaa, 0xaa, 0, 0xaa, 0xaa, 67, 68, 0]);
    disk.flush().unwrap();
    assert!(fs::read(&path).unwrap() == before, "the base changed");
}

#[test]
fn ranges_across_parts_of_the_map_are_whole() {
    let (_folder, _path, disk) = overlay();
    let first = PART_SECTORS - 100;
    disk.write_zeroes(first * 512, 200 * 512, false).unwrap();
    let mut expected: Vec<u8> = (first - 70..first + 270).map(|sector| sector as u8).collect();
    expected[70..270].fill(0);
    assert_eq!(read(&disk, first - 70, 340), expected);
    assert_eq!(read(&disk, SECTORS - 1, 1), [(SECTORS - 1) as u8]);
    assert!(matches!(disk.write_at(SECTORS * 512, &[0; 512]), Err(DiskError::Range)));
}

#[test]
fn threads_that_write_neighbouring_sectors_do_not_disturb_each_other() {
    let (_folder, _path, disk) = overlay();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let disk = &disk;
            scope.spawn(move || {
                for sector in (thread..256).step_by(4) {
                    disk.write_at(sector * 512, &[0x80 | thread as u8; 512]).unwrap();
                }
            });
        }
    });
    let expected: Vec<u8> = (0..256).map(|sector| 0x80 | sector as u8 % 4).collect();
    assert_eq!(read(&disk, 0, 256), expected);
}

#[test]
fn runs_of_the_map_are_those_of_a_plain_one() {
    let map = SectorMap::new(SECTORS);
    let mut plain = vec![false; SECTORS as usize];
    let ranges = [(0, 1), (63, 2), (128, 64), (250, 300), (PART_SECTORS - 1, 2), (SECTORS - 1, 1)];
    for (sector, count) in ranges {
        map.set(sector, count);
        plain[sector as usize..][..count as usize].fill(true);
    }
    for sector in (0..600).chain(PART_SECTORS - 70..PART_SECTORS + 70).chain([SECTORS - 1]) {
        for count in [1, 7, 64, 700] {
            let count = count.min(SECTORS - sector);
            let rest = &plain[sector as usize..][..count as usize];
            let like = rest.iter().take_while(|&&set| set == rest[0]).count() as u64;
            assert_eq!(map.run(sector, count), (rest[0], like), "{sector}+{count}");
        }
    }
}
