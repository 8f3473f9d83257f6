//! Replays the fuzzers' committed corpora, so that what a fuzzer once found stays fixed.

use std::fs;
use std::path::Path;

#[path = "../fuzz/decode.rs"]
mod decode;
#[path = "../fuzz/hart.rs"]
mod hart;
#[path = "../fuzz/reader.rs"]
mod reader;
#[path = "../fuzz/x86.rs"]
mod x86;

fn replay(name: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "the corpus is missing");
    for path in paths {
        println!("{}", path.display());
        run(&fs::read(path).unwrap());
    }
}

#[test]
fn decode_corpus() {
    replay("decode", decode::run);
}

#[test]
fn hart_corpus() {
    replay("hart", hart::run);
}

#[test]
fn x86_corpus() {
    replay("x86", x86::run_input);
}
