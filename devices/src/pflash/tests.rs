use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::memory::{RegionSpec, VisibilityObserver};

const BASE: u64 = 0x2200_0000;
const SIZE: u64 = 4 * SECTOR;
const BLOCK: u64 = 2 * SECTOR;

fn memory(size: u64) -> Arc<GuestMemory> {
    Arc::new(GuestMemory::new(&[RegionSpec::rom(BASE, size)]).unwrap())
}

/// A bank whose bytes 0..1024 are 0 and the others erased.
fn bank() -> (PFlash, Arc<GuestMemory>) {
    let memory = memory(SIZE);
    let bank = PFlash::new(Arc::clone(&memory), BASE, FlashContents::Volatile(&[0; 1024]));
    (bank.unwrap(), memory)
}

fn bytes(memory: &GuestMemory, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_into(BASE + offset, &mut bytes).unwrap();
    bytes
}

/// EDK2 and Linux send each command to both chips at once.
fn send(bank: &mut PFlash, offset: u64, command: u32) {
    bank.write(offset, Width::Word, (command << 16 | command).into()).unwrap();
}

fn word(bank: &mut PFlash, offset: u64) -> u64 {
    bank.read(offset, Width::Word).unwrap()
}

/// As VirtNorFlash's NorFlashReadStatusRegister does, at the bank's start.
fn status(bank: &mut PFlash) -> u64 {
    send(bank, 0, 0x70);
    word(bank, 0)
}

fn erase(bank: &mut PFlash, block: u64) -> u64 {
    send(bank, block, 0x20);
    send(bank, block, 0xd0);
    status(bank)
}

fn program(bank: &mut PFlash, offset: u64, value: u32) -> u64 {
    send(bank, offset, 0x40);
    bank.write(offset, Width::Word, value.into()).unwrap();
    status(bank)
}

fn program_buffer(bank: &mut PFlash, offset: u64, words: &[u32]) -> u64 {
    send(bank, offset, 0xe8);
    assert_eq!(word(bank, offset) & 0x0080_0080, 0x0080_0080, "a buffer is free");
    send(bank, offset, words.len() as u32 - 1);
    for (&value, at) in words.iter().zip((offset..).step_by(4)) {
        bank.write(at, Width::Word, value.into()).unwrap();
    }
    send(bank, 0, 0xd0);
    status(bank)
}

#[test]
fn edk2_rewrites_a_block() {
    let (mut bank, memory) = bank();
    memory.fill(BASE + BLOCK, &[0x11; 0x1000]).unwrap();
    memory.fill(BASE + BLOCK + SECTOR - 1, &[0x22; 2]).unwrap();
    // NorFlashUnlockSingleBlockIfNecessary: the lock status is word 2 of the block's identifiers.
    send(&mut bank, BLOCK + 8, 0x90);
    assert_eq!(word(&mut bank, BLOCK + 8), 0);
    send(&mut bank, BLOCK, 0x60);
    send(&mut bank, BLOCK, 0xd0);
    assert_eq!(status(&mut bank), 0x0080_0080);
    assert_eq!(erase(&mut bank, BLOCK), 0x0080_0080);
    send(&mut bank, 0, 0xff);
    assert_eq!(bytes(&memory, BLOCK, 0x1000), [0xff; 0x1000]);
    assert_eq!(bytes(&memory, BLOCK + SECTOR - 1, 2), [0xff, 0x22], "the next block stays");
    // NorFlashWriteBuffer: 32 words, that is 128 bytes.
    let words: Vec<u32> = (0..32).map(|n| 0x0102_0300 + n).collect();
    assert_eq!(program_buffer(&mut bank, BLOCK + 0x80, &words), 0x0080_0080);
    send(&mut bank, 0, 0x50);
    let expected: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(bytes(&memory, BLOCK + 0x80, 128), expected);
    assert_eq!(bytes(&memory, BLOCK, 0x80), [0xff; 0x80]);
    assert_eq!(bytes(&memory, BLOCK + 0x100, 0x80), [0xff; 0x80]);
    // NorFlashWriteSingleWord.
    assert_eq!(program(&mut bank, BLOCK + 4, 0xaabb_ccdd), 0x0080_0080);
    send(&mut bank, 0, 0x50);
    assert_eq!(bytes(&memory, BLOCK + 4, 4), [0xdd, 0xcc, 0xbb, 0xaa]);
}

