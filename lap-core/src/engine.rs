//! The engine: verbs with one store call on their hot path; everything slow is a work item.
//!
//! The process that creates a work item starts it at once; any other can finish it. Handlers are idempotent
//! functions, one file each (`bring_up`, `run_turn`, `reap`, `cleanup`). Caches hold only what may be lost.

mod abort;
mod agents;
mod answer;
mod bring_up;
mod cleanup;
mod close_session;
mod config;
mod core;
mod diagnose;
mod drain;
mod flush;
mod identity;
mod live;
mod mask;
mod messages;
mod open_session;
mod plan;
mod pump;
mod reap;
mod receipts;
mod recent_events;
mod remember;
mod restart;
mod run_turn;
mod runs;
mod sandbox_logs;
mod send_turn;
mod snapshot;
mod statistics;
mod stream;
mod touch;
mod validate;
mod watch;
mod work;

use std::sync::Arc;

pub use agents::{AgentChange, AgentDefinition, CreateAgent};
pub use close_session::Closed;
pub use config::{EngineConfig, Gateway, Images, Platform};
pub use diagnose::{Diagnosis, Finding, Severity};
pub use identity::Identity;
pub use open_session::OpenSession;
pub use send_turn::SendTurn;
pub use statistics::Statistics;
pub use stream::{SessionStream, StreamItem};

use self::core::Core;
use crate::backends::Backends;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{InstanceId, SessionId, WorkerId};
use crate::session::Session;
use crate::store::SessionQuery;

/// Drives agents. Cheap to clone; all clones are one engine.
#[derive(Debug, Clone)]
pub struct Engine {
    core: Arc<Core>,
}

impl Engine {
    /// Starts an engine: loads the installation's identity, takes up work that an earlier process left, adopts its
    /// surviving sandboxes, and serves until [`Engine::drain`].
    ///
    /// Call it inside a tokio runtime. Several engines may share one store.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer; `Corrupt` when its identity cannot be opened with this sealer.
    pub async fn start(parts: Backends, config: EngineConfig) -> Result<Self> {
        let core = Core::new(parts, config).await?;
        Core::start(&core).await?;
        Ok(Self { core })
    }

    /// The settings the engine was started with.
    pub fn settings(&self) -> &EngineConfig {
        &self.core.config
    }

    /// The parts the engine was made of.
    pub fn backends(&self) -> &Backends {
        &self.core.parts
    }

    /// Names this installation.
    pub fn instance(&self) -> InstanceId {
        self.core.identity.instance()
    }

    /// Names this process among those of the installation.
    pub fn worker(&self) -> WorkerId {
        self.core.worker.id
    }

    /// The engine takes requests: the store answers and the process is not draining.
    ///
    /// # Errors
    /// `Unavailable` with the reason.
    pub async fn ready(&self) -> Result<()> {
        if self.core.draining.is_cancelled() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "check readiness",
                "the process is shutting down",
            ));
        }
        self.core.parts.store.ping().await
    }

    /// The session.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn session(&self, id: SessionId) -> Result<Session> {
        self.core.session(id).await
    }

    /// Sessions, newest first.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list_sessions(&self, query: SessionQuery) -> Result<Vec<Session>> {
        self.core.parts.store.list_sessions(query).await
    }

    /// The session is in use. Call it at every ingress of a person; reading a stream is none.
    pub fn touch(&self, session: SessionId) {
        self.core.touched.touch(session);
    }
}
