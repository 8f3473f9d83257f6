//! Any bytes as instructions.
//!
//! Whatever the word, decoding does not panic, the row it finds is the only one that fits, and a
//! compressed instruction means exactly what its expansion means.

#[path = "../tests/common/names.rs"]
mod names;

use std::sync::LazyLock;

use mimic_cpu::riscv::decode::{Decoder, insn_len};
use names::Names;

static DECODER: LazyLock<Decoder<Names>> = LazyLock::new(Decoder::default);

/// Decodes the words that the input consists of, at every kind of place in a page.
pub(crate) fn run(data: &[u8]) {
    for bytes in data.chunks(4) {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        check(u32::from_le_bytes(word));
    }
}

fn check(word: u32) {
    let long = if insn_len(word) == 2 {
        let Some(long) = DECODER.expand(word) else {
            assert_eq!(DECODER.decode(word, 0), None);
            return;
        };
        assert_eq!(DECODER.expand(word & 0xffff), Some(long), "{word:#x}: the high half matters");
        assert_eq!(insn_len(long), 4, "{word:#x}: expanded to something compressed");
        assert!(DECODER.decode(long, 0).is_some(), "{word:#x}: expanded to nothing, {long:#x}");
        long
    } else {
        word
    };
    let fitting = DECODER.rows().iter().filter(|row| row.pattern.matches(long)).count();
    for offset in [0, 2, 0x7fe, 0xffc, 0xffe] {
        let Some(insn) = DECODER.decode(word, offset) else {
            assert_eq!(fitting, 0, "{word:#x}: a row fits but was not found");
            continue;
        };
        let row = &DECODER.rows()[usize::from(insn.row)];
        assert!(row.pattern.matches(long), "{word:#x}: not a {}", row.name);
        assert_eq!(fitting, 1, "{word:#x}: several rows fit");
        let at = insn.args.at();
        assert_eq!((at.offset(), at.bytes()), (offset, insn_len(word)));
        let expanded = DECODER.decode(long, offset).expect("decoded before");
        assert_eq!((expanded.row, expanded.args.moved(at)), (insn.row, insn.args));
        assert_eq!(row.format.operands(long, at), insn.args);
    }
}
