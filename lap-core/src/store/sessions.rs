use std::time::Duration;

use async_trait::async_trait;

use super::work::{Hold, WorkItem};
use super::{Idempotency, NewTurn};
use crate::blueprint::PlatformHash;
use crate::error::Result;
use crate::id::{AgentId, SandboxId, SessionId, WorkerId};
use crate::sandbox::{Place, Sandbox};
use crate::seal::Sealed;
use crate::session::{EndedBy, Phase, Session, SessionState};
use crate::turn::Turn;

/// A session to open.
#[derive(Debug, Clone)]
pub struct Open {
    /// Its id, minted by the engine.
    pub session: SessionId,
    /// Its agent.
    pub agent: AgentId,
    /// The version of the agent that `opening` was made from.
    pub agent_version: u64,
    /// The platform's half of the pool key.
    pub platform_hash: PlatformHash,
    /// The id of the sandbox to plan when none is warm.
    pub cold_sandbox: SandboxId,
    /// Where a cold sandbox will live.
    pub place: Place,
    /// The process that opens, and does the bring-up when the sandbox is within its reach (a cold one, one of the
    /// cluster, or one at `place`).
    pub worker: WorkerId,
    /// Title.
    pub title: Option<String>,
    /// What is bound after the claim.
    pub opening: Sealed,
    /// The initial prompt, which becomes turn 1.
    pub first_turn: Option<NewTurn>,
    /// Recognises a repetition. The engine always gives one: the client's key, else the session id.
    pub idempotency: Idempotency,
    /// Who opens.
    pub created_by: String,
}

/// The answer to [`Sessions::open`].
#[derive(Debug, Clone, PartialEq)]
pub enum Opened {
    /// A warm sandbox was claimed.
    Warm(OpenedSession),
    /// A cold one was planned.
    Cold(OpenedSession),
    /// The same request opened this session before.
    Replayed(Session),
    /// There is no such agent.
    NoAgent,
    /// The agent has another version. Read it again and repeat.
    AgentChanged,
    /// The key was used with another body.
    KeyReused,
}

/// What an open made.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenedSession {
    /// The session, creating.
    pub session: Session,
    /// Its sandbox: claimed when warm, provisioning when cold.
    pub sandbox: Sandbox,
    /// The bring-up, when it is the opening process's; otherwise it is due for whoever reaches the sandbox.
    pub work: Option<WorkItem>,
}

/// A step of a session's bring-up.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A phase was reached. Phases only go forward; an earlier one is ignored. The same one with another detail is
    /// progress; with the same detail nothing happens.
    Phase(Phase, Option<String>),
    /// The session takes turns: creating -> ready; its sandbox is claimed (a provisioning one becomes so) and has
    /// this address. The first queued turn starts (`sending`, with its `turn` item held by the same worker). A
    /// `reap` item without a place is due after `reap_after`. The session was seen just now. The bring-up item is gone.
    Ready {
        /// The harness's id of the conversation.
        conversation: String,
        /// Where the sandbox answers, `host:port`.
        address: String,
        /// When to look whether it is idle.
        reap_after: Duration,
    },
    /// The bring-up was given up: creating -> failed, ended by error, its queued turns failed.
    Failed(String),
}

/// A step under a hold on the session's `bring_up` item.
#[derive(Debug, Clone)]
pub struct Advance {
    /// The session.
    pub session: SessionId,
    /// The held `bring_up` item.
    pub hold: Hold,
    /// What happened.
    pub step: Step,
}

/// The answer to [`Sessions::advance`].
#[derive(Debug, Clone, PartialEq)]
pub enum Advanced {
    /// Done. After [`Step::Ready`] with a queued turn: that turn and its held item.
    Done(Session, Option<(Turn, WorkItem)>),
    /// The hold is lost or the session is no longer creating. Nothing changed.
    Stale,
}

