use super::*;
use crate::memory::RegionSpec;

const RAM: u64 = 0x8000_0000;
const RAM_SIZE: u64 = 0x10_0000;
const ACCESS: u64 = RAM + 0x100;
const TARGET: u64 = RAM + 0x1000;

const SELECT: u32 = 8;
const READ: u32 = 2;
const SKIP: u32 = 4;
const WRITE: u32 = 16;
const ERROR: u32 = 1;

fn items() -> FwCfgItems {
    let mut items = FwCfgItems::new();
    items.set_u16(key::CPUS, 4).unwrap();
    items.set_u16(key::MAX_CPUS, 8).unwrap();
    items.set_cmdline("console=ttyS0").unwrap();
    items.add_file("opt/z", *b"last").unwrap();
    items.add_file("bootorder", *b"/soc/virtio\0").unwrap();
    items.add_file("etc/boot-fail-wait", [0xff; 4]).unwrap();
    items
}

fn device(layout: Layout) -> (FwCfg, Arc<GuestMemory>) {
    let specs = [RegionSpec::ram(RAM, RAM_SIZE), RegionSpec::rom(0x1000, 0x1000)];
    let memory = Arc::new(GuestMemory::new(&specs).unwrap());
    (FwCfg::new(Arc::clone(&memory), layout, items()), memory)
}

/// Selects as a little-endian CPU does for a big-endian register.
fn select(device: &mut FwCfg, key: u16) {
    device.write(8, Width::Half, key.swap_bytes().into()).unwrap();
}

fn read_bytes(device: &mut FwCfg, len: usize) -> Vec<u8> {
    (0..len).map(|_| device.read(0, Width::Byte).unwrap() as u8).collect()
}

/// Performs one DMA access and returns the control field afterwards.
fn dma(device: &mut FwCfg, memory: &GuestMemory, control: u32, len: u32, target: u64) -> u32 {
    let mut access = control.to_be_bytes().to_vec();
    access.extend(len.to_be_bytes());
    access.extend(target.to_be_bytes());
    memory.write_from(ACCESS, &access).unwrap();
    device.write(0x10, Width::Double, ACCESS.swap_bytes()).unwrap();
    u32::from_be(memory.load(ACCESS).unwrap())
}

fn bytes_at(memory: &GuestMemory, gpa: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_into(gpa, &mut bytes).unwrap();
    bytes
}

#[test]
fn signature_features_and_counts() {
    let (mut device, _) = device(Layout::Mmio);
    assert_eq!(read_bytes(&mut device, 6), b"QEMU\0\0", "item 0 is selected at reset");
    select(&mut device, 1);
    assert_eq!(device.read(0, Width::Word), Ok(3));
    select(&mut device, 5);
    assert_eq!(device.read(0, Width::Half), Ok(4));
    select(&mut device, 0x0f);
    assert_eq!(device.read(0, Width::Half), Ok(8));
    select(&mut device, 0x14);
    assert_eq!(device.read(0, Width::Word), Ok(14));
    select(&mut device, 0x15);
    assert_eq!(read_bytes(&mut device, 14), b"console=ttyS0\0");
}

#[test]
fn wide_reads_keep_the_bytes_in_order_and_end_in_zeroes() {
    let (mut device, _) = device(Layout::Mmio);
    select(&mut device, 0x15);
    assert_eq!(device.read(0, Width::Double), Ok(u64::from_le_bytes(*b"console=")));
    assert_eq!(device.read(0, Width::Half), Ok(u64::from(u16::from_le_bytes(*b"tt"))));
    assert_eq!(device.read(0, Width::Double), Ok(u64::from_le_bytes(*b"yS0\0\0\0\0\0")));
    assert_eq!(device.read(0, Width::Double), Ok(0));
}

#[test]
fn the_directory_lists_the_files_by_name() {
    let (mut device, _) = device(Layout::Mmio);
    select(&mut device, 0x19);
    let directory = read_bytes(&mut device, 4 + 3 * 64 + 1);
    assert_eq!(directory[..4], [0, 0, 0, 3]);
    let files = [("bootorder", 12), ("etc/boot-fail-wait", 4), ("opt/z", 4)];
    for (index, (name, size)) in files.into_iter().enumerate() {
        let entry = &directory[4 + 64 * index..][..64];
        assert_eq!(entry[..8], [0, 0, 0, size, 0, 0x20 + index as u8, 0, 0]);
        let mut expected = [0; 56];
        expected[..name.len()].copy_from_slice(name.as_bytes());
        assert_eq!(entry[8..], expected);
    }
    select(&mut device, 0x22);
    assert_eq!(read_bytes(&mut device, 4), b"last");
    assert_eq!(items().file_key("opt/z"), Some(0x22));
    assert_eq!(items().file_key("opt/y"), None);
}

