//! libFuzzer's entry to the virtqueue fuzzer.
#![no_main]

#[path = "../program.rs"]
mod program;
#[path = "../virtio.rs"]
mod virtio;

libfuzzer_sys::fuzz_target!(|data: &[u8]| virtio::run(data));
