//! The marks that a guest prints on its console: lines of their own, a phase's name as the second word.
//!
//! | line | meaning |
//! | --- | --- |
//! | `BOOTED` | what has passed until now is the phase `boot` |
//! | `START NAME` | the phase NAME begins; the first one ends `boot` as well |
//! | `BENCH NAME` | it has ended; a name that comes again adds to its time |
//! | `FAIL NAME TEXT` | it has failed, and why |

use std::time::Duration;

use super::BOOT;

/// Bytes of a line that are looked at.
const LINE: usize = 400;

/// Reads a console.
#[derive(Default)]
pub(super) struct Marks {
    line: Vec<u8>,
    until: Option<Vec<u8>>,
    /// The last bytes, as many as `until` has.
    tail: Vec<u8>,
    open: Option<(String, Duration)>,
    /// Phases that have ended.
    pub(super) phases: Vec<(String, f64)>,
    /// What the marks say or lack, each with the phase's name.
    pub(super) problems: Vec<String>,
}

impl Marks {
    /// `until`: text that ends the phase `boot`, and the run.
    pub(super) fn new(until: Option<&str>) -> Self {
        Marks { until: until.map(|text| text.as_bytes().to_vec()), ..Self::default() }
    }

    /// The guest has printed `bytes`, and its process has used `now` of CPU time. True when it has printed the text
    /// that ends the run.
    pub(super) fn feed(&mut self, bytes: &[u8], now: Duration) -> bool {
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.mark(String::from_utf8_lossy(&line).trim_end(), now);
                }
                _ if self.line.len() < LINE => self.line.push(byte),
                _ => {}
            }
        }
        let Some(until) = &self.until else { return false };
        self.tail.extend_from_slice(bytes);
        let found = self.tail.windows(until.len()).any(|window| window == until);
        let surplus = self.tail.len().saturating_sub(until.len());
        self.tail.drain(..surplus);
        if found {
            self.booted(now);
        }
        found
    }

    /// The console has ended.
    pub(super) fn finish(&mut self) {
        if let Some((name, _)) = self.open.take() {
            self.problems.push(format!("{name}: it has begun and not ended"));
        }
    }

    fn mark(&mut self, line: &str, now: Duration) {
        let mut words = line.splitn(3, ' ');
        let (Some(word), name, rest) = (words.next(), words.next(), words.next()) else { return };
        match (word, name.filter(|name| is_name(name)), rest) {
            ("BOOTED", None, None) => self.booted(now),
            ("START", Some(name), None) => {
                self.booted(now);
                self.finish();
                self.open = Some((name.to_owned(), now));
            }
            ("BENCH", Some(name), None) => match self.open.take() {
                Some((open, start)) if open == name => {
                    self.add(name, now.saturating_sub(start));
                }
                other => {
                    self.open = other;
                    self.problems.push(format!("{name}: it has ended and not begun"));
                }
            },
            ("FAIL", Some(name), why) => {
                self.open.take_if(|(open, _)| open == name);
                let why = why.unwrap_or("the guest says that it failed");
                self.problems.push(format!("{name}: {why}"));
            }
            _ => {}
        }
    }

    fn booted(&mut self, now: Duration) {
        if !self.phases.iter().any(|(name, _)| name == BOOT) {
            self.phases.insert(0, (BOOT.to_owned(), now.as_secs_f64()));
        }
    }

    fn add(&mut self, name: &str, time: Duration) {
        match self.phases.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += time.as_secs_f64(),
            None => self.phases.push((name.to_owned(), time.as_secs_f64())),
        }
    }
}

/// Other lines that begin like a mark are text.
fn is_name(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(time: u64) -> Duration {
        Duration::from_secs(time)
    }

    #[test]
    fn phases_are_read_from_a_console_that_comes_in_pieces() {
        let mut marks = Marks::new(None);
        for (time, text) in [
            (1, "OpenSBI\r\nSTA"),
            (3, "RT int-a\r\nnoise BENCH int-a\n"),
            (5, "BENCH int-a\nSTART int-b\n"),
            (6, "START of something\nSTART\nBENCH int-b"),
            (8, "\nSTART int-a\n"),
            (9, "BENCH int-a\n"),
        ] {
            assert!(!marks.feed(text.as_bytes(), seconds(time)));
        }
        marks.finish();
        let expected = [("boot", 3.0), ("int-a", 3.0), ("int-b", 3.0)];
        assert_eq!(marks.phases, expected.map(|(name, time)| (name.to_owned(), time)));
        assert!(marks.problems.is_empty(), "{:?}", marks.problems);
    }

    #[test]
    fn boot_ends_at_the_first_mark() {
        let mut marks = Marks::new(None);
        marks.feed(b"BOOTED\n", seconds(2));
        marks.feed(b"START a\n", seconds(3));
        marks.feed(b"BENCH a\n", seconds(4));
        assert_eq!(marks.phases, [("boot".to_owned(), 2.0), ("a".to_owned(), 1.0)]);
    }

    #[test]
    fn what_fails_or_is_missing_is_named() {
        let mut marks = Marks::new(None);
        marks.feed(
            b"START a\nFAIL a status 3: no such file\nBENCH b\nSTART c\nSTART d\n",
            seconds(1),
        );
        marks.finish();
        assert_eq!(
            marks.problems,
            [
                "a: status 3: no such file",
                "b: it has ended and not begun",
                "c: it has begun and not ended",
                "d: it has begun and not ended",
            ]
        );
        assert_eq!(marks.phases.len(), 1, "only `boot`");
    }

    #[test]
    fn a_prompt_ends_the_run_wherever_it_is_cut() {
        let mut marks = Marks::new(Some("root@mimic"));
        assert!(!marks.feed(b"Welcome\nroot@", seconds(1)));
        assert!(marks.feed(b"mimic:~# ", seconds(2)));
        assert_eq!(marks.phases, [("boot".to_owned(), 2.0)]);
    }
}
