//! libFuzzer's entry to the x86 processor's fuzzer.
#![no_main]

#[path = "../reader.rs"]
mod reader;
#[path = "../x86.rs"]
mod x86;

libfuzzer_sys::fuzz_target!(|data: &[u8]| x86::run_input(data));
