//! What the guest's output did to the terminal, followed closely enough to undo it.
//!
//! Sources: ECMA-48 (control functions), "XTerm Control Sequences" (private modes). Undoing what was
//! never done is not harmless: leaving an alternate screen that was not entered moves the cursor.

/// Private modes (DECSET) that are off on a fresh terminal and matter after the guest has gone: cursor
/// keys, alternate screens, mouse reports, bracketed paste.
const NORMALLY_OFF: &[u16] = &[1, 47, 1047, 1049, 1000, 1002, 1003, 1005, 1006, 1015, 2004];
/// Private modes that are on on a fresh terminal: line wrap, cursor.
const NORMALLY_ON: &[u16] = &[7, 25];

/// Where the parser is in a control sequence.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC [.
    Sequence {
        /// The parameters began with `?`.
        private: bool,
    },
}

/// The modes of a terminal, as far as the guest changed them.
#[derive(Default)]
pub(super) struct Modes {
    place: Place,
    /// Parameters of the current sequence; further ones are ignored.
    parameters: [u16; 8],
    count: usize,
    /// Private modes that differ from a fresh terminal.
    changed: Vec<u16>,
    scroll_region: bool,
    insert: bool,
    /// Anything but plain text came: attributes and charset are unknown.
    touched: bool,
    mid_line: bool,
}

impl Modes {
    pub(super) const fn new() -> Self {
        Modes {
            place: Place::Text,
            parameters: [0; 8],
            count: 0,
            changed: Vec::new(),
            scroll_region: false,
            insert: false,
            touched: false,
            mid_line: false,
        }
    }

    /// Follows the guest's output.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.step(byte);
        }
        if let Some(last) = bytes.last() {
            self.mid_line = *last != b'\n';
        }
    }

    /// Whether the cursor stands behind an unfinished line; asking makes it a finished one.
    pub(super) fn take_mid_line(&mut self) -> bool {
        std::mem::take(&mut self.mid_line)
    }

    fn step(&mut self, byte: u8) {
        match (self.place, byte) {
            (_, 0x1b) => {
                self.touched = true;
                self.place = Place::Escape;
            }
            (Place::Escape, b'[') => {
                self.place = Place::Sequence { private: false };
                (self.parameters, self.count) = ([0; 8], 0);
            }
            // RIS: reset to initial state.
            (Place::Escape, b'c') => {
                let place = Place::Text;
                *self = Modes { place, ..Modes::new() };
            }
            (Place::Sequence { .. }, b'?') => self.place = Place::Sequence { private: true },
            (Place::Sequence { .. }, b'0'..=b'9') => {
                if let Some(parameter) = self.parameters.get_mut(self.count) {
                    *parameter =
                        parameter.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                }
            }
            (Place::Sequence { .. }, b';') => self.count += 1,
            (Place::Sequence { private }, 0x40..=0x7e) => {
                self.place = Place::Text;
                self.finish(private, byte);
            }
            // Intermediate bytes of a sequence that does not matter here.
            (Place::Sequence { .. }, 0x20..=0x3f) => {}
            (_, 0x0e) => self.touched = true,
            _ => self.place = Place::Text,
        }
    }

    fn finish(&mut self, private: bool, function: u8) {
        let parameters = self.parameters;
        let parameters = &parameters[..(self.count + 1).min(parameters.len())];
        match (private, function) {
            (true, b'h' | b'l') => {
                parameters.iter().for_each(|mode| self.set_private(*mode, function == b'h'));
            }
            (false, b'h' | b'l') if parameters.contains(&4) => self.insert = function == b'h',
            (false, b'r') => self.scroll_region = parameters.iter().any(|p| *p != 0),
            _ => {}
        }
    }

    fn set_private(&mut self, mode: u16, on: bool) {
        let normally = NORMALLY_ON.contains(&mode);
        if !normally && !NORMALLY_OFF.contains(&mode) {
            return;
        }
        self.changed.retain(|changed| *changed != mode);
        if on != normally {
            self.changed.push(mode);
        }
    }

    /// The sequences that make the terminal as it was, and forgets.
    pub(super) fn undo(&mut self) -> String {
        let mut text = String::new();
        if !self.touched {
            return text;
        }
        // Alternate screens first: leaving one moves the cursor to where it was before.
        for mode in self.changed.drain(..).rev() {
            let function = if NORMALLY_ON.contains(&mode) { 'h' } else { 'l' };
            text.push_str(&format!("\x1b[?{mode}{function}"));
        }
        if std::mem::take(&mut self.scroll_region) {
            // DECSTBM moves the cursor home.
            text.push_str("\x1b7\x1b[r\x1b8");
        }
        if std::mem::take(&mut self.insert) {
            text.push_str("\x1b[4l");
        }
        // ASCII in G0, shifted in; numeric keypad; no attributes.
        text.push_str("\x1b(B\x0f\x1b>\x1b[0m");
        self.touched = false;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: &str = "\x1b(B\x0f\x1b>\x1b[0m";

    fn undo_of(bytes: &[u8]) -> String {
        let mut modes = Modes::new();
        // One byte at a time: sequences may be cut anywhere.
        bytes.iter().for_each(|byte| modes.feed(&[*byte]));
        modes.undo()
    }

    #[test]
    fn plain_text_leaves_nothing_to_undo() {
        assert_eq!(undo_of(b"hello\r\n"), "");
        assert_eq!(undo_of("\u{e9}\u{4e2d}".as_bytes()), "");
    }

    #[test]
    fn only_what_was_changed_is_undone() {
        assert_eq!(undo_of(b"\x1b[31mred"), ALWAYS);
        assert_eq!(undo_of(b"\x1b[?1049h\x1b[?25l"), format!("\x1b[?25h\x1b[?1049l{ALWAYS}"));
        assert_eq!(undo_of(b"\x1b[?1049h..\x1b[?1049l"), ALWAYS, "the guest left it itself");
        assert_eq!(undo_of(b"\x1b[?1;25h\x1b[?9999h"), format!("\x1b[?1l{ALWAYS}"));
        assert_eq!(undo_of(b"\x1b[2;20r"), format!("\x1b7\x1b[r\x1b8{ALWAYS}"));
        assert_eq!(undo_of(b"\x1b[2;20r\x1b[r\x1b[4h"), format!("\x1b[4l{ALWAYS}"));
        assert_eq!(undo_of(b"\x1b[?1049h\x1bc"), "", "a reset undoes it all");
    }

    #[test]
    fn garbage_is_survived_and_undoing_twice_does_nothing() {
        let mut modes = Modes::new();
        modes.feed(b"\x1b[?99999999999;;;;;;;;;;;;;;1h\x1b[\x1b[?\x80\xff\x1b");
        modes.undo();
        assert_eq!(modes.undo(), "");
    }
}
