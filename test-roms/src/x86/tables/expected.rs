//! Expected outcomes: a text that one can read, and compare with what simulators list.
//!
//! First the outcomes that occur, a line each: their words in hex. Then a line for each row of cells: its name, a colon,
//! and the outcomes of its cells by their numbers, from 0; `number*count` repeats one. `#` and a space begin a comment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Cell, Table};

/// An outcome's words.
type Words = Vec<u32>;

/// What is expected.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// The outcomes that occur.
    pub(super) known: Vec<Words>,
    /// The index of each cell's.
    pub(super) cells: Vec<u16>,
}

/// An outcome that is none: of a table whose expectations are still to be written.
const NONE: u32 = 0xdead_dead;

fn hex(words: &[u32]) -> String {
    words.iter().map(|word| format!("{word:x}")).collect::<Vec<_>>().join(" ")
}

/// Cells by rows, in their order.
fn rows(cells: &[Cell]) -> impl Iterator<Item = &[Cell]> {
    cells.chunk_by(|a, b| a.row == b.row)
}

/// Reads the text for a table.
///
/// # Panics
/// When it is not one for these cells.
pub(super) fn parse(text: &str, cells: &[Cell], words: usize) -> Outcomes {
    let mut known = Vec::new();
    let mut by_row = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with("# ") && !line.is_empty()) {
        if let Some((row, outcomes)) = line.split_once(": ") {
            by_row.insert(row, outcomes);
        } else {
            let words = line.split(' ').map(|word| u32::from_str_radix(word, 16));
            known.push(words.collect::<Result<Words, _>>().expect("words in hex"));
        }
    }
    if known.is_empty() {
        return Outcomes { known: vec![vec![NONE; words]], cells: vec![0; cells.len()] };
    }
    assert!(known.iter().all(|outcome| outcome.len() == words), "{words} words each");
    let mut indices = Vec::with_capacity(cells.len());
    for row in rows(cells) {
        let name = &row[0].row;
        let outcomes = by_row.get(name.as_str()).unwrap_or_else(|| panic!("no row `{name}`"));
        let before = indices.len();
        for part in outcomes.split(' ') {
            let (index, count) = part.split_once('*').unwrap_or((part, "1"));
            let index: u16 = index.parse().expect("the number of an outcome");
            assert!(usize::from(index) < known.len(), "{name}: no outcome {index}");
            indices.extend(std::iter::repeat_n(index, count.parse().expect("a count")));
        }
        assert_eq!(indices.len() - before, row.len(), "{name}");
    }
    Outcomes { known, cells: indices }
}

/// What the guest printed by `list`.
fn listing<'a>(table: &Table, text: &'a str) -> Result<Vec<&'a str>, String> {
    let shape = |line: &&str| {
        let line = line.trim();
        line.split(' ').count() == table.words.len()
            && line.bytes().all(|byte| byte == b' ' || byte.is_ascii_hexdigit())
    };
    let lines: Vec<&str> = text.lines().filter(shape).map(str::trim).collect();
    if lines.len() == table.cells.len() {
        Ok(lines)
    } else {
        let (got, want) = (lines.len(), table.cells.len());
        let next = table.cells.get(got).map_or(String::new(), |cell| table.name(cell));
        Err(format!("{got} cells listed of {want}; the next is `{next}`"))
    }
}

impl Table {
    /// The text of expectations that listings make.
    ///
    /// # Errors
    /// A listing is not whole, or the table is not in order.
    pub(crate) fn expectations(&self, text: &str, head: &str) -> Result<String, String> {
        let lines = listing(self, text)?;
        let mut numbers = BTreeMap::new();
        let mut known = String::new();
        for line in &lines {
            let next = numbers.len();
            numbers.entry(*line).or_insert_with(|| {
                let _ = writeln!(known, "{line}");
                next
            });
        }
        let mut out = String::new();
        for line in head.lines() {
            let _ = writeln!(out, "# {line}");
        }
        out += &known;
        let names: BTreeSet<&str> = rows(&self.cells).map(|row| row[0].row.as_str()).collect();
        if names.len() != rows(&self.cells).count() {
            return Err("a row's cells are not together".into());
        }
        let mut left = &lines[..];
        for row in rows(&self.cells) {
            let (these, rest) = left.split_at(row.len());
            left = rest;
            let parts: Vec<String> = these
                .chunk_by(|a, b| a == b)
                .map(|same| match (numbers[same[0]], same.len()) {
                    (number, 1) => number.to_string(),
                    (number, count) => format!("{number}*{count}"),
                })
                .collect();
            let _ = writeln!(out, "{}: {}", row[0].row, parts.join(" "));
        }
        Ok(out)
    }

    /// Where a listing differs from what is expected: by outcomes (listed, expected).
    ///
    /// # Errors
    /// The listing is not whole.
    pub(crate) fn differences(&self, text: &str) -> Result<Vec<(String, String, String)>, String> {
        let lines = listing(self, text)?;
        let outcomes = parse(self.expected, &self.cells, self.words.len());
        let expected = outcomes.cells.iter().map(|&index| hex(&outcomes.known[usize::from(index)]));
        let differing = lines.iter().zip(expected).zip(&self.cells);
        Ok(differing
            .filter(|((line, expected), _)| *line != expected)
            .map(|((line, expected), cell)| (self.name(cell), (*line).to_owned(), expected))
            .collect())
    }
}
