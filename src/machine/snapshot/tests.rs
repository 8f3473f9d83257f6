//! Damaged and hostile files, byte by byte.

use std::time::Duration;

use mimic_cpu::riscv::model::CpuModel;
use mimic_devices::serial::SerialOutput;

use super::*;
use crate::loader::{self, LoadOptions};
use crate::machine::spec::{
    BoardKind, End, EngineKind, Firmware, Limits, MachineSpec, Report, Resumption, VirtioBus,
};
use crate::machine::{ConsoleIo, Machine, MachineError};

struct Nowhere;

impl SerialOutput for Nowhere {
    fn write(&mut self, _: &[u8]) {}
}

fn io() -> ConsoleIo {
    ConsoleIo { output: Box::new(Nowhere), input: None }
}

fn limits(insns: u64) -> Limits {
    Limits { insns: Some(insns), time: Some(Duration::from_secs(20)) }
}

/// A snapshot of a small deterministic machine with two harts that count.
fn small() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    // addi t0, t0, 1; j -4
    let code = [0x0012_8293u32, 0xffdf_f06f].map(u32::to_le_bytes).concat();
    let spec = MachineSpec {
        board: BoardKind::Virt,
        cpu: CpuModel::default().into(),
        cpus: 2,
        memory: 1 << 20,
        deterministic: true,
        engine: EngineKind::Interp.into(),
        firmware: Firmware::None,
        image: loader::parse(&code, &LoadOptions { load_addr: Some(0x8000_0000), bits: None })
            .unwrap(),
        initrd: None,
        cmdline: String::new(),
        console: ConsoleKind::Uart,
        virtio: VirtioBus::Mmio,
        limits: limits(5_000),
        disks: Vec::new(),
        flash: None,
        signature: None,
        pass_exit: None,
    };
    let mut machine = Machine::new(spec, io()).unwrap();
    machine.save_at_limit(path.clone());
    assert_eq!(machine.run().end, End::InsnLimit);
    (folder, path)
}

fn resume(path: &Path) -> Result<Report, MachineError> {
    let how =
        Resumption { engine: EngineKind::Interp.into(), limits: limits(2_000), disks: Vec::new() };
    Ok(Machine::resume(Snapshot::open(path)?, &how, io())?.run())
}

#[test]
fn every_flipped_byte_and_every_cut_is_refused() {
    let (_folder, path) = small();
    assert_eq!(resume(&path).unwrap().end, End::InsnLimit);
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() < 10_000, "{} bytes", whole.len());
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, bytes).unwrap();
        assert!(Snapshot::open(&path).is_err(), "byte {at} flipped");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(Snapshot::open(&path).is_err(), "cut at {at}");
    }
}

/// A file whose checksum is right can still hold anything. Whatever it holds, it is refused or runs.
#[test]
fn a_hostile_state_is_refused_or_runs() {
    let (_folder, path) = small();
    let state = Snapshot::open(&path).unwrap().state().clone();
    let whole = postcard::to_allocvec(&state).unwrap();
    let (mut refused, mut ran) = (0, 0);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        file::write_raw(&path, &bytes, &[]).unwrap();
        match resume(&path) {
            Err(_) => refused += 1,
            Ok(report) => {
                assert!(!matches!(report.end, End::Host(_)), "byte {at}: {:?}", report.end);
                ran += 1;
            }
        }
    }
    assert!(refused > 100 && ran > 100, "{refused} refused, {ran} ran");
}

#[test]
fn pages_that_are_nowhere_or_out_of_order_are_refused() {
    let (_folder, path) = small();
    let state = postcard::to_allocvec(Snapshot::open(&path).unwrap().state()).unwrap();
    let refuse = |pages: &[u64], reason: &str| {
        let mut bytes = Vec::new();
        for gpa in pages {
            bytes.extend(gpa.to_le_bytes());
            bytes.extend([1; 4096]);
        }
        bytes.extend(u64::MAX.to_le_bytes());
        file::write_raw(&path, &state, &bytes).unwrap();
        let error = resume(&path).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    refuse(&[0x8000_1000, 0x8000_0000], "not in order");
    refuse(&[0x8000_0001], "not in order");
    refuse(&[0x7fff_f000], "no memory");
    refuse(&[0xffff_ffff_ffff_e000], "no memory");
    file::write_raw(&path, &state, &0x8000_0000u64.to_le_bytes()).unwrap();
    assert!(resume(&path).unwrap_err().to_string().contains("ends too early"));
    file::write_raw(&path, &[0xff; 40], &[]).unwrap();
    assert!(resume(&path).unwrap_err().to_string().contains("malformed"));
}

#[test]
fn absurd_sizes_of_memory_are_refused_before_anything_is_taken() {
    let (_folder, path) = small();
    let state = Snapshot::open(&path).unwrap().state().clone();
    for memory in [0, 4097, 1 << 43, !0xfff] {
        let mut state = state.clone();
        state.config.memory = memory;
        file::write_raw(&path, &postcard::to_allocvec(&state).unwrap(), &[]).unwrap();
        let error = Snapshot::open(&path).err().expect("refused").to_string();
        assert!(error.contains(&format!("no machine has {memory} bytes of memory")), "{error}");
    }
}

#[test]
fn a_full_disk_is_named() {
    let error = SnapshotError::io(Path::new("x"), io::Error::from(io::ErrorKind::StorageFull));
    assert_eq!(error.to_string(), "x: the disk is full, nothing was written");
    assert!(error.is_of_host());
}
