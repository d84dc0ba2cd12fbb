//! Sandboxes: where agents run. Every sandbox, warm or cold, is one row.

use crate::blueprint::{BlueprintHash, PlatformHash};
use crate::id::{HostId, SandboxId, SessionId};
use crate::time::Timestamp;

/// Where a sandbox lives, and therefore who can work on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Reachable from every process of the installation.
    Cluster,
    /// A process tree of one machine.
    Host(HostId),
}

/// The states of a sandbox.
///
/// ```text
/// provisioning -> warm -> claimed -> stopping -> gone     provisioning -> claimed (cold)
/// provisioning | warm | claimed -> dead -> gone           provisioning | warm -> stopping
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SandboxState {
    /// It is being brought up, for the pool or for a session.
    Provisioning,
    /// It is ready and nobody's.
    Warm,
    /// It is ready and belongs to one session.
    Claimed,
    /// It must go; the `cleanup` work removes it.
    Stopping,
    /// It ended by itself; the `cleanup` work removes what is left.
    Dead,
    /// Nothing of it is left.
    Gone,
}

impl SandboxState {
    /// Every state, for tables and tests.
    pub const ALL: [Self; 6] = [
        Self::Provisioning,
        Self::Warm,
        Self::Claimed,
        Self::Stopping,
        Self::Dead,
        Self::Gone,
    ];

    /// The stored name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Warm => "warm",
            Self::Claimed => "claimed",
            Self::Stopping => "stopping",
            Self::Dead => "dead",
            Self::Gone => "gone",
        }
    }

    /// The state of this stored name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether it runs or is about to.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Provisioning | Self::Warm | Self::Claimed)
    }
}

/// A stored sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// The agent's half of its pool key.
    pub blueprint_hash: BlueprintHash,
    /// The platform's half of its pool key.
    pub platform_hash: PlatformHash,
    /// Its state.
    pub state: SandboxState,
    /// Since when.
    pub state_since: Timestamp,
    /// The session that owns it.
    pub session: Option<SessionId>,
    /// Where it lives.
    pub place: Place,
    /// Where its harness answers, `host:port`, once known.
    pub address: Option<String>,
    /// Why it ended.
    pub reason: Option<String>,
    /// When it was planned.
    pub created_at: Timestamp,
}
