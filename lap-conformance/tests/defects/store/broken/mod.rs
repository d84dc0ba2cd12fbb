//! A store over the memory store that distorts calls or answers as its defect says.

mod agents;
mod events;
mod rest;
mod sandboxes;
mod sessions;
mod turns;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use lap_conformance::ManualClock;
use lap_core::id::{SeededEntropy, SessionId};
use lap_core::memory::MemoryStore;
use lap_core::sandbox::{Place, Sandbox};
use lap_core::store::{Hold, Idempotency, Take, Work, WorkItem, WorkKind};
use lap_core::time::Clock;

use crate::store::defect::Defect;

#[derive(Debug)]
pub(crate) struct Broken {
    store: MemoryStore,
    clock: ManualClock,
    defect: Defect,
    entropy: SeededEntropy,
    notes: Mutex<Notes>,
}

/// What a defect remembers.
#[derive(Debug, Default)]
struct Notes {
    /// The newest hold of each item.
    holds: BTreeMap<(WorkKind, String), Hold>,
    places: BTreeSet<Place>,
    shared_sandbox: Option<Sandbox>,
    shared_item: Option<WorkItem>,
    first_dues: BTreeMap<String, std::time::Duration>,
    read: BTreeSet<SessionId>,
}

impl Broken {
    pub(crate) fn new(defect: Defect, clock: &ManualClock) -> Self {
        let own: Arc<dyn Clock> = match defect {
            Defect::ClaimsTheSmallestId => Arc::new(ManualClock::default()),
            _ => Arc::new(clock.clone()),
        };
        Self {
            store: MemoryStore::new(own),
            clock: clock.clone(),
            defect,
            entropy: SeededEntropy::new(4711),
            notes: Mutex::default(),
        }
    }

    fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    /// Distorts what is remembered of a request.
    fn request(&self, request: &mut Idempotency) {
        if self.is(Defect::IgnoresBodies) {
            request.body_hash = String::new();
        }
        if self.is(Defect::ForgetsRequestsEarly) {
            let hour = self.clock.now().unix_millis() / 3_600_000;
            request.key = format!("{}@{hour}", request.key);
        }
    }

    /// Remembers a hold that is given away, and distorts it.
    fn given(&self, mut item: WorkItem) -> WorkItem {
        let key = (item.hold.kind, item.hold.key.clone());
        self.notes().holds.insert(key, item.hold.clone());
        if self.is(Defect::FencesPerItem) {
            item.hold.fence = item.attempts.into();
        }
        item
    }

    /// The hold that the defect takes for this one.
    fn hold(&self, hold: &Hold) -> Hold {
        match self.defect {
            Defect::IgnoresFences | Defect::FencesPerItem => {
                let newest = self.notes().holds.get(&(hold.kind, hold.key.clone())).cloned();
                newest.unwrap_or_else(|| hold.clone())
            }
            _ => hold.clone(),
        }
    }

    /// The hold that the defect takes for one on the session's turn.
    fn turn_hold(&self, hold: &Hold, session: SessionId) -> Hold {
        if !self.is(Defect::IgnoresKeys) {
            return self.hold(hold);
        }
        let of_turn = (WorkKind::Turn, session.to_string());
        let newest = self.notes().holds.get(&of_turn).cloned();
        newest.unwrap_or_else(|| hold.clone())
    }

    /// Takes all due items of a kind at every place that was ever seen.
    async fn take_everywhere(&self, kind: WorkKind) -> Vec<WorkItem> {
        let worker = lap_core::id::WorkerId::fresh(&self.entropy, self.clock.now());
        let places = self.notes().places.iter().copied().collect();
        self.store
            .take(Take {
                worker,
                kinds: vec![kind],
                places,
                limit: 1000,
            })
            .await
            .unwrap()
    }

    async fn lose_cleanups(&self) {
        if self.is(Defect::LosesCleanups) {
            for item in self.take_everywhere(WorkKind::Cleanup).await {
                self.store.done(&item).await.unwrap();
            }
        }
    }
}
