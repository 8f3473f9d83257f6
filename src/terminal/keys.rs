//! The escape key: which bytes of the keyboard go to the guest and which are commands.

use std::fmt;
use std::str::FromStr;

/// The key that introduces a command: a control character, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EscapeKey(Option<u8>);

impl Default for EscapeKey {
    fn default() -> Self {
        EscapeKey(Some(0x01))
    }
}

impl EscapeKey {
    /// True when there is one.
    pub fn exists(self) -> bool {
        self.0.is_some()
    }
}

impl FromStr for EscapeKey {
    type Err = String;

    /// `^A` to `^_`, in either case, or `none`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(EscapeKey(None));
        }
        let letter = text.strip_prefix('^').unwrap_or_default().as_bytes();
        match letter {
            [letter @ (b'a'..=b'z' | b'A'..=b'Z' | b'[' | b'\\' | b']' | b'^' | b'_')] => {
                Ok(EscapeKey(Some(letter & 0x1f)))
            }
            _ => Err(format!("`{text}` is no escape key; give ^A to ^Z, ^], ^\\, ^^, ^_ or none")),
        }
    }
}

impl fmt::Display for EscapeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(byte) => write!(f, "Ctrl-{}", char::from(byte | 0x40)),
            None => f.write_str("none"),
        }
    }
}

/// What the user asks Mimic to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// End the run.
    Quit,
    /// List the commands.
    Help,
    /// Show counters and where the guest is.
    Info,
    /// Stop the guest, or let it go on.
    Pause,
    /// Change the engine.
    Engine,
    /// Save the machine to a file.
    Snapshot,
    /// Press the machine's power button.
    PowerButton,
    /// A key that means nothing.
    Unknown(u8),
}

/// The commands, by key; help is made from this table.
const COMMANDS: &[(u8, Command, &str)] = &[
    (b'x', Command::Quit, "quit"),
    (b'i', Command::Info, "show counters and where the guest is"),
    (b'p', Command::Pause, "pause, or go on"),
    (b'e', Command::Engine, "change the engine: interpreter or translator"),
    (b's', Command::Snapshot, "save a snapshot of the machine to a file"),
    (b'b', Command::PowerButton, "press the power button: wakes a guest, or asks it to end"),
    (b'h', Command::Help, "this help"),
];

/// The text of help.
pub fn help(escape: EscapeKey) -> String {
    let mut text = format!("{escape} and then");
    for (key, _, about) in COMMANDS {
        text.push_str(&format!("\n  {}       {about}", char::from(*key)));
    }
    text.push_str(&format!("\n  {escape}  send {escape} itself"));
    text
}

/// Something that came out of the keyboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes for the guest.
    Input(Vec<u8>),
    /// A command for Mimic.
    Command(Command),
}

/// Splits what is typed into bytes for the guest and commands.
pub struct Keys {
    escape: EscapeKey,
    /// The escape key was the last byte.
    escaped: bool,
}

impl Keys {
    /// With this escape key.
    pub fn new(escape: EscapeKey) -> Self {
        Keys { escape, escaped: false }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let Some(escape) = self.escape.0 else { return vec![Event::Input(bytes.to_vec())] };
        let mut events = Vec::new();
        let mut input = Vec::new();
        for &byte in bytes {
            if !self.escaped {
                self.escaped = byte == escape;
                if !self.escaped {
                    input.push(byte);
                }
                continue;
            }
            self.escaped = false;
            if byte == escape {
                input.push(byte);
                continue;
            }
            if !input.is_empty() {
                events.push(Event::Input(std::mem::take(&mut input)));
            }
            events.push(Event::Command(command(byte)));
        }
        if !input.is_empty() {
            events.push(Event::Input(input));
        }
        events
    }
}

fn command(byte: u8) -> Command {
    // Ctrl held down a little too long means the same.
    let key = if byte < 0x20 { byte | 0x60 } else { byte.to_ascii_lowercase() };
    let key = if key == b'?' { b'h' } else { key };
    COMMANDS
        .iter()
        .find(|(known, _, _)| *known == key)
        .map_or(Command::Unknown(byte), |(_, command, _)| *command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8]) -> Event {
        Event::Input(bytes.to_vec())
    }

    #[test]
    fn bytes_pass_and_commands_are_taken_out() {
        let mut keys = Keys::new(EscapeKey::default());
        assert_eq!(keys.feed(b"ls\r\x03"), [input(b"ls\r\x03")], "Ctrl-C is the guest's");
        assert_eq!(
            keys.feed(b"a\x01xb\x01?"),
            [
                input(b"a"),
                Event::Command(Command::Quit),
                input(b"b"),
                Event::Command(Command::Help)
            ]
        );
        assert_eq!(keys.feed(b"\x01\x18"), [Event::Command(Command::Quit)], "Ctrl-A Ctrl-X");
        assert_eq!(keys.feed(b"\x01z"), [Event::Command(Command::Unknown(b'z'))]);
    }

    #[test]
    fn the_escape_key_itself_is_sent_by_pressing_it_twice() {
        let mut keys = Keys::new(EscapeKey::default());
        assert_eq!(keys.feed(b"\x01\x01\x01\x01"), [input(b"\x01\x01")]);
    }

    #[test]
    fn a_command_may_arrive_in_two_pieces() {
        let mut keys = Keys::new(EscapeKey::default());
        assert_eq!(keys.feed(b"a\x01"), [input(b"a")]);
        assert_eq!(keys.feed(b"pb"), [Event::Command(Command::Pause), input(b"b")]);
    }

    #[test]
    fn the_escape_key_can_be_chosen_or_left_away() {
        assert_eq!("^]".parse(), Ok(EscapeKey(Some(0x1d))));
        assert_eq!("^b".parse::<EscapeKey>().unwrap().to_string(), "Ctrl-B");
        for wrong in ["", "^", "A", "^1", "^AB", "^é"] {
            assert!(wrong.parse::<EscapeKey>().is_err(), "{wrong}");
        }
        let mut keys = Keys::new("none".parse().unwrap());
        assert_eq!(keys.feed(b"\x01x"), [input(b"\x01x")]);
    }

    #[test]
    fn help_lists_every_command() {
        let text = help(EscapeKey::default());
        for (key, _, about) in COMMANDS {
            assert!(text.contains(&format!("  {}       {about}", char::from(*key))));
        }
    }
}
