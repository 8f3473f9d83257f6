//! Page tables that a deterministic machine's harts have translations from.
//!
//! The manual lets a hart keep a translation until the guest's fence, and lets it forget one at any time;
//! guests that are right under these rules still behave differently by what a hart happens to keep. (Linux
//! clears A bits without a fence, and between a change of a page table and the fence another hart may go
//! either way.) So in a deterministic machine no hart keeps a translation longer than its page-table entries
//! stay as they were read. Then it does not matter what else it keeps: neither the sizes of an engine's TLBs,
//! nor a change of engine, nor a stop and a load in between can be told from the outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mimic_cpu::bus::{PAGE_MASK, Request};
use mimic_devices::memory::{GuestMemory, WatchBits, WriteObserver};

use super::rendezvous::Rendezvous;

/// Writes in a row, none of them to an entry in use, after which a page is not taken for a page table any
/// more.
const IDLE_WRITES: u32 = 64;

/// A page with page-table entries that were read.
#[derive(Default)]
struct Table {
    /// Entries that harts may have translations from, as bits; of an older generation, none.
    used: [u64; 8],
    generation: u64,
    idle: u32,
}

#[derive(Default)]
struct State {
    tables: HashMap<u64, Table>,
    /// Counts the times when all translations were forgotten.
    generation: u64,
}

/// Hears of stores into page tables. All harts run on the thread that stores.
pub(super) struct PageTables {
    state: Mutex<State>,
    memory: Weak<GuestMemory>,
    rendezvous: Arc<Rendezvous>,
}

/// The word and the bit of the entry at `gpa` in [`Table::used`].
fn bit(gpa: u64) -> (usize, u64) {
    let index = (gpa & PAGE_MASK) / 8;
    (index as usize / 64, 1 << (index % 64))
}

impl PageTables {
    /// Watches tables in `memory`; the caller keeps the result alive.
    pub(super) fn new(memory: &Arc<GuestMemory>, rendezvous: Arc<Rendezvous>) -> Arc<Self> {
        let (state, weak) = (Mutex::default(), Arc::downgrade(memory));
        let tables = Arc::new(PageTables { state, memory: weak, rendezvous });
        let observer: Arc<dyn WriteObserver> = Arc::<PageTables>::clone(&tables);
        memory.observe(WatchBits::TABLE, &observer);
        tables
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A translation was read from the entry at `gpa`.
    pub(super) fn entry_read(&self, gpa: u64) {
        let page = gpa & !PAGE_MASK;
        let State { tables, generation } = &mut *self.lock();
        let table = tables.entry(page).or_insert_with(|| {
            if let Some(memory) = self.memory.upgrade() {
                memory.watch(page, WatchBits::TABLE);
            }
            self.rendezvous.tell_all(Request::WriteProtect(page));
            Table::default()
        });
        if table.generation != *generation {
            *table = Table { generation: *generation, ..Table::default() };
        }
        let (word, bit) = bit(gpa);
        table.used[word] |= bit;
        table.idle = 0;
    }

    /// The entry at `gpa` is about to be reported as written, but what was read from it stays right: whoever
    /// wrote reads it again.
    pub(super) fn entry_updated(&self, gpa: u64) {
        if let Some(table) = self.lock().tables.get_mut(&(gpa & !PAGE_MASK)) {
            let (word, bit) = bit(gpa);
            table.used[word] &= !bit;
        }
    }
}

impl WriteObserver for PageTables {
    fn written(&self, gpa: u64, len: u64, _bits: WatchBits) {
        let page = gpa & !PAGE_MASK;
        let State { tables, generation } = &mut *self.lock();
        let Some(table) = tables.get_mut(&page) else { return };
        let used = table.generation == *generation
            && (gpa & !7..gpa + len).step_by(8).any(|entry| {
                let (word, bit) = bit(entry);
                table.used[word] & bit != 0
            });
        if used {
            *generation += 1;
            self.rendezvous.tell_all(Request::FlushTranslations);
            return;
        }
        table.idle += 1;
        let in_use = table.generation == *generation && table.used != [0; 8];
        if table.idle >= IDLE_WRITES && !in_use {
            tables.remove(&page);
            if let Some(memory) = self.memory.upgrade() {
                memory.unwatch(page, WatchBits::TABLE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mimic_cpu::signals::Signals;
    use mimic_devices::memory::RegionSpec;

    const RAM: u64 = 0x8000_0000;

    #[test]
    fn a_store_into_an_entry_in_use_drops_translations_and_no_other_store_does() {
        let memory = Arc::new(GuestMemory::new(&[RegionSpec::ram(RAM, 0x1_0000)]).unwrap());
        let harts: Vec<Arc<Signals>> = (0..2).map(|_| Arc::default()).collect();
        let rendezvous = Arc::new(Rendezvous::new(harts.clone()));
        let tables = PageTables::new(&memory, Arc::clone(&rendezvous));
        let asked = || [0, 1].map(|hart| rendezvous.take(hart));
        let all = |request: &[Request]| [request.to_vec(), request.to_vec()];

        tables.entry_read(RAM + 0x1ff8);
        tables.entry_read(RAM + 0x1ff0);
        assert_eq!(asked(), all(&[Request::WriteProtect(RAM + 0x1000)]));
        assert!(harts[1].needs_attention());
        memory.store(RAM + 0x1fe8, 1u64).unwrap();
        tables.entry_updated(RAM + 0x1ff0);
        memory.store(RAM + 0x1ff0, 1u64).unwrap();
        tables.entry_read(RAM + 0x1ff0);
        assert_eq!(asked(), all(&[]));
        memory.store(RAM + 0x1fff, 1u8).unwrap();
        assert_eq!(asked(), all(&[Request::FlushTranslations]));
        memory.store(RAM + 0x1ff0, 1u64).unwrap();
        assert_eq!(asked(), all(&[]), "nothing was kept any more");

        // What is only data now is written freely again, until it is read as a table.
        for _ in 0..IDLE_WRITES {
            memory.store(RAM + 0x1000, 1u64).unwrap();
        }
        assert!(memory.watched(RAM + 0x1000).is_empty());
        tables.entry_read(RAM + 0x1000);
        assert_eq!(asked(), all(&[Request::WriteProtect(RAM + 0x1000)]));
        assert_eq!(memory.watched(RAM + 0x1000), WatchBits::TABLE);
    }
}
