//! Pieces of a hart and of the machine around it: decoding, the soft TLB, device accesses.
//!
//! `cargo bench --bench hart`
#![allow(unsafe_code)] // The TLB is filled with a page of this program's own.

#[path = "support/cpu_time.rs"]
mod cpu_time;
/// Rows without handlers: decoding alone.
#[path = "../cpu/tests/common/names.rs"]
mod names;

use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use criterion::{Criterion, criterion_group, criterion_main};
use mimic_cpu::ram::HostPage;
use mimic_cpu::riscv::decode::Decoder;
use mimic_cpu::tlb::{Fill, TableKey, Tlb};
use mimic_devices::bus::{AddressSpace, Width};
use mimic_devices::clock::{Clock, TimerQueue};
use mimic_devices::irq::IrqLine;
use mimic_devices::serial::SerialOutput;
use mimic_devices::uart16550::{Config, Uart16550};

use cpu_time::{CpuTime, criterion, instructions};
use names::Names;

/// Every 32-bit instruction once, operands zero, and every compressed one.
fn words(decoder: &Decoder<Names>) -> Vec<u32> {
    let compressed = mimic_cpu::riscv::insn::c::ROWS.iter().map(|row| row.pattern.value);
    decoder.rows().iter().map(|row| row.pattern.value).chain(compressed).collect()
}

fn decode(c: &mut Criterion<CpuTime>) {
    let decoder = Decoder::<Names>::default();
    let words = words(&decoder);
    let mut group = c.benchmark_group("decode");
    group.throughput(instructions(words.len() as u64));
    group.bench_function("every instruction once", |b| {
        b.iter(|| {
            for &word in &words {
                black_box(decoder.decode(black_box(word), 0));
            }
        });
    });
    group.finish();
}

#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "reached through the TLB alone")] [u8; 4096]);

fn tlb(c: &mut Criterion<CpuTime>) {
    let key = TableKey { space: 0, asid: 0, class: 0 };
    let page = NonNull::from(Box::leak(Box::new(Page([0; 4096]))));
    // SAFETY: page-aligned by its type, leaked, and not referenced otherwise.
    let host = unsafe { HostPage::new(page.cast()) };
    let mut tlb = Tlb::new(key);
    let fill = |va| Fill { va, gpa: 0, host, read: true, write: true, span: 4096 };
    for page in 0..64u64 {
        tlb.fill(fill(page << 12));
    }
    c.bench_function("tlb/load hit", |b| {
        let mut va = 0u64;
        b.iter(|| {
            va = va.wrapping_add(0x1008) & 0x3_fff8;
            black_box(tlb.load::<u64>(va))
        });
    });
    c.bench_function("tlb/store hit", |b| {
        let mut va = 0u64;
        b.iter(|| {
            va = va.wrapping_add(0x1008) & 0x3_fff8;
            black_box(tlb.store(va, va))
        });
    });
    c.bench_function("tlb/fill", |b| {
        let mut va = 0u64;
        b.iter(|| {
            va = va.wrapping_add(0x1000) & 0x3_ffff;
            tlb.fill(fill(va));
        });
    });
    c.bench_function("tlb/fill 8 pages and flush", |b| {
        b.iter(|| {
            for page in 0..8u64 {
                tlb.fill(fill(page << 12));
            }
            tlb.flush_matching(Some(0), None);
        });
    });
}

struct Nowhere;

impl SerialOutput for Nowhere {
    fn write(&mut self, _: &[u8]) {}
}

fn mmio(c: &mut Criterion<CpuTime>) {
    let space = AddressSpace::new();
    let (uart, _input) = Uart16550::new(
        Config::default(),
        Clock::real(),
        &TimerQueue::new(),
        IrqLine::unconnected(),
        Box::new(Nowhere),
    );
    let uart: Arc<Mutex<Uart16550>> = uart;
    space.map(0x1000_0000, 0x100, uart).expect("the space is empty");
    c.bench_function("mmio/read line status", |b| {
        b.iter(|| black_box(space.read(black_box(0x1000_0005), Width::Byte)));
    });
    c.bench_function("mmio/write a character", |b| {
        b.iter(|| black_box(space.write(black_box(0x1000_0000), Width::Byte, 0x41)));
    });
}

criterion_group! { name = benches; config = criterion(); targets = decode, tlb, mmio }
criterion_main!(benches);
