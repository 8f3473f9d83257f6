//! libFuzzer's entry to the loader.
#![no_main]
#![allow(dead_code, unreachable_pub, reason = "the loader's library interface is larger")]

#[path = "../../loader/mod.rs"]
mod loader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| loader::fuzz::fuzz(data));
