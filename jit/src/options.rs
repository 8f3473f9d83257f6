//! How a translator works: what of it can be switched off by name, and its limits.

use std::fmt::Write as _;

use crate::ir::Block;
use crate::ir::opt::Passes;
use crate::memory::MIN_BYTES;

/// Most bytes of code memory: positions in it fit into 31 bits, and jumps reach all of it.
pub const MAX_CACHE_BYTES: usize = 1 << 30;

/// How a translator works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JitOptions {
    /// Bytes of code memory of each hart, from [`MIN_BYTES`] to [`MAX_CACHE_BYTES`].
    pub cache_bytes: usize,
    /// How often a block is interpreted before it is translated.
    pub threshold: u32,
    /// What is done to a block before host code is made for it.
    pub passes: Passes,
    /// Floating point is translated.
    pub fp: bool,
    /// Jumps inside a page lead straight to the block.
    pub links: bool,
    /// Other jumps look for the block by themselves.
    pub jumps: bool,
    /// Blocks that are executed much are translated once more, together.
    pub regions: bool,
    /// How often the clock must find a block executing for that.
    pub samples: u8,
    /// Regions are prepared by a thread of their own.
    pub background: bool,
    /// Memory accesses relative to the same address are checked together.
    pub groups: bool,
    /// Blocks are listed in `/tmp/perf-PID.map`.
    pub perf_map: bool,
    /// Changes every block before code is made of it: how tests make a translator that is wrong.
    pub tamper: Option<Tamper>,
}

/// A change of blocks.
#[derive(Clone, Copy, Debug)]
pub struct Tamper(pub fn(&mut Block));

impl PartialEq for Tamper {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for Tamper {}

impl Default for JitOptions {
    fn default() -> Self {
        JitOptions {
            cache_bytes: 64 << 20,
            threshold: 4,
            passes: Passes::all(),
            fp: true,
            links: true,
            jumps: true,
            regions: true,
            samples: 100,
            background: true,
            groups: true,
            perf_map: false,
            tamper: None,
        }
    }
}

/// What can be switched off by name.
pub struct Switch {
    /// The name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    set: fn(&mut JitOptions, bool),
}

/// Everything that can be switched off by name.
pub const SWITCHES: &[Switch] = &[
    Switch {
        name: "fold",
        about: "operations become simpler ones while a block is built",
        set: |options, on| options.passes.set(Passes::FOLD, on),
    },
    Switch {
        name: "facts",
        about: "what is known of registers is carried through a block",
        set: |options, on| options.passes.set(Passes::FACTS, on),
    },
    Switch {
        name: "dce",
        about: "values and writes that nobody sees are dropped",
        set: |options, on| options.passes.set(Passes::DCE, on),
    },
    Switch {
        name: "atomics",
        about: "atomic instructions and cbo.zero are translated; without, the interpreter performs them",
        set: |options, on| options.passes.set(Passes::ATOMICS, on),
    },
    Switch {
        name: "csrs",
        about: "what merely reads and writes control registers is translated; without, the interpreter performs it",
        set: |options, on| options.passes.set(Passes::CSRS, on),
    },
    Switch {
        name: "fp",
        about: "floating point is translated; without, the interpreter performs it",
        set: |options, on| options.fp = on,
    },
    Switch {
        name: "links",
        about: "jumps inside a page lead straight to the next block",
        set: |options, on| options.links = on,
    },
    Switch {
        name: "jumps",
        about: "other jumps look the next block up in translated code",
        set: |options, on| options.jumps = on,
    },
    Switch {
        name: "regions",
        about: "loops and other blocks that are executed much are translated together, with registers of their own",
        set: |options, on| options.regions = on,
    },
    Switch {
        name: "background",
        about: "regions are prepared beside the running guest if the host has a core to spare",
        set: |options, on| options.background = on,
    },
    Switch {
        name: "groups",
        about: "memory accesses relative to the same address are checked together",
        set: |options, on| options.groups = on,
    },
];

/// A word that means nothing to [`JitOptions::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord(pub String);

impl std::fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut names = String::new();
        for switch in SWITCHES {
            // Writing to a string does not fail.
            let _ = write!(names, "{} ", switch.name);
        }
        write!(
            f,
            "`{}` is nothing that can be switched: give -NAME (off) or NAME (on), comma-separated, of: {names}all; \
             threshold=N; or samples=N",
            self.0
        )
    }
}

impl std::error::Error for UnknownWord {}

impl JitOptions {
    /// Follows a list of words, separated by commas: `-NAME` switches something off, `NAME` on, where `all` is
    /// all [`SWITCHES`]; `threshold=N` sets [`JitOptions::threshold`], `samples=N` [`JitOptions::samples`].
    ///
    /// # Errors
    /// The first word that is neither.
    pub fn apply(&mut self, list: &str) -> Result<(), UnknownWord> {
        list.split(',').try_for_each(|word| self.follow(word))
    }

    fn follow(&mut self, word: &str) -> Result<(), UnknownWord> {
        let unknown = || UnknownWord(word.to_owned());
        if let Some(times) = word.strip_prefix("threshold=") {
            self.threshold = times.parse().map_err(|_| unknown())?;
            return Ok(());
        }
        if let Some(times) = word.strip_prefix("samples=") {
            self.samples = times.parse().map_err(|_| unknown())?;
            return Ok(());
        }
        let (name, on) = match word.strip_prefix('-') {
            Some(name) => (name, false),
            None => (word, true),
        };
        let mut known = false;
        for switch in SWITCHES.iter().filter(|switch| switch.name == name || name == "all") {
            (switch.set)(self, on);
            known = true;
        }
        if known { Ok(()) } else { Err(unknown()) }
    }

    /// Whether code memory can have so many bytes.
    #[must_use]
    pub fn is_cache_size(bytes: u64) -> bool {
        (MIN_BYTES as u64..=MAX_CACHE_BYTES as u64).contains(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_switch_what_they_name() {
        let mut options = JitOptions::default();
        options.apply("-fold,-links,threshold=0").unwrap();
        let expected = JitOptions {
            passes: Passes::all() - Passes::FOLD,
            links: false,
            threshold: 0,
            ..JitOptions::default()
        };
        assert_eq!(options, expected);
        options.apply("-all,fp").unwrap();
        assert_eq!((options.passes, options.fp, options.jumps), (Passes::empty(), true, false));
        options.apply("all,threshold=4").unwrap();
        assert_eq!(options, JitOptions::default());
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_list() {
        for wrong in ["", "-", "-warp", "threshold=", "threshold=-1", "fold,,dce", "FOLD"] {
            let mut options = JitOptions::default();
            let text = options.apply(wrong).unwrap_err().to_string();
            for switch in SWITCHES {
                assert!(text.contains(switch.name), "{wrong}: {text}");
            }
        }
    }

    #[test]
    fn every_switch_does_something() {
        for switch in SWITCHES {
            let mut options = JitOptions::default();
            options.apply(&format!("-{}", switch.name)).unwrap();
            assert_ne!(options, JitOptions::default(), "{}", switch.name);
        }
    }
}
