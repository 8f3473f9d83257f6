//! Replays the fuzzers' committed corpora, so that what a fuzzer once found stays fixed.

use std::fs;
use std::path::Path;

#[path = "../fuzz/block.rs"]
mod block;
#[path = "../fuzz/program.rs"]
mod program;
#[path = "../fuzz/virtio.rs"]
mod virtio;

/// Runs every input of a target's corpus.
fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
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
fn virtio_corpus() {
    replay("virtio", virtio::run);
}

#[test]
fn block_corpus() {
    replay("block", block::run);
}