#[test]
fn unknown_items_are_empty_and_the_write_bit_is_no_part_of_the_number() {
    let (mut device, _) = device(Layout::Mmio);
    for key in [0x02, 0x1f, 0x23, 0x3fff, 0x8000, 0x8005, 0x8020, 0xffff] {
        select(&mut device, key);
        assert_eq!(device.read(0, Width::Double), Ok(0), "{key:#x}");
    }
    select(&mut device, 0x4005);
    device.write(0, Width::Byte, 9).unwrap();
    assert_eq!(device.read(0, Width::Half), Ok(4), "data writes are ignored");
}

#[test]
fn dma_selects_reads_and_skips() {
    let (mut device, memory) = device(Layout::Mmio);
    memory.write_from(TARGET, &[0xaa; 32]).unwrap();
    assert_eq!(dma(&mut device, &memory, 0x15 << 16 | SELECT | READ, 8, TARGET), 0);
    assert_eq!(bytes_at(&memory, TARGET, 9), b"console=\xaa");
    assert_eq!(dma(&mut device, &memory, SKIP, 3, u64::MAX), 0);
    assert_eq!(dma(&mut device, &memory, READ, 6, TARGET), 0);
    assert_eq!(bytes_at(&memory, TARGET, 7), *b"S0\0\0\0\0e", "zeroes past the end");
    assert_eq!(dma(&mut device, &memory, 0x15 << 16 | SELECT, 99, TARGET), 0);
    assert_eq!(read_bytes(&mut device, 3), b"con", "selecting alone transfers nothing");
    assert_eq!(dma(&mut device, &memory, SKIP, u32::MAX, 0), 0);
    assert_eq!(device.read(0, Width::Byte), Ok(0));
}

#[test]
fn a_dma_read_fills_the_rest_with_zeroes() {
    let (mut device, memory) = device(Layout::Mmio);
    let len = 0x5003;
    memory.write_from(TARGET, &vec![0xaa; len + 1]).unwrap();
    assert_eq!(dma(&mut device, &memory, SELECT | READ, len as u32, TARGET), 0);
    let mut expected = vec![0; len + 1];
    expected[..4].copy_from_slice(b"QEMU");
    expected[len] = 0xaa;
    assert_eq!(bytes_at(&memory, TARGET, len + 1), expected);
}

#[test]
fn dma_by_two_halves_starts_with_the_lower_one() {
    let (mut device, memory) = device(Layout::Mmio);
    memory.write_from(ACCESS, &[0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0, 0x80, 0, 0x10, 0]).unwrap();
    let halves = ACCESS.to_be_bytes();
    let half = |at: usize| u32::from_le_bytes(halves[at..at + 4].try_into().unwrap()).into();
    device.write(0x10, Width::Word, half(0)).unwrap();
    assert_eq!(memory.load::<u32>(ACCESS), Ok(2_u32.to_be()), "not yet");
    device.write(0x14, Width::Word, half(4)).unwrap();
    assert_eq!(memory.load::<u32>(ACCESS), Ok(0));
    assert_eq!(bytes_at(&memory, TARGET, 4), b"QEMU");
}

#[test]
fn writes_and_bad_targets_set_the_error_bit_and_change_nothing() {
    let (mut device, memory) = device(Layout::Mmio);
    memory.write_from(TARGET, &[0xaa; 4]).unwrap();
    assert_eq!(dma(&mut device, &memory, SELECT | WRITE, 4, TARGET), ERROR);
    assert_eq!(dma(&mut device, &memory, 0x20 << 16 | SELECT | WRITE, 1, TARGET), ERROR);
    let end = RAM + RAM_SIZE;
    let bad = [(end - 3, 4), (0, 4), (0x1000, 4), (u64::MAX, u32::MAX), (TARGET, u32::MAX)];
    for (target, len) in bad {
        let control = dma(&mut device, &memory, SELECT | READ, len, target);
        assert_eq!(control, ERROR, "{target:#x}+{len:#x}");
    }
    assert_eq!(bytes_at(&memory, TARGET, 4), [0xaa; 4]);
    assert_eq!(memory.load::<u8>(end - 1), Ok(0));
    assert_eq!(read_bytes(&mut device, 4), b"QEMU");
    // Descriptors that are not in memory, cross its end, or are read-only.
    for gpa in [0, RAM - 1, end - 15, u64::MAX, u64::MAX - 15, 0x1ff8] {
        device.write(0x10, Width::Double, gpa.swap_bytes()).unwrap();
    }
}

