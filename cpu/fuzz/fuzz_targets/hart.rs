//! libFuzzer's entry to the hart's fuzzer.
#![no_main]

#[path = "../hart.rs"]
mod hart;
#[path = "../reader.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hart::run(data));
