//! The contract of a runtime: something that starts and stops sandboxes.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;

use crate::blueprint::Blueprint;
use crate::capability::Capabilities;
use crate::error::Result;
use crate::id::{InstanceId, SandboxId};
use crate::secret::Secret;
use crate::token::VerifyingKey;
use crate::vault::GatewayAccess;

/// Everything a runtime needs to start one sandbox. It carries stubs, never a real credential but the token
/// for the clone, which is gone before the agent starts.
#[derive(Debug, Clone)]
pub struct LaunchSpec {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The installation that owns it.
    pub instance: InstanceId,
    /// With which the sandbox checks its callers.
    pub public_key: VerifyingKey,
    /// What is baked in. `repo_url` is resolved: absent means an empty workspace.
    pub blueprint: Blueprint,
    /// Plain environment of the agent, stubs included.
    pub env: BTreeMap<String, String>,
    /// Token for cloning the repository.
    pub git_token: Option<Secret>,
    /// How the sandbox reaches models.
    pub gateway: GatewayAccess,
    /// Labels for people and for sweeps.
    pub labels: BTreeMap<String, String>,
}

/// Where a sandbox answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `host:port`. Readiness is not implied: the engine asks the harness.
    At(String),
    /// It certainly does not exist any more.
    Gone {
        /// What is known about why, e.g. the last lines it printed.
        reason: String,
    },
    /// The runtime cannot say. Unknown is not gone.
    Unknown,
}

/// What a runtime tells about its sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuntimeEvent {
    /// It exists.
    Exists(SandboxId),
    /// Everything that existed at the start has been told. A sweep needs this.
    Complete,
    /// It has ended.
    Gone {
        /// Which.
        sandbox: SandboxId,
        /// Why, as far as known.
        reason: String,
    },
}

/// A stream of [`RuntimeEvent`]s.
pub type RuntimeEvents = Pin<Box<dyn Stream<Item = RuntimeEvent> + Send>>;

/// Starts and stops sandboxes.
#[async_trait]
pub trait SandboxRuntime: Send + Sync + fmt::Debug + 'static {
    /// What this runtime can do.
    fn capabilities(&self) -> Capabilities;

    /// The sandbox exists or is being made. Idempotent by sandbox id: a repetition changes nothing.
    ///
    /// # Cancel safety
    /// If dropped, the sandbox may exist; repeat the call or stop it.
    ///
    /// # Errors
    /// `Unavailable` when the runtime cannot be asked; `Invalid` when the specification cannot be met here.
    async fn launch(&self, spec: &LaunchSpec) -> Result<()>;

    /// Waits until the sandbox has an address, at most `within`; [`Endpoint::Unknown`] when the time is over.
    ///
    /// # Errors
    /// `Unavailable` when the runtime cannot be asked.
    async fn endpoint(&self, sandbox: SandboxId, within: Duration) -> Result<Endpoint>;

    /// The sandbox carries these labels as well.
    ///
    /// # Errors
    /// `NotFound` when it does not exist; `Unavailable`.
    async fn bind(&self, sandbox: SandboxId, labels: &BTreeMap<String, String>) -> Result<()>;

    /// Nothing of the sandbox is left: processes, files, objects. Idempotent; an unknown id is fine.
    /// What runs inside is asked to end and is killed after `grace`.
    ///
    /// # Errors
    /// `Unavailable` when the runtime cannot be asked; the caller repeats.
    async fn stop(&self, sandbox: SandboxId, grace: Duration) -> Result<()>;

    /// Tells all sandboxes of this instance that exist, then [`RuntimeEvent::Complete`], then every end.
    fn watch(&self) -> RuntimeEvents;

    /// The last `lines` lines that the sandbox's own process printed. Untrusted text.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    async fn logs(&self, sandbox: SandboxId, lines: usize) -> Result<String>;
}
