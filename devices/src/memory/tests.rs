use super::*;
use std::collections::hash_map::DefaultHasher;
use std::sync::Mutex;

const RAM: u64 = 0x8000_0000;

fn memory() -> GuestMemory {
    GuestMemory::new(&[RegionSpec::ram(RAM, 0x4000), RegionSpec::rom(0x1000, 0x1000)]).unwrap()
}

#[test]
fn bytes_come_back_at_every_alignment() {
    let memory = memory();
    let pattern: Vec<u8> = (0..64).map(|i| i * 3 + 1).collect();
    for start in 0..9 {
        for len in 0..40 {
            memory.write_from(RAM, &[0; 64]).unwrap();
            memory.write_from(RAM + start, &pattern[..len]).unwrap();
            let mut all = [0; 64];
            memory.read_into(RAM, &mut all).unwrap();
            let (start, end) = (start as usize, start as usize + len);
            assert_eq!(all[start..end], pattern[..len]);
            assert!(all[..start].iter().chain(&all[end..]).all(|&byte| byte == 0));
            let mut part = vec![0; len];
            memory.read_into(RAM + start as u64, &mut part).unwrap();
            assert_eq!(part, pattern[..len]);
        }
    }
}

#[test]
fn integers_are_little_endian_at_every_alignment() {
    let memory = memory();
    for offset in 0..8 {
        let gpa = RAM + 0x100 + offset;
        memory.store(gpa, 0x0807_0605_0403_0201_u64).unwrap();
        assert_eq!(memory.load::<u8>(gpa), Ok(1));
        assert_eq!(memory.load::<u16>(gpa + 1), Ok(0x0302));
        assert_eq!(memory.load::<u32>(gpa + 3), Ok(0x0706_0504));
        assert_eq!(memory.load::<u64>(gpa), Ok(0x0807_0605_0403_0201));
        memory.store(gpa + 1, 0xbbaa_u16).unwrap();
        assert_eq!(memory.load::<u32>(gpa), Ok(0x04bb_aa01));
    }
}

#[test]
fn ends_holes_and_rom_are_refused() {
    let memory = memory();
    let end = RAM + 0x4000;
    assert!(memory.write_from(end - 4, &[1; 4]).is_ok());
    assert_eq!(memory.write_from(end - 3, &[1; 4]), Err(OutOfRange { gpa: end - 3, len: 4 }));
    assert!(memory.read_into(end, &mut []).is_ok());
    for gpa in [0, 0xfff, 0x1ffd, 0x2000, RAM - 1, end - 3, end, u64::MAX] {
        assert!(memory.load::<u32>(gpa).is_err(), "{gpa:#x}");
    }
    assert!(memory.store(0x1000, 1_u8).is_err());
    assert!(memory.write_from(0x1000, &[1]).is_err());
    memory.fill(0x1000, &[7]).unwrap();
    assert_eq!(memory.load::<u8>(0x1000), Ok(7));
    assert!(memory.contains(0x1000, 0x1000) && !memory.is_ram(0x1000, 1));
    assert!(memory.is_ram(RAM, 0x4000) && !memory.contains(RAM, 0x4001));
    assert!(!memory.contains(RAM, u64::MAX));
}

#[test]
fn regions_are_whole_pages_that_do_not_overlap() {
    let ram = RegionSpec::ram;
    for bad in [ram(1, 0x1000), ram(0, 0x800), ram(0, 0), ram(u64::MAX - 0xfff, 0x1000)] {
        assert!(matches!(GuestMemory::new(&[bad]), Err(MemoryError::Range { .. })));
    }
    let overlap = GuestMemory::new(&[ram(0x1000, 0x2000), RegionSpec::rom(0x2000, 0x1000)]);
    assert!(matches!(overlap, Err(MemoryError::Overlap("ram", "rom"))));
    assert!(GuestMemory::new(&[ram(0x1000, 0x1000), ram(0x2000, 0x1000)]).is_ok());
}

#[test]
fn sixteen_gigabytes_cost_nothing_until_touched() {
    let memory = GuestMemory::new(&[RegionSpec::ram(RAM, 16 << 30)]).unwrap();
    let top = RAM + (16 << 30) - 8;
    memory.store(top, 5_u64).unwrap();
    assert_eq!(memory.load::<u64>(top), Ok(5));
    memory.clear_ram().unwrap();
    assert_eq!(memory.load::<u64>(top), Ok(0));
}

#[test]
fn a_host_page_is_the_page() {
    let memory = memory();
    memory.store(RAM + 0x1008, 0x55_u8).unwrap();
    let page = memory.host_page(RAM + 0x1fff).unwrap();
    assert!(page.writable && page.watched.is_empty());
    let host = memory.regions()[1].host().as_ptr() as usize;
    assert_eq!(page.ptr.as_ptr() as usize, host + 0x1000);
    memory.watch(RAM + 0x1234, WatchBits::CODE);
    assert_eq!(memory.host_page(RAM + 0x1000).unwrap().watched, WatchBits::CODE);
    assert!(!memory.host_page(0x1800).unwrap().writable);
    assert!(memory.host_page(RAM + 0x4000).is_none());
    let host = memory.regions()[0].host().as_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let before = maps.lines().find(|line| line.contains(&format!("-{host:x} "))).unwrap();
    assert!(before.contains("---p"), "no guard before the region: {before}");
    let after = format!("{:x}-", host + 0x1000);
    let after = maps.lines().find(|line| line.starts_with(&after)).unwrap();
    assert!(after.contains("---p"), "no guard after the region: {after}");
}