#[test]
fn the_dma_register_reads_as_its_signature() {
    let (mut device, _) = device(Layout::Mmio);
    let signature = 0x5145_4d55_2043_4647_u64; // as a big-endian number: fw_cfg.rst
    assert_eq!(device.read(0x10, Width::Double), Ok(signature.swap_bytes()));
    assert_eq!(device.read(0x14, Width::Word), Ok(0x2043_4647_u32.swap_bytes().into()));
    assert_eq!(device.read(0x17, Width::Byte), Ok(0x47));
}

#[test]
fn registers_have_their_widths() {
    let (mut device, _) = device(Layout::Mmio);
    for (offset, width) in [(1, Width::Byte), (4, Width::Word), (8, Width::Word), (9, Width::Byte)]
    {
        assert_eq!(device.read(offset, width), Err(BusError::Width));
        assert_eq!(device.write(offset, width, 0), Err(BusError::Width));
    }
    assert_eq!(device.read(8, Width::Half), Err(BusError::Refused));
    assert_eq!(device.read(0x14, Width::Double), Err(BusError::Width));
    for (offset, width) in [(0x10, Width::Half), (0x12, Width::Word), (0x17, Width::Byte)] {
        assert_eq!(device.write(offset, width, 0), Err(BusError::Width));
    }
}

#[test]
fn the_ports_of_a_pc() {
    let (mut device, memory) = device(Layout::Ports);
    assert_eq!(device.write(0, Width::Half, 0x05), Ok(()));
    assert_eq!((device.read(1, Width::Byte), device.read(1, Width::Byte)), (Ok(4), Ok(0)));
    assert_eq!(device.read(4, Width::Word), Ok(0x5145_4d55_u32.swap_bytes().into()));
    memory.write_from(ACCESS, &[0, 0, 0, 10, 0, 0, 0, 4, 0, 0, 0, 0, 0x80, 0, 0x10, 0]).unwrap();
    device.write(8, Width::Word, (ACCESS as u32).swap_bytes().into()).unwrap();
    assert_eq!(bytes_at(&memory, TARGET, 4), b"QEMU");
    for (offset, width) in [(2, Width::Byte), (0, Width::Word), (1, Width::Half)] {
        assert_eq!(device.read(offset, width), Err(BusError::Width));
    }
}

#[test]
fn names_and_numbers_are_checked() {
    let mut items = items();
    for name in ["", "nul\0", "ümlaut", &"n".repeat(56)] {
        assert_eq!(items.add_file(name, []), Err(ItemError::Name(name.to_owned())));
    }
    items.add_file(&"n".repeat(55), []).unwrap();
    let twice = Err(ItemError::Duplicate("opt/z".to_owned()));
    assert_eq!(items.add_file("opt/z", *b"other"), twice);
    for key in [0, 1, 0x19, 0x20, 0x4005, 0xc000, 0x8020] {
        assert_eq!(items.set(key, []), Err(ItemError::Key(key)));
    }
    items.set(0x8003, [1]).unwrap();
}

#[test]
fn a_saved_device_goes_on_where_it_was() {
    let (mut first, _) = device(Layout::Mmio);
    select(&mut first, 0x15);
    assert_eq!(read_bytes(&mut first, 8), b"console=");
    let saved = first.save();
    let (mut second, _) = device(Layout::Mmio);
    second.restore(&saved).unwrap();
    assert_eq!(read_bytes(&mut second, 5), b"ttyS0");
    let state = FwCfgState { selected: 0x15, offset: 15, dma_high: 0 };
    let bad = SavedDevice::encode(VERSION, &state);
    assert_eq!(second.restore(&bad), Err(RestoreError::Invalid("fw_cfg offset")));
    second.reset();
    assert_eq!(read_bytes(&mut second, 4), b"QEMU");
}
