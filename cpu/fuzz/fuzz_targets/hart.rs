//! libFuzzer's entry to the hart's fuzzer.
#![no_main]

#[path = "../hart.rs"]
mod hart;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hart::run(data));
