//! What a sandbox says about itself.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far the sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// The workspace or the harness is being prepared.
    Preparing,
    /// The harness can be opened.
    Ready,
    /// The sandbox will never become ready; `detail` says why.
    Failed,
}

/// The answer of `GET /lap/health`: identity and readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The sandbox's id. A caller that expected another one is talking to a stranger.
    pub sandbox: Uuid,
    /// The installation the sandbox belongs to.
    pub instance: Uuid,
    /// Random per process of sandboxd: another value means it was restarted.
    pub boot: Uuid,
    /// The protocol version, see [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION).
    pub protocol: u32,
    /// How far the sandbox is.
    pub state: Readiness,
    /// The step that is running or was the last: `creating_sandbox`, `cloning_repo`, `harness_listening`, `ready`.
    pub phase: String,
    /// Progress within the phase, or the reason of a failure.
    #[serde(default)]
    pub detail: String,
    /// The harness's name.
    pub harness: String,
    /// The session the sandbox is bound to.
    #[serde(default)]
    pub session: Option<Uuid>,
    /// The harness's conversation of that session.
    #[serde(default)]
    pub conversation: Option<String>,
}
