//! libFuzzer's entry to the block device fuzzer.
#![no_main]

#[path = "../block.rs"]
mod block;
#[path = "../program.rs"]
mod program;

libfuzzer_sys::fuzz_target!(|data: &[u8]| block::run(data));
