use std::os::unix::fs::MetadataExt;

use super::*;

/// A folder with an image of `bytes` bytes of `fill`.
fn image(bytes: usize, fill: u8) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, vec![fill; bytes]).unwrap();
    (folder, path)
}

#[test]
fn written_bytes_are_in_the_file_at_their_offset() {
    let (_folder, path) = image(8 * 512, 0);
    let disk = DiskImage::open(&path, Access::ReadWrite).unwrap();
    assert_eq!((disk.sectors(), disk.is_read_only()), (8, false));
    assert_eq!(disk.name(), path.to_str().unwrap());
    disk.write_at(1024, &[7; 1024]).unwrap();
    disk.flush().unwrap();
    let mut expected = vec![0; 8 * 512];
    expected[1024..2048].fill(7);
    assert_eq!(fs::read(&path).unwrap(), expected);
    let mut bytes = [0; 1536];
    disk.read_at(512, &mut bytes).unwrap();
    assert_eq!(bytes, expected[512..2048]);
}

#[test]
fn what_is_not_on_the_disk_is_refused_and_not_touched() {
    let (_folder, path) = image(8 * 512, 9);
    let disk = DiskImage::open(&path, Access::ReadWrite).unwrap();
    for offset in [8 * 512, 7 * 512 + 1, u64::MAX - 511] {
        assert!(matches!(disk.write_at(offset, &[1; 512]), Err(DiskError::Range)));
        assert!(matches!(disk.read_at(offset, &mut [1; 512]), Err(DiskError::Range)));
        assert!(matches!(disk.discard(offset, 512), Err(DiskError::Range)));
        assert!(matches!(disk.write_zeroes(offset, 512, true), Err(DiskError::Range)));
    }
    assert_eq!(fs::read(&path).unwrap(), vec![9; 8 * 512]);
}

#[test]
fn a_read_only_image_stays_as_it_is() {
    let (_folder, path) = image(1024, 3);
    let disk = DiskImage::open(&path, Access::ReadOnly).unwrap();
    assert!(disk.is_read_only());
    assert!(matches!(disk.write_at(0, &[1; 512]), Err(DiskError::ReadOnly)));
    assert!(matches!(disk.discard(0, 512), Err(DiskError::ReadOnly)));
    assert!(matches!(disk.write_zeroes(0, 512, false), Err(DiskError::ReadOnly)));
    disk.flush().unwrap();
    assert_eq!(fs::read(&path).unwrap(), [3; 1024]);
}

#[test]
fn a_writer_excludes_everybody_and_readers_exclude_writers() {
    let (_folder, path) = image(512, 0);
    let open = |access| DiskImage::open(&path, access);
    let writer = open(Access::ReadWrite).unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let error = open(access).unwrap_err();
        assert!(matches!(error, OpenError::Written(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("stop that one"), "{text}");
    }
    drop(writer);
    let readers = [open(Access::ReadOnly).unwrap(), open(Access::ReadOnly).unwrap()];
    let error = open(Access::ReadWrite).unwrap_err();
    assert!(matches!(error, OpenError::Read(_)), "{error}");
    drop(readers);
    open(Access::ReadWrite).unwrap();
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let (folder, path) = image(1000, 0);
    let refused = |path: &Path| DiskImage::open(path, Access::ReadWrite).unwrap_err();
    let error = refused(&path);
    assert!(matches!(error, OpenError::Size { bytes: 1000, .. }), "{error}");
    assert!(error.to_string().contains("1000 bytes"), "{error}");
    fs::write(&path, "").unwrap();
    assert!(matches!(refused(&path), OpenError::Empty(_)));
    assert!(matches!(refused(folder.path()), OpenError::Kind(_)));
    assert!(matches!(refused(Path::new("/dev/full")), OpenError::Kind(_)));
    let missing = refused(&folder.path().join("none.img")).to_string();
    assert!(missing.contains("none.img") && missing.contains("No such file"), "{missing}");
}

#[test]
fn zeroed_and_discarded_ranges_read_as_zero_and_give_room_back() {
    const MIB: u64 = 1 << 20;
    let (_folder, path) = image(4 * MIB as usize, 0xff);
    let disk = DiskImage::open(&path, Access::ReadWrite).unwrap();
    let room = || fs::metadata(&path).unwrap().blocks() * 512;
    disk.flush().unwrap();
    let full = room();
    disk.write_zeroes(0, MIB, false).unwrap();
    disk.write_zeroes(MIB, MIB, true).unwrap();
    disk.discard(2 * MIB, MIB).unwrap();
    disk.write_zeroes(3 * MIB + 512, 512, false).unwrap();
    disk.flush().unwrap();
    let bytes = fs::read(&path).unwrap();
    let first = |value| bytes.iter().position(|&byte| byte == value).unwrap() as u64;
    // A host without holes may keep discarded data.
    assert!(first(0xff) == 3 * MIB || first(0xff) == 2 * MIB);
    assert_eq!(bytes.len() as u64, 4 * MIB);
    assert!(bytes[3 * MIB as usize..][512..1024].iter().all(|&byte| byte == 0));
    assert!(bytes[3 * MIB as usize + 1024..].iter().all(|&byte| byte == 0xff));
    assert!(room() < full, "{} of {full} bytes still taken", room());
}

#[test]
fn a_full_host_is_an_error_of_its_own() {
    // The kernel answers every write to /dev/full with ENOSPC: full(4).
    let file = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let disk = DiskImage { name: "full".into(), file, sectors: 8, read_only: false };
    let error = disk.write_at(0, &[1; 512]).unwrap_err();
    assert!(matches!(error, DiskError::Full(_)), "{error}");
}

#[test]
fn a_file_that_shrinks_under_us_is_a_failure_of_the_host() {
    let (_folder, path) = image(4096, 0);
    let disk = DiskImage::open(&path, Access::ReadWrite).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(512).unwrap();
    assert!(matches!(disk.read_at(0, &mut [0; 1024]), Err(DiskError::Host(_))));
}
