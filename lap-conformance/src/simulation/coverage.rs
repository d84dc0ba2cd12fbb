use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::crash::{Site, Strike};

/// Which calls were struck while which verbs and kinds of work were under way in the process. Clones are one table.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    cells: Arc<Mutex<BTreeMap<(Site, &'static str), u64>>>,
}

impl Coverage {
    /// The call was struck while these were under way.
    pub(super) fn note(&self, site: Site, strike: Strike, verbs: &BTreeSet<&'static str>) {
        if strike == Strike::Pass {
            return;
        }
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        for verb in verbs {
            *cells.entry((site, verb)).or_default() += 1;
        }
        if verbs.is_empty() {
            *cells.entry((site, "nothing")).or_default() += 1;
        }
    }

    /// What another table has as well.
    pub fn add(&self, other: &Self) {
        let others = other.cells.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        for (cell, count) in others {
            *cells.entry(cell).or_default() += count;
        }
    }

    /// Sites that were struck, with the verbs that were under way.
    pub fn struck(&self) -> BTreeMap<Site, BTreeSet<&'static str>> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let mut struck: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (site, verb) in cells.keys() {
            struck.entry(*site).or_default().insert(*verb);
        }
        struck
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let sites: BTreeSet<_> = cells.keys().map(|(site, _)| *site).collect();
        let verbs: BTreeSet<_> = cells.keys().map(|(_, verb)| *verb).collect();
        write!(f, "{:24}", "fault site x verb")?;
        for verb in &verbs {
            write!(f, " {verb:>8.8}")?;
        }
        for site in sites {
            write!(f, "\n{:24}", site.to_string())?;
            for verb in &verbs {
                match cells.get(&(site, *verb)) {
                    Some(count) => write!(f, " {count:>8}")?,
                    None => write!(f, " {:>8}", ".")?,
                }
            }
        }
        Ok(())
    }
}
