//! What the fuzzer of the loader runs; the committed corpus is replayed by `cargo test` as well.

use super::{ImageKind, LoadOptions, parse};

/// Parses arbitrary bytes, once as a file and once as flat code, and checks what the rest of the
/// program relies on.
///
/// # Panics
/// When the loader breaks a promise of [`super::LoadedImage`].
pub fn fuzz(data: &[u8]) {
    let flat = LoadOptions { load_addr: Some(0x8000_0000), bits: None };
    for options in [LoadOptions::default(), flat] {
        let image = match parse(data, &options) {
            Ok(image) => image,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        let (low, high) = image.span().expect("an image has segments");
        assert!(low <= high);
        for segment in &image.segments {
            assert!(segment.bytes.len() as u64 <= segment.size);
            assert!(segment.addr.checked_add(segment.size).is_some());
        }
        if image.kind == ImageKind::LinuxImage {
            assert!(image.image_size >= image.segments[0].size);
        }
        if let Some((begin, end)) = image.signature {
            assert!(begin <= end);
        }
        if let Some((name, _)) = image.symbols.at(image.entry) {
            assert!(!name.is_empty());
        }
    }
}