#[derive(Default)]
struct Log(Mutex<Vec<(u64, u64, WatchBits)>>);

impl WriteObserver for Log {
    fn written(&self, gpa: u64, len: u64, bits: WatchBits) {
        self.0.lock().unwrap().push((gpa, len, bits));
    }
}

#[test]
fn writes_to_watched_pages_are_reported_page_by_page() {
    let memory = memory();
    let log = Arc::new(Log::default());
    let observer: Arc<dyn WriteObserver> = log.clone();
    memory.observe(WatchBits::CODE | WatchBits::HTIF, &observer);
    assert_eq!(memory.watch(RAM + 0x1800, WatchBits::CODE), WatchBits::empty());
    memory.watch(RAM + 0x2000, WatchBits::HTIF);
    memory.write_from(RAM + 0xff0, &[0; 0x1020]).unwrap();
    memory.written(RAM + 0x1ffc, 4);
    memory.store(RAM + 0x3000, 1_u8).unwrap();
    memory.written(RAM + 0x3fff, 2);
    memory.write_from(RAM + 0x1000, &[]).unwrap();
    assert_eq!(memory.unwatch(RAM + 0x1000, WatchBits::CODE), WatchBits::CODE);
    memory.store(RAM + 0x1000, 1_u8).unwrap();
    let expected = [
        (RAM + 0x1000, 0x1000, WatchBits::CODE),
        (RAM + 0x2000, 0x10, WatchBits::HTIF),
        (RAM + 0x1ffc, 4, WatchBits::CODE),
    ];
    assert_eq!(*log.0.lock().unwrap(), expected);
    drop((observer, log));
    memory.store(RAM + 0x2000, 1_u8).unwrap();
}

#[test]
fn dirty_logging_reports_each_page_once() {
    let memory = memory();
    let log = Arc::new(Log::default());
    let observer: Arc<dyn WriteObserver> = log.clone();
    memory.observe(WatchBits::DIRTY, &observer);
    memory.begin_dirty_log();
    memory.watch(RAM, WatchBits::CODE);
    assert_eq!(memory.dirty_pages().count(), 0);
    memory.store(RAM + 0x2010, 1_u32).unwrap();
    memory.store(RAM + 0x2018, 1_u32).unwrap();
    memory.written(RAM, 1);
    assert_eq!(memory.dirty_pages().collect::<Vec<_>>(), [RAM, RAM + 0x2000]);
    assert_eq!(log.0.lock().unwrap().len(), 2);
    assert_eq!(memory.watched(RAM), WatchBits::CODE);
    memory.end_dirty_log();
    assert_eq!(memory.watched(RAM), WatchBits::CODE);
}

#[test]
fn page_hashes_follow_the_contents() {
    let memory = memory();
    let hash = |gpa| {
        let mut hasher = DefaultHasher::new();
        memory.hash_page(gpa, &mut hasher).unwrap();
        hasher.finish()
    };
    let zero = hash(RAM);
    assert_eq!(zero, hash(RAM + 0x1fff));
    memory.store(RAM + 0xfff, 1_u8).unwrap();
    assert_ne!(zero, hash(RAM));
    assert!(memory.hash_page(0, &mut DefaultHasher::new()).is_err());
}

#[derive(Default)]
struct Hidden(Mutex<Vec<(u64, u64)>>);

impl VisibilityObserver for Hidden {
    fn hidden(&self, gpa: u64, len: u64) {
        self.0.lock().unwrap().push((gpa, len));
    }
}

#[test]
fn a_hidden_region_has_no_host_page_but_keeps_its_bytes() {
    let memory = memory();
    let log = Arc::new(Hidden::default());
    let observer: Arc<dyn VisibilityObserver> = log.clone();
    memory.observe_visibility(&observer);
    memory.set_visible(0x1000, true);
    assert!(log.0.lock().unwrap().is_empty(), "nothing changed");
    memory.set_visible(0x1800, false);
    memory.set_visible(0x1000, false);
    assert!(memory.host_page(0x1000).is_none() && memory.host_page(RAM).is_some());
    assert!(!memory.regions()[0].visible() && memory.regions()[1].visible());
    memory.fill(0x1000, &[9]).unwrap();
    assert_eq!(memory.load::<u8>(0x1000), Ok(9));
    memory.set_visible(0x1000, true);
    assert!(memory.host_page(0x1000).is_some());
    memory.set_visible(0, false);
    assert_eq!(*log.0.lock().unwrap(), [(0x1000, 0x1000)]);
    drop((observer, log));
    memory.set_visible(0x1000, false);
    assert!(memory.host_page(0x1000).is_none());
}
