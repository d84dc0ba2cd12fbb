use async_trait::async_trait;

use super::work::Hold;
use crate::blueprint::{BlueprintHash, PlatformHash};
use crate::error::Result;
use crate::id::{SandboxId, SessionId};
use crate::sandbox::{Place, Sandbox, SandboxState};

/// A sandbox to plan for the pool.
#[derive(Debug, Clone)]
pub struct NewSandbox {
    /// Its id.
    pub id: SandboxId,
    /// The agent's half of the pool key.
    pub blueprint_hash: BlueprintHash,
    /// The platform's half.
    pub platform_hash: PlatformHash,
    /// Where it will live.
    pub place: Place,
}

/// Gives a session another sandbox because its own is broken.
#[derive(Debug, Clone)]
pub struct Replace {
    /// The session, still creating.
    pub session: SessionId,
    /// The held `bring_up` item.
    pub hold: Hold,
    /// The sandbox that does not work.
    pub broken: SandboxId,
    /// Why.
    pub reason: String,
    /// The id to plan when none is warm.
    pub cold_sandbox: SandboxId,
    /// Where that one will live.
    pub place: Place,
    /// Take another warm one if there is one; else always plan a cold one.
    pub warm: bool,
}

/// The answer to [`Sandboxes::replace_sandbox`].
#[derive(Debug, Clone, PartialEq)]
pub enum Replaced {
    /// Another warm sandbox was claimed.
    Warm(Sandbox),
    /// A cold one was planned.
    Cold(Sandbox),
    /// The hold is lost, the session is no longer creating, or `broken` is not its sandbox. Nothing changed.
    Stale,
}

/// How many sandboxes of a pool key are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolCount {
    /// The agent's half of the pool key.
    pub blueprint_hash: BlueprintHash,
    /// The platform's half.
    pub platform_hash: PlatformHash,
    /// The state.
    pub state: SandboxState,
    /// How many.
    pub count: u64,
}

/// The one table of all sandboxes.
#[async_trait]
pub trait Sandboxes {
    /// The sandbox exists as provisioning and belongs to nobody. Idempotent by id.
    async fn plan_sandbox(&self, new: NewSandbox) -> Result<()>;

    /// The sandbox.
    async fn sandbox(&self, id: SandboxId) -> Result<Option<Sandbox>>;

    /// provisioning -> warm at this address. `false` when it is not a provisioning sandbox without a session.
    async fn warm_sandbox(&self, id: SandboxId, address: &str) -> Result<bool>;

    /// The broken one is dead with a `cleanup` item; the session has another one of the same key, whose place is now
    /// the `bring_up` item's. The burial comes first and the claim depends on it, so a repetition never takes two.
    async fn replace_sandbox(&self, replace: Replace) -> Result<Replaced>;

    /// A live sandbox is dead for `reason`, with a `cleanup` item due. An active session of it is dead, ended by
    /// error; its open turn is unknown and its queued turns are failed, in the same commit. Idempotent;
    /// `false` when it was not live.
    async fn lose_sandbox(&self, id: SandboxId, reason: &str) -> Result<bool>;

    /// stopping | dead -> gone. Idempotent: `true` again when it is gone; `false` when it is still live or unknown.
    async fn bury_sandbox(&self, id: SandboxId) -> Result<bool>;

    /// Every sandbox at `place` that is not gone.
    async fn sandboxes_at(&self, place: Place) -> Result<Vec<Sandbox>>;

    /// Counts of sandboxes that are not gone, by key and state.
    async fn count_sandboxes(&self) -> Result<Vec<PoolCount>>;
}
