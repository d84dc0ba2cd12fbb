//! Sessions: one conversation of one caller with one agent.

use crate::id::{AgentId, SandboxId, SessionId};
use crate::time::Timestamp;

/// The states of a session.
///
/// ```text
/// creating -> ready -> dead    creating -> failed | dead    ready | failed | dead -> creating (explicit restart only)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SessionState {
    /// Its sandbox is being brought up. Turns are accepted and wait.
    Creating,
    /// It takes turns.
    Ready,
    /// It could not be brought up.
    Failed,
    /// It has ended.
    Dead,
}

impl SessionState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Creating, Self::Ready, Self::Failed, Self::Dead];

    /// The stored and wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Dead => "dead",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether it takes turns now or soon.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Creating | Self::Ready)
    }
}

/// Why a session ended. A user's intent is never repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// Someone closed it.
    User,
    /// Nobody used it.
    Idle,
    /// It could not be brought up, or its sandbox died.
    Error,
    /// Its agent was deleted.
    AgentDeleted,
}

impl EndedBy {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::User, Self::Idle, Self::Error, Self::AgentDeleted];

    /// The stored and wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Idle => "idle",
            Self::Error => "error",
            Self::AgentDeleted => "agent_deleted",
        }
    }

    /// The reason of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == name)
    }
}

/// How far the bring-up of a sandbox is, in canonical order. Names are the original system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The runtime was asked for a sandbox.
    CreatingSandbox,
    /// It exists and does not run yet.
    PodPending,
    /// It runs.
    PodRunning,
    /// Its harness does not answer yet.
    WaitingHarness,
    /// The harness answers.
    HarnessReady,
    /// The repository is being cloned.
    CloningRepo,
    /// Requirements are being installed.
    InstallingDeps,
    /// The harness listens.
    HarnessListening,
    /// The session takes turns.
    Ready,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 9] = [
        Self::CreatingSandbox,
        Self::PodPending,
        Self::PodRunning,
        Self::WaitingHarness,
        Self::HarnessReady,
        Self::CloningRepo,
        Self::InstallingDeps,
        Self::HarnessListening,
        Self::Ready,
    ];

    /// The stored and wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreatingSandbox => "creating_sandbox",
            Self::PodPending => "pod_pending",
            Self::PodRunning => "pod_running",
            Self::WaitingHarness => "waiting_harness",
            Self::HarnessReady => "harness_ready",
            Self::CloningRepo => "cloning_repo",
            Self::InstallingDeps => "installing_deps",
            Self::HarnessListening => "harness_listening",
            Self::Ready => "ready",
        }
    }

    /// The phase of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == name)
    }
}

/// A stored session. Its sealed opening is read on its own ([`crate::store::Sessions::bring_up`]), so lists stay small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its agent.
    pub agent: AgentId,
    /// The version of the agent it was opened with.
    pub agent_version: u64,
    /// Its state.
    pub state: SessionState,
    /// Since when.
    pub state_since: Timestamp,
    /// How far its bring-up is.
    pub phase: Option<Phase>,
    /// What is happening in that phase.
    pub phase_detail: Option<String>,
    /// Counts bring-ups: 1 after the first open.
    pub attempt: u32,
    /// The sandbox that serves it now, or served it last.
    pub sandbox: Option<SandboxId>,
    /// Where that sandbox answers, `host:port`, while it is claimed.
    pub address: Option<String>,
    /// The harness's own id of the conversation.
    pub conversation: Option<String>,
    /// Title given by the client.
    pub title: Option<String>,
    /// The first user text, for lists; at most 60 characters.
    pub preview: Option<String>,
    /// Why it failed or died, in words.
    pub failure: Option<String>,
    /// Why it ended.
    pub ended_by: Option<EndedBy>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// Who opened it.
    pub created_by: String,
    /// The last ingress or the end of the last turn.
    pub last_seen_at: Timestamp,
}