/// U-Boot's flash_detect_cfi tries each port width with each chip width until "QRY" answers.
#[test]
fn u_boot_finds_two_16_bit_chips_on_a_32_bit_bus() {
    let (mut bank, _) = bank();
    let mut found = Vec::new();
    for port in [Width::Byte, Width::Half, Width::Word, Width::Double] {
        let mut chip = 1;
        while chip <= port.bytes() {
            // The command or answer as the narrower chips side by side see it.
            let each = |byte: u8| {
                let lanes = (0..port.bytes()).step_by(chip as usize);
                lanes.fold(0, |value, lane| value | u64::from(byte) << (8 * lane))
            };
            for reset in [0xf0, 0xff] {
                bank.write(0, port, each(reset)).unwrap();
            }
            bank.write(0x55 * port.bytes(), port, each(0x98)).unwrap();
            let answers =
                |(index, byte): (u64, u8)| bank.read(index * port.bytes(), port) == Ok(each(byte));
            if [(0x10, b'Q'), (0x11, b'R'), (0x12, b'Y')].into_iter().all(answers) {
                found.push((port, chip));
            }
            chip *= 2;
        }
        bank.write(0, port, 0xff).unwrap();
    }
    assert_eq!(found, [(Width::Word, 2)]);
}

#[test]
fn the_query_table_describes_32_mib() {
    let memory = memory(32 << 20);
    let mut bank = PFlash::new(memory, BASE, FlashContents::Volatile(&[])).unwrap();
    send(&mut bank, 0x55 * 4, 0x98);
    let mut query = |index: u64| {
        let answer = word(&mut bank, 4 * index);
        assert_eq!(answer >> 16, answer & 0xffff, "both chips say the same");
        answer & 0xffff
    };
    assert_eq!(query(0x13) | query(0x14) << 8, 1, "Intel's extended command set");
    assert_eq!(2 << query(0x27), 32 << 20, "two chips' size");
    assert_eq!(2 << (query(0x2a) | query(0x2b) << 8), 4096, "two chips' buffers");
    assert_eq!(query(0x2c), 1);
    let blocks = (query(0x2d) | query(0x2e) << 8) + 1;
    let block = (query(0x2f) | query(0x30) << 8) * 256 * 2;
    assert_eq!((blocks, block), (128, 256 << 10));
    let extended = query(0x15) | query(0x16) << 8;
    assert_eq!([0, 1, 2].map(|n| query(extended + n) as u8), *b"PRI");
    assert_eq!(query(0x52) | query(0x1000), 0);
    send(&mut bank, 0, 0x90);
    assert_eq!(word(&mut bank, 0), 0x0089_0089);
    assert_eq!(word(&mut bank, 4), 0x0018_0018);
    assert_eq!(bank.read(0, Width::Double), Ok(0x0018_0018_0089_0089));
}

