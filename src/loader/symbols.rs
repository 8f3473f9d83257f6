//! Names of guest addresses.

/// A symbol table that can be asked both ways.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    /// Sorted by address.
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    addr: u64,
    /// 0 when unknown: the symbol then reaches to the next one.
    size: u64,
    name: String,
}

/// How far above a symbol of unknown size an address may lie and still be named by it, in bytes.
const REACH: u64 = 1 << 20;

impl Symbols {
    /// Builds the table from (address, size in bytes or 0, name).
    pub fn new(symbols: impl IntoIterator<Item = (u64, u64, String)>) -> Self {
        let mut entries: Vec<Entry> =
            symbols.into_iter().map(|(addr, size, name)| Entry { addr, size, name }).collect();
        // Of several names of one address the last is found: prefer sized ones, then short ones.
        entries.sort_by(|a, b| {
            (a.addr, a.size)
                .cmp(&(b.addr, b.size))
                .then(b.name.len().cmp(&a.name.len()))
                .then(a.name.cmp(&b.name))
        });
        Symbols { entries }
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The address of a name.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.entries.iter().find(|e| e.name == name).map(|e| e.addr)
    }

    /// The name that covers an address, and the offset from its start.
    pub fn at(&self, addr: u64) -> Option<(&str, u64)> {
        let below = self.entries.partition_point(|e| e.addr <= addr);
        let entry = self.entries[..below].last()?;
        let offset = addr - entry.addr;
        let reach = if entry.size == 0 { REACH } else { entry.size };
        (offset < reach).then_some((entry.name.as_str(), offset))
    }

    /// The name that covers an address as `name+0x1c`.
    pub fn describe(&self, addr: u64) -> Option<String> {
        let (name, offset) = self.at(addr)?;
        Some(if offset == 0 { name.to_owned() } else { format!("{name}+{offset:#x}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Symbols {
        Symbols::new([
            (0x1010, 0x10, "sized".to_owned()),
            (0x1000, 0, "start".to_owned()),
            (0x1000, 0, "a_longer_alias".to_owned()),
        ])
    }

    #[test]
    fn an_address_finds_the_symbol_below_it() {
        assert_eq!(table().describe(0x1000).as_deref(), Some("start"));
        assert_eq!(table().describe(0x100c).as_deref(), Some("start+0xc"));
        assert_eq!(table().describe(0x101f).as_deref(), Some("sized+0xf"));
    }

    #[test]
    fn an_address_outside_every_symbol_has_no_name() {
        assert_eq!(table().at(0xfff), None);
        assert_eq!(table().at(0x1020), None, "above a symbol of known size");
        assert_eq!(Symbols::default().at(0), None);
    }

    #[test]
    fn a_name_finds_its_address() {
        assert_eq!(table().address("sized"), Some(0x1010));
        assert_eq!(table().address("missing"), None);
    }
}