/// What a bring-up needs to begin or to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct BringUp {
    /// The session.
    pub session: Session,
    /// Its sealed opening.
    pub opening: Sealed,
    /// Its sandbox.
    pub sandbox: Sandbox,
}

/// A session to end.
#[derive(Debug, Clone)]
pub struct End {
    /// Which.
    pub session: SessionId,
    /// Why.
    pub by: EndedBy,
    /// In words.
    pub reason: Option<String>,
    /// End it only if it was ready, has no turn open or queued, and was not seen for this long. For the reaper.
    pub only_if_idle_for: Option<Duration>,
}

/// The answer to [`Sessions::end`].
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// It is dead now, its open and queued turns are aborted, its sandbox is stopping with a `cleanup` item due.
    Done(Session),
    /// It had ended before. Nothing changed.
    Already(Session),
    /// It is in use. Look again after this long.
    InUse(Duration),
    /// There is no such session.
    Missing,
}

/// A session to bring up again, because someone asked for it.
#[derive(Debug, Clone)]
pub struct Revive {
    /// Which.
    pub session: SessionId,
    /// Who asks.
    pub by: String,
    /// The platform's half of the pool key. The agent's half is that of the session's last sandbox.
    pub platform_hash: PlatformHash,
    /// The id of the sandbox to plan when none is warm.
    pub cold_sandbox: SandboxId,
    /// Where that one will live.
    pub place: Place,
    /// The process that restarts, as in [`Open::worker`].
    pub worker: WorkerId,
}

/// The answer to [`Sessions::revive`].
#[derive(Debug, Clone, PartialEq)]
pub enum Revived {
    /// It is creating again, with a claimed warm sandbox.
    Warm(OpenedSession),
    /// It is creating again, with a planned cold one.
    Cold(OpenedSession),
    /// It is creating already. Nothing changed.
    Creating(Session),
    /// Its agent was deleted. Nothing changed.
    AgentGone,
    /// There is no such session.
    Missing,
}

/// Which sessions to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct SessionQuery {
    /// Of this agent only.
    pub agent: Option<AgentId>,
    /// In one of these states only; empty: all.
    pub states: Vec<SessionState>,
    /// Older than this one only.
    pub before: Option<SessionId>,
    /// At most this many.
    pub limit: u32,
}

/// Keeps sessions.
#[async_trait]
pub trait Sessions {
    /// Agent at the expected version, claim of the oldest warm sandbox of the pool key (else a planned cold one),
    /// session, turn 1, the first events and the bring-up item, in one commit.
    ///
    /// The bring-up item is at the sandbox's place. The request's idempotency comes first and everything depends on it: a repetition, also a concurrent one,
    /// never claims a second sandbox and returns the session of the first.
    async fn open(&self, open: Open) -> Result<Opened>;

    /// The session.
    async fn session(&self, id: SessionId) -> Result<Option<Session>>;

    /// The session with its opening and sandbox; `None` when there is no such session.
    async fn bring_up(&self, id: SessionId) -> Result<Option<BringUp>>;

    /// Sessions, newest first.
    async fn list_sessions(&self, query: SessionQuery) -> Result<Vec<Session>>;

    /// A compare-and-set under the hold; see [`Step`].
    async fn advance(&self, advance: Advance) -> Result<Advanced>;

    /// The session has ended, whatever it was doing. Needs no hold: a person's intent wins over a bring-up.
    async fn end(&self, end: End) -> Result<Ended>;

    /// ready | failed | dead -> creating, the only way back. A ready session first ends as by
    /// [`EndedBy::User`]: its open and queued turns are aborted and its sandbox is stopping. Then it has another sandbox and
    /// a `bring_up` item as after an open, one more attempt, and the event `session.restarted`. The log goes on.
    async fn revive(&self, revive: Revive) -> Result<Revived>;

    /// These sessions were used just now. Unknown ones are ignored.
    async fn touch(&self, sessions: &[SessionId]) -> Result<()>;
}