#[test]
fn loads_see_the_array_only_in_its_mode() {
    #[derive(Default)]
    struct Hidden(Mutex<u32>);
    impl VisibilityObserver for Hidden {
        fn hidden(&self, gpa: u64, len: u64) {
            assert_eq!((gpa, len), (BASE, SIZE));
            *self.0.lock().unwrap() += 1;
        }
    }
    let (mut bank, memory) = bank();
    let hidden = Arc::new(Hidden::default());
    let observer: Arc<dyn VisibilityObserver> = hidden.clone();
    memory.observe_visibility(&observer);
    for (command, times) in [(0x70, 1), (0x98, 2), (0x90, 3), (0x40, 4), (0x60, 5), (0xe8, 6)] {
        assert!(memory.host_page(BASE).is_some());
        send(&mut bank, 0, command);
        assert!(memory.host_page(BASE + SIZE - 1).is_none(), "{command:#x}");
        assert_eq!(*hidden.0.lock().unwrap(), times);
        bank.reset();
    }
    for leave in [0xff, 0xf0, 0x50, 0x00] {
        send(&mut bank, 0, 0x70);
        send(&mut bank, 0, leave);
        assert!(memory.host_page(BASE).is_some(), "{leave:#x}");
    }
    assert_eq!(bank.read(1020, Width::Double), Ok(0xffff_ffff_0000_0000));
}

#[test]
fn programming_clears_bits_and_never_sets_them() {
    let (mut bank, memory) = bank();
    assert_eq!(program(&mut bank, BLOCK, 0xf0f0_ff00), 0x0080_0080);
    assert_eq!(program(&mut bank, BLOCK, 0x0ff0_0fff), 0x0080_0080);
    assert_eq!(bytes(&memory, BLOCK, 4), 0x00f0_0f00_u32.to_le_bytes());
    send(&mut bank, 0, 0x10);
    bank.write(BLOCK + 5, Width::Byte, 0x12).unwrap();
    send(&mut bank, 0, 0x10);
    bank.write(BLOCK + 6, Width::Half, 0x3456).unwrap();
    assert_eq!(bytes(&memory, BLOCK + 4, 5), [0xff, 0x12, 0x56, 0x34, 0xff]);
}

#[test]
fn a_buffer_of_one_word_and_a_full_one() {
    let (mut bank, memory) = bank();
    assert_eq!(program_buffer(&mut bank, BLOCK + 8, &[0x1234_5678]), 0x0080_0080);
    assert_eq!(bytes(&memory, BLOCK + 8, 4), 0x1234_5678_u32.to_le_bytes());
    assert_eq!(program_buffer(&mut bank, BLOCK + 0x1000, &[0; 1024]), 0x0080_0080);
    assert_eq!(bytes(&memory, BLOCK + 0x1000, 0x1000), [0; 0x1000]);
    assert_eq!(bytes(&memory, BLOCK + 0xfff, 1), [0xff]);
    assert_eq!(bytes(&memory, BLOCK + 0x2000, 1), [0xff]);
}

#[test]
fn sequences_that_make_no_sense_set_error_bits_and_change_nothing() {
    let (mut bank, memory) = bank();
    let before = bytes(&memory, 0, SIZE as usize);
    // A store outside the buffer.
    send(&mut bank, BLOCK, 0xe8);
    send(&mut bank, BLOCK, 1);
    bank.write(BLOCK, Width::Word, 0).unwrap();
    bank.write(0, Width::Word, 0).unwrap();
    send(&mut bank, BLOCK, 0xd0);
    assert_eq!(word(&mut bank, 0), 0x0090_0090, "program error");
    assert_eq!(status(&mut bank), 0x0090_0090, "errors stay until cleared");
    send(&mut bank, 0, 0x50);
    assert_eq!(status(&mut bank), 0x0080_0080);
    // Something else than a confirmation, after data, after an erase setup, after a lock setup.
    send(&mut bank, BLOCK, 0xe8);
    send(&mut bank, BLOCK, 0);
    bank.write(BLOCK, Width::Word, 0).unwrap();
    send(&mut bank, BLOCK, 0x70);
    assert_eq!(word(&mut bank, 0), 0x00b0_00b0, "command sequence error");
    for setup in [0x20, 0x60] {
        send(&mut bank, 0, 0x50);
        send(&mut bank, BLOCK, setup);
        send(&mut bank, BLOCK, 0x77);
        assert_eq!(word(&mut bank, 0), 0x00b0_00b0, "command sequence error");
        send(&mut bank, 0, 0x50);
        send(&mut bank, 0, setup);
        send(&mut bank, 0, 0xff);
        assert!(memory.host_page(BASE).is_some(), "called off");
        assert_eq!(status(&mut bank), 0x0080_0080);
    }
    // More words than the buffer holds.
    send(&mut bank, BLOCK, 0xe8);
    send(&mut bank, BLOCK, 0xffff);
    for n in 0..0x1_0000 {
        bank.write((BLOCK + 4 * n) % SIZE, Width::Word, 0).unwrap();
    }
    send(&mut bank, BLOCK, 0xd0);
    assert_eq!(status(&mut bank), 0x0090_0090);
    assert!(bytes(&memory, 0, SIZE as usize) == before);
}

