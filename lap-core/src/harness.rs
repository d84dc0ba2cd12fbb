//! The contract of a harness: what runs the agent inside a sandbox.
//!
//! Everything that comes out of a sandbox is untrusted input. Implementations bound sizes and check that the
//! answer comes from the sandbox that was asked.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use serde_json::Value;

use crate::blueprint::LateBindable;
use crate::error::{Error, Result};
use crate::id::{SandboxId, SessionId, TurnId};
use crate::opening::Skill;
use crate::secret::Secret;
use crate::session::Phase;
use crate::turn::Outcome;

/// How to reach one sandbox.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Who is expected to answer.
    pub sandbox: SandboxId,
    /// `host:port`.
    pub address: String,
    /// A token for the scope [`Control`](crate::token::Scope::Control).
    pub token: Secret,
}

/// Whether a harness can take a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet.
    Preparing,
    /// Yes.
    Ready,
    /// It never will; the reason is for people.
    Failed(String),
}

/// What a harness says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Whether it can take a conversation.
    pub readiness: Readiness,
    /// How far it is.
    pub phase: Option<Phase>,
    /// Details of the phase.
    pub detail: Option<String>,
    /// The session it is bound to.
    pub session: Option<SessionId>,
}

/// What is bound to a harness after the claim.
#[derive(Debug, Clone)]
pub struct OpenConversation {
    /// The session.
    pub session: SessionId,
    /// The fence of the work item under which this is done.
    pub fence: u64,
    /// Title.
    pub title: Option<String>,
    /// Instructions.
    pub prompt: Option<String>,
    /// Model.
    pub model: String,
    /// Skills.
    pub skills: Vec<Skill>,
    /// MCP servers.
    pub mcp_servers: Vec<Value>,
    /// What the agent may do without asking, see [`AgentSpec::permission`](crate::agent::AgentSpec::permission).
    pub permission: Value,
    /// How long a permission request or a question waits for an answer before it counts as refused.
    pub answer_timeout: Duration,
    /// Plain environment of the session.
    pub env: BTreeMap<String, Secret>,
    /// The conversation so far as `[{info, parts}]`, when its own state could not be restored or is too old: then it
    /// stands in place of what a snapshot restored. It is context: nothing in it is done again.
    pub history: Vec<Value>,
}

/// What of a sandbox outlives it, in the harness's own form.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Uncommitted work of the workspace and the state of the conversation. Untrusted, and private to the session.
    pub bytes: Vec<u8>,
    /// What did not fit or could not be read, in words.
    pub lost: Vec<String>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} bytes, lost {:?})", self.bytes.len(), self.lost)
    }
}

/// One turn on its way to a harness.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The turn.
    pub turn: TurnId,
    /// The fence of the work item under which it is sent; older ones are refused.
    pub fence: u64,
    /// Message parts.
    pub parts: Vec<Value>,
    /// Another model than the conversation's.
    pub model: Option<String>,
    /// How long the harness may work on it.
    pub deadline: Duration,
}

/// One entry of a harness's journal.
#[derive(Debug, Clone, PartialEq)]
pub struct HarnessEvent {
    /// Its number in the journal of this sandbox.
    pub seq: u64,
    /// The turn it belongs to.
    pub turn: Option<TurnId>,
    /// opencode's event names, e.g. `message.part.delta`.
    pub kind: String,
    /// The event's properties.
    pub properties: Value,
    /// Set on the last event of a turn.
    pub outcome: Option<Outcome>,
}

/// A harness's journal from some point on.
pub type HarnessEvents = Pin<Box<dyn Stream<Item = Result<HarnessEvent>> + Send>>;

/// The answer to a delivery.
pub enum Sent {
    /// The harness works on it; the stream ends after the turn's outcome.
    Started(HarnessEvents),
    /// It had this turn before. Nothing was started; [`Harness::attach`] continues.
    Known,
    /// A newer fence was seen. Nothing was started.
    Stale,
    /// Another turn is running there. Nothing was started.
    Busy,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started(_) => "Started",
            Self::Known => "Known",
            Self::Stale => "Stale",
            Self::Busy => "Busy",
        })
    }
}

/// Talks to harnesses.
#[async_trait]
pub trait Harness: Send + Sync + fmt::Debug + 'static {
    /// Which parts of an opening the named harness takes after launch; `None` when the name is not known.
    fn late_bindable(&self, harness: &str) -> Option<LateBindable>;

    /// Asks for identity and readiness, waiting up to `wait` for the end of the preparation.
    ///
    /// # Errors
    /// `Unavailable` when nothing answers; `Stale` when another sandbox answers at this address.
    async fn probe(&self, at: &Contact, wait: Duration) -> Result<Probe>;

    /// The harness holds the conversation of this session. Idempotent for the same session. Returns the
    /// harness's own id of the conversation.
    ///
    /// # Errors
    /// `WrongState` when it belongs to another session, `Stale` for an old fence, `Unavailable`.
    async fn open(&self, at: &Contact, open: &OpenConversation) -> Result<String>;

    /// What of the sandbox outlives it, at most `limit_bytes` long.
    ///
    /// # Errors
    /// `Unsupported` when this harness cannot, `Unavailable`.
    async fn snapshot(&self, at: &Contact, limit_bytes: usize) -> Result<Snapshot> {
        let _ = limit_bytes;
        Err(Error::unsupported(
            "take snapshot",
            format!("the harness at {}", at.address),
        ))
    }

    /// The sandbox has the workspace and the conversation of the snapshot. Before [`Harness::open`]; idempotent.
    /// Returns what could not be restored, in words.
    ///
    /// # Errors
    /// `Unsupported` when this harness cannot, `Invalid` when the snapshot is not of its form, `Stale` for an old fence,
    /// `Unavailable`.
    async fn restore(&self, at: &Contact, fence: u64, snapshot: &Snapshot) -> Result<Vec<String>> {
        let _ = (fence, snapshot);
        Err(Error::unsupported(
            "restore snapshot",
            format!("the harness at {}", at.address),
        ))
    }

    /// Delivers a turn, at most once per turn id and sandbox.
    ///
    /// # Cancel safety
    /// If dropped, the harness may have the turn; [`Harness::has_turn`] tells.
    ///
    /// # Errors
    /// `Unavailable`: it is unknown whether the harness has the turn.
    async fn send(&self, at: &Contact, delivery: &Delivery) -> Result<Sent>;

    /// Whether the harness has ever had this turn.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn has_turn(&self, at: &Contact, turn: TurnId) -> Result<bool>;

    /// The journal after `seq`, ending after the outcome of `turn`.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn attach(&self, at: &Contact, after: u64, turn: TurnId) -> Result<HarnessEvents>;

    /// The harness stops working on the turn; its outcome follows in the journal. Idempotent.
    ///
    /// # Errors
    /// `NotFound` when the harness never had the turn; `Unavailable`.
    async fn abort(&self, at: &Contact, turn: TurnId) -> Result<()>;

    /// The conversation as the harness has it: `[{info, parts}]`.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn messages(&self, at: &Contact) -> Result<Vec<Value>>;

    /// Answers a permission request or a question.
    ///
    /// # Errors
    /// `NotFound` when nothing waits under this id, `Unavailable`.
    async fn answer(&self, at: &Contact, request: &str, reply: &Value) -> Result<()>;
}
