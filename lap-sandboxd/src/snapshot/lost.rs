//! The list of what a snapshot does not have.

use std::path::Path;

use lap_harness::snapshot::{MAX_LOST, bounded};

/// Entries in words; there may be many more than anybody wants to read.
#[derive(Debug, Default)]
pub(super) struct Lost {
    entries: Vec<String>,
    more: usize,
}

impl Lost {
    pub(super) fn add(&mut self, what: impl Into<String>) {
        // One more than are told, so that the last says that there are others.
        if self.entries.len() <= MAX_LOST {
            self.entries.push(what.into());
        } else {
            self.more += 1;
        }
    }

    pub(super) fn file(&mut self, path: &Path, why: impl std::fmt::Display) {
        self.add(format!("the file {}: {why}", path.display()));
    }

    pub(super) fn extend(&mut self, other: Self) {
        other.entries.into_iter().for_each(|entry| self.add(entry));
        self.more += other.more;
    }

    pub(super) fn into_entries(self) -> Vec<String> {
        let Self { mut entries, more } = self;
        entries.extend(std::iter::repeat_n(String::new(), more.min(100_000)));
        bounded(entries)
    }
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_losses_are_counted() {
        let mut lost = Lost::default();
        (0..200).for_each(|n| lost.add(n.to_string()));
        let entries = lost.into_entries();
        assert_eq!((entries.len(), &*entries[0]), (MAX_LOST, "0"));
        assert_eq!(entries[MAX_LOST - 1], "and 151 more");
        assert_eq!(size(1 << 20), "1 MiB");
    }
}