#[test]
fn a_protected_bank_refuses_with_error_bits() {
    let memory = memory(SIZE);
    let contents = FlashContents::ReadOnly(&[0x5a; 16]);
    let mut bank = PFlash::new(Arc::clone(&memory), BASE, contents).unwrap();
    assert_eq!(erase(&mut bank, 0), 0x00a0_00a0);
    send(&mut bank, 0, 0x50);
    assert_eq!(program(&mut bank, 0, 0), 0x0090_0090);
    send(&mut bank, 0, 0x50);
    assert_eq!(program_buffer(&mut bank, 0, &[0, 0]), 0x0090_0090);
    assert_eq!(bytes(&memory, 0, 17), [&[0x5a; 16][..], &[0xff]].concat());
}

#[test]
fn odd_widths_and_places() {
    let (mut bank, memory) = bank();
    send(&mut bank, 0, 0x70);
    assert_eq!(bank.read(4, Width::Byte), Ok(0x80));
    assert_eq!(bank.read(5, Width::Byte), Ok(0));
    assert_eq!(bank.read(6, Width::Half), Ok(0x80));
    assert_eq!(bank.read(8, Width::Double), Ok(0x0080_0080_0080_0080));
    for (offset, width) in [(1, Width::Half), (2, Width::Word), (4, Width::Double)] {
        assert_eq!(bank.read(offset, width), Err(BusError::Width));
        assert_eq!(bank.write(offset, width, 0xff), Err(BusError::Width));
    }
    for (offset, width) in [(SIZE, Width::Byte), (SIZE - 4, Width::Double), (!7, Width::Double)] {
        assert_eq!(bank.read(offset, width), Err(BusError::Width));
        assert_eq!(bank.write(offset, width, 0xff), Err(BusError::Width));
    }
    // An 8-byte store is two: here a setup and its data.
    bank.write(BLOCK, Width::Double, 0x1234_5678_0040_0040).unwrap();
    assert_eq!(bytes(&memory, BLOCK, 8), [0xff, 0xff, 0xff, 0xff, 0x78, 0x56, 0x34, 0x12]);
    bank.write(SIZE - 1, Width::Byte, 0x40).unwrap();
    bank.write(SIZE - 1, Width::Byte, 0x00).unwrap();
    assert_eq!(bytes(&memory, SIZE - 2, 2), [0xff, 0]);
}

#[test]
fn any_row_of_stores_is_survived_and_any_state_restored() {
    let (mut bank, memory) = bank();
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let commands = [0x10, 0x40, 0x60, 0x50, 0x70, 0x90, 0x98, 0xe8, 0xd0, 0xff, 0x01, 0x20];
    for n in 0..60_000 {
        let width = Width::ALL[random() as usize % 4];
        let value = match random() % 4 {
            0 => random() & width.mask(),
            // Erasing is slow, so the last, 0x20, comes seldom.
            _ => commands[random() as usize % (commands.len() - usize::from(n % 64 != 0))],
        };
        let offset = random() % (SIZE + 16);
        let _ = bank.write(offset, width, value);
        let _ = bank.read(random() % (SIZE + 16), width);
        if n % 100 == 0 {
            let saved = bank.save();
            bank.restore(&saved).unwrap();
            let mut damaged = saved.clone();
            let at = random() as usize % damaged.bytes.len();
            damaged.bytes[at] ^= 1 << (random() % 8);
            let _ = bank.restore(&damaged);
        }
        assert_eq!(memory.host_page(BASE).is_some(), bank.state.mode == Mode::Array);
    }
}

