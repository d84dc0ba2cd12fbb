//! What all verbs and handlers share.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::EngineConfig;
use super::flush::Flusher;
use super::identity::Identity;
use super::live::LiveHub;
use super::runs::Runs;
use super::touch::Touched;
use crate::agent::Agent;
use crate::backends::Backends;
use crate::error::{Error, Result};
use crate::harness::Contact;
use crate::id::{AgentId, SandboxId, SessionId, WorkerId};
use crate::session::Session;
use crate::store::{Hint, Worker};

/// The inside of an engine.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) parts: Backends,
    pub(super) config: EngineConfig,
    pub(super) identity: Identity,
    pub(super) worker: Worker,
    /// Events of this process to its readers.
    pub(super) live: LiveHub,
    /// Appends of all sessions of this process.
    pub(super) flusher: Flusher,
    /// Sessions used since the last write.
    pub(super) touched: Touched,
    /// Work items that run here.
    pub(super) runs: Runs,
    /// Wakes the loop that takes work.
    pub(super) wake: Notify,
    /// Every task of the engine.
    pub(super) tasks: TaskTracker,
    /// No new work is begun; streams end with a resume point.
    pub(super) draining: CancellationToken,
    /// Everything stops.
    pub(super) stopped: CancellationToken,
}

impl Core {
    pub(super) async fn new(parts: Backends, config: EngineConfig) -> Result<Arc<Self>> {
        let identity = Identity::load(&*parts.store, &parts.sealer, &*parts.entropy, &*parts.clock).await?;
        let worker = Worker {
            id: WorkerId::fresh(&*parts.entropy, parts.clock.now()),
            place: parts.runtime.capabilities().place,
            platform_hash: config.platform.hash(),
        };
        Ok(Arc::new(Self {
            flusher: Flusher::new(),
            parts,
            config,
            identity,
            worker,
            live: LiveHub::default(),
            touched: Touched::default(),
            runs: Runs::default(),
            wake: Notify::new(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            stopped: CancellationToken::new(),
        }))
    }

    /// Starts the tasks that serve until the engine is drained.
    pub(super) async fn start(core: &Arc<Self>) -> Result<()> {
        core.parts.store.beat(&core.worker).await?;
        core.tasks.spawn(super::flush::run(Arc::clone(core)));
        core.tasks.spawn(super::work::beat(Arc::clone(core)));
        core.tasks.spawn(super::work::take(Arc::clone(core)));
        core.tasks.spawn(super::work::listen(Arc::clone(core)));
        core.tasks.spawn(super::watch::run(Arc::clone(core)));
        core.tasks.spawn(super::touch::run(Arc::clone(core)));
        Ok(())
    }

    pub(super) async fn session(&self, id: SessionId) -> Result<Session> {
        self.parts
            .store
            .session(id)
            .await?
            .ok_or_else(|| Error::not_found("read session", "session", id))
    }

    pub(super) async fn agent(&self, id: AgentId) -> Result<Agent> {
        self.parts
            .store
            .agent(id)
            .await?
            .ok_or_else(|| Error::not_found("read agent", "agent", id))
    }

    /// How to reach a sandbox now.
    pub(super) fn contact(&self, sandbox: SandboxId, address: &str) -> Contact {
        let token = self.identity.control_token(sandbox, self.parts.clock.now());
        Contact {
            sandbox,
            address: address.to_owned(),
            token,
        }
    }

    /// Readers of this session, here and in other processes, look at the store.
    pub(super) fn changed(&self, session: SessionId) {
        self.live.look(session);
        self.tell_others(session);
    }

    /// Readers of this session in other processes look at the store.
    pub(super) fn tell_others(&self, session: SessionId) {
        self.parts.store.hint(Hint::Session {
            session,
            from: self.worker.id,
        });
    }

    /// Some work is due now.
    pub(super) fn work_is_due(&self) {
        self.wake.notify_one();
        self.parts.store.hint(Hint::Work);
    }
}
