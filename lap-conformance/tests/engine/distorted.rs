//! Backends with one defect.

mod forgetful;
mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lap_conformance::crash::Stage;
use lap_core::id::{Entropy, SandboxId, SessionId};
use lap_core::memory::MemoryStore;
use lap_core::sandbox::Sandbox;
use lap_core::session::Session;
use lap_core::store::{Hold, Take, Work as _, WorkKind};
use lap_core::time::Clock;

use crate::defects::Defect;

pub(crate) use forgetful::Forgetful;

/// A memory store that distorts calls or answers as its defect says.
#[derive(Debug)]
pub(crate) struct Distorted {
    store: Arc<MemoryStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    defect: Defect,
    /// The first warm sandbox that was claimed.
    shared: Mutex<Option<Sandbox>>,
    /// Sessions that were given it as well.
    aliases: Mutex<BTreeMap<SessionId, SandboxId>>,
}

impl Distorted {
    pub(crate) fn new(defect: Defect, stage: &Stage) -> Self {
        Self {
            store: Arc::clone(&stage.store),
            clock: Arc::clone(&stage.clock),
            entropy: Arc::clone(&stage.entropy),
            defect,
            shared: Mutex::default(),
            aliases: Mutex::default(),
        }
    }

    fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    /// The hold that the defect takes for this one.
    fn hold(&self, hold: &Hold) -> Hold {
        let present = || {
            let stored = self.store.stored_work().into_iter();
            let mut same = stored.filter(|item| item.kind == hold.kind && item.key == hold.key);
            same.find_map(|item| item.hold)
        };
        match self.defect {
            Defect::IgnoresFences => present().unwrap_or_else(|| hold.clone()),
            _ => hold.clone(),
        }
    }

    fn session(&self, session: Session) -> Session {
        match self.aliases.lock().unwrap().get(&session.id) {
            Some(shared) => Session {
                sandbox: Some(*shared),
                ..session
            },
            None => session,
        }
    }

    async fn lose_cleanups(&self) {
        if self.is(Defect::LosesCleanups) {
            let take = Take {
                worker: lap_core::id::WorkerId::fresh(&*self.entropy, self.clock.now()),
                kinds: vec![WorkKind::Cleanup],
                places: vec![lap_core::sandbox::Place::Cluster],
                limit: 1000,
            };
            for item in self.store.take(take).await.unwrap() {
                self.store.done(&item).await.unwrap();
            }
        }
    }
}
