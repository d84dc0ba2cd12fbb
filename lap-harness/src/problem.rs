//! Refusals on the wire.

use serde::{Deserialize, Serialize};

/// The body of every refusal (RFC 9457, with a machine-readable `code`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// A short title.
    pub title: String,
    /// What to tell people.
    #[serde(default)]
    pub detail: String,
    /// What to tell programs; see the constants of this module.
    #[serde(default)]
    pub code: String,
}

/// The sandbox belongs to another session.
pub const BOUND: &str = "bound";
/// No session has opened the sandbox yet.
pub const UNBOUND: &str = "unbound";
/// A newer owner has taken over.
pub const STALE_FENCE: &str = "stale_fence";
/// The turn's id was seen before; the turn is not run again.
pub const TURN_KNOWN: &str = "turn_known";
/// Another turn is running.
pub const BUSY: &str = "busy";
/// The sandbox is not ready yet.
pub const PREPARING: &str = "preparing";
/// The sandbox failed and will not become ready.
pub const FAILED: &str = "failed";
/// The harness cannot do what was asked.
pub const UNSUPPORTED: &str = "unsupported";