#[test]
fn a_saved_bank_goes_on_inside_a_buffer_write() {
    let (mut first, _) = bank();
    send(&mut first, BLOCK, 0xe8);
    send(&mut first, BLOCK, 1);
    first.write(BLOCK, Width::Word, 0x1111_1111).unwrap();
    let saved = first.save();
    let (mut second, memory) = bank();
    second.restore(&saved).unwrap();
    assert!(memory.host_page(BASE).is_none());
    second.write(BLOCK + 4, Width::Word, 0x2222_2222).unwrap();
    send(&mut second, 0, 0xd0);
    assert_eq!(
        bytes(&memory, BLOCK, 9),
        [[0x11; 4], [0x22; 4]].concat().into_iter().chain([0xff]).collect::<Vec<u8>>()
    );
    let invalid = |mode, status| SavedDevice::encode(VERSION, &FlashState { mode, status });
    for bad in [
        invalid(Mode::Array, 0),
        invalid(Mode::Erase(SIZE), READY),
        invalid(Mode::Erase(4), READY),
        invalid(Mode::BufferData(0, None), READY),
        invalid(Mode::BufferConfirm(Block::new(SIZE)), READY),
        invalid(Mode::BufferConfirm(Block { bytes: vec![0; 3], ..Block::new(0) }), READY),
    ] {
        assert!(matches!(second.restore(&bad), Err(RestoreError::Invalid(_))));
    }
}

/// A file of a bank's size, each sector full of its own byte.
fn sector_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    for n in 0..4 {
        file.as_file()
            .write_all_at(&vec![0xf0 + n; SECTOR as usize], u64::from(n) * SECTOR)
            .unwrap();
    }
    file
}

fn file_bank(path: &Path) -> (PFlash, Arc<GuestMemory>) {
    let memory = memory(SIZE);
    let contents = FlashContents::File(FlashFile::open(path).unwrap());
    (PFlash::new(Arc::clone(&memory), BASE, contents).unwrap(), memory)
}

#[test]
fn changes_reach_the_file_at_once_and_nothing_else_is_written() {
    let file = sector_file();
    let (mut bank, memory) = file_bank(file.path());
    assert_eq!(bytes(&memory, 3 * SECTOR - 1, 2), [0xf2, 0xf3]);
    // Were more written than what changed, this would be undone.
    for n in 0..4 {
        file.as_file().write_all_at(&[0x77], n * SECTOR + 0x300).unwrap();
    }
    assert_eq!(erase(&mut bank, SECTOR), 0x0080_0080);
    assert_eq!(program_buffer(&mut bank, SECTOR + 0x200, &[0x0403_0201]), 0x0080_0080);
    assert_eq!(program(&mut bank, 2 * SECTOR + 0x200, 0x0000_ffff), 0x0080_0080);
    let on_disk = std::fs::read(file.path()).unwrap();
    let mut expected: Vec<u8> = (0..4).flat_map(|n| vec![0xf0 + n; SECTOR as usize]).collect();
    let sector = SECTOR as usize;
    for n in [0, 2, 3] {
        expected[n * sector + 0x300] = 0x77;
    }
    expected[sector..2 * sector].fill(0xff);
    expected[sector + 0x200..][..4].copy_from_slice(&[1, 2, 3, 4]);
    expected[2 * sector + 0x202..][..2].fill(0);
    assert!(on_disk == expected);
    bank.sync().unwrap();
    drop(bank);
    let (_, again) = file_bank(file.path());
    assert!(bytes(&again, 0, SIZE as usize) == expected);
}

