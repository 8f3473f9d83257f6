//! Replays the fuzzers' committed corpora, so that what a fuzzer once found stays fixed.

use std::fs;
use std::path::Path;

#[path = "../fuzz/virtio.rs"]
mod virtio;

#[test]
fn virtio_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/virtio");
    let mut paths: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "the corpus is missing");
    for path in paths {
        println!("{}", path.display());
        virtio::run(&fs::read(path).unwrap());
    }
}
