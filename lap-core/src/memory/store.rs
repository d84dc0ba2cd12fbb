//! The executable specification of a store: tables behind one lock, one commit per lock.

mod agents;
mod events;
mod records;
mod revive;
mod sandboxes;
mod sessions;
mod tables;
mod transitions;
mod turns;
mod work;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::error::Result;
use crate::store::{Hint, HintBus, HintStream, Hints, Installation, Instance};
use crate::time::{Clock, Timestamp};
use tables::Tables;

pub use work::StoredWork;

/// A store in memory. Every method is one critical section of one mutex, so each is atomic and all of them
/// have one order; no `await` happens inside.
///
/// ```
/// # use std::sync::Arc;
/// # use lap_core::memory::MemoryStore;
/// # use lap_core::store::{Installation, Store};
/// # use lap_core::time::SystemClock;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
/// store.ping().await.unwrap();
/// # });
/// ```
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    tables: Mutex<Tables>,
    hints: HintBus,
}

impl MemoryStore {
    /// An empty store whose clock is `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            tables: Mutex::default(),
            hints: HintBus::default(),
        }
    }

    /// Runs `verb` alone on the tables. A verb decides first and changes afterwards, so it changes all or nothing.
    fn commit<T>(&self, verb: impl FnOnce(&mut Tables, Timestamp) -> T) -> T {
        // A verb that panicked is a defect, but the tables are still the best truth there is.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        // The clock is read under the lock, so that commits and their times have the same order.
        let now = self.clock.now();
        verb(&mut tables, now)
    }
}

#[async_trait]
impl Installation for MemoryStore {
    async fn instance(&self, candidate: Instance) -> Result<Instance> {
        Ok(self.commit(|tables, _| tables.instance.get_or_insert(candidate).clone()))
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}

impl Hints for MemoryStore {
    fn hint(&self, hint: Hint) {
        self.hints.hint(hint);
    }

    fn hints(&self) -> HintStream {
        self.hints.hints()
    }
}