#[test]
fn a_file_that_cannot_be_written_gives_error_bits_and_keeps_the_array() {
    for writable in [true, false] {
        let file = sector_file();
        let read_only = File::open(file.path()).unwrap();
        let store = FlashFile::new(read_only, file.path(), writable);
        let memory = memory(SIZE);
        let contents = FlashContents::File(store);
        let mut bank = PFlash::new(Arc::clone(&memory), BASE, contents).unwrap();
        assert_eq!(erase(&mut bank, 0), 0x00a0_00a0);
        send(&mut bank, 0, 0x50);
        assert_eq!(program(&mut bank, 0, 0), 0x0090_0090);
        send(&mut bank, 0, 0x50);
        assert_eq!(program_buffer(&mut bank, 0, &[0]), 0x0090_0090);
        assert_eq!(bytes(&memory, 0, 8), [0xf0; 8]);
        assert_eq!(std::fs::read(file.path()).unwrap()[..8], [0xf0; 8]);
    }
}

#[test]
fn a_full_disk_fails_the_guests_write() {
    let (mut bank, memory) = bank();
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    let file = FlashFile::new(full, Path::new("/dev/full"), true);
    bank.backing = Backing::File { file, stale: false };
    assert_eq!(program(&mut bank, BLOCK, 0), 0x0090_0090);
    assert_eq!(program(&mut bank, 0, 0), 0x0090_0090, "nor can a half-written file be repaired");
    send(&mut bank, 0, 0x50);
    assert_eq!(erase(&mut bank, 0), 0x00a0_00a0);
    assert_eq!(bytes(&memory, BLOCK, 4), [0xff; 4]);
    assert_eq!(bytes(&memory, 0, 4), [0; 4]);
}

#[test]
fn after_a_restored_state_the_first_write_brings_the_file_up_to_date() {
    let file = sector_file();
    let (mut bank, memory) = file_bank(file.path());
    let saved = bank.save();
    // A snapshot puts older bytes into the region.
    memory.fill(BASE + 3 * SECTOR + 5, &[0x33]).unwrap();
    bank.restore(&saved).unwrap();
    bank.sync().unwrap();
    let on_disk = |offset: u64| std::fs::read(file.path()).unwrap()[offset as usize];
    assert_eq!(on_disk(3 * SECTOR + 5), 0xf3, "a guest that writes nothing changes nothing");
    assert_eq!(program(&mut bank, 0, 0), 0x0080_0080);
    assert_eq!((on_disk(3 * SECTOR + 5), on_disk(0)), (0x33, 0));
}

#[test]
fn a_file_is_locked_and_must_fit() {
    let file = sector_file();
    let first = FlashFile::open(file.path()).unwrap();
    assert!(matches!(FlashFile::open(file.path()), Err(FlashError::InUse(_))));
    let small = PFlash::new(memory(2 * SIZE), BASE, FlashContents::File(first));
    let Err(error) = small else { panic!("a file of half the size was taken") };
    let text = error.to_string();
    assert!(text.contains("has 1048576 bytes, but the flash bank has 2097152"), "{text}");
    let missing = FlashFile::open(&file.path().with_extension("missing"));
    assert!(matches!(missing, Err(FlashError::Host { .. })));
}

#[test]
fn a_bank_needs_a_rom_region_and_contents_that_fit() {
    let big = vec![0; SIZE as usize + 1];
    let error = PFlash::new(memory(SIZE), BASE, FlashContents::ReadOnly(&big)).err();
    assert!(matches!(error, Some(FlashError::Size { found, bank: SIZE, .. }) if found == SIZE + 1));
    let ram = Arc::new(GuestMemory::new(&[RegionSpec::ram(BASE, SIZE)]).unwrap());
    for (memory, base) in [
        (ram, BASE),
        (memory(SIZE), BASE + SECTOR),
        (memory(3 * SECTOR), BASE),
        (memory(SECTOR), BASE),
    ] {
        let error = PFlash::new(memory, base, FlashContents::Volatile(&[])).err();
        assert!(matches!(error, Some(FlashError::Region(_))));
    }
}
