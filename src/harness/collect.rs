//! Which files below the user's paths are guests.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use walkdir::WalkDir;

use super::{Case, Source};
use crate::loader;

/// What was found.
#[derive(Default)]
pub struct Collected {
    /// Guests, by name within each path, in the order of the paths.
    pub cases: Vec<Case>,
    /// Paths that could not be looked at, and why.
    pub problems: Vec<String>,
}

/// The ROMs that are part of this program.
pub fn builtin() -> Vec<Case> {
    mimic_test_roms::roms()
        .iter()
        .map(|rom| Case { name: rom.name.to_owned(), source: Source::Rom(rom) })
        .collect()
}

/// Every file named in `paths`, and every ELF file below the folders named there. Other files in
/// folders (dumps, sources, makefiles) are skipped.
pub fn collect(paths: &[impl AsRef<Path>]) -> Collected {
    let mut collected = Collected::default();
    for path in paths {
        let path = path.as_ref();
        for entry in WalkDir::new(path).follow_links(true).sort_by_file_name() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    collected.problems.push(error.to_string());
                    continue;
                }
            };
            let named = entry.depth() == 0;
            if !entry.file_type().is_file() || !(named || begins_like_elf(entry.path())) {
                continue;
            }
            let name = if named {
                entry.path()
            } else {
                entry.path().strip_prefix(path).unwrap_or(entry.path())
            };
            collected.cases.push(Case {
                name: name.to_string_lossy().into_owned(),
                source: Source::File(entry.path().to_path_buf()),
            });
        }
    }
    collected
}

fn begins_like_elf(path: &Path) -> bool {
    let mut start = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && loader::is_elf(&start)
}
