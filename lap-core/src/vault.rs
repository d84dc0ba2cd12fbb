//! The contract of a vault: it holds real credentials, hands out stubs and redeems them outside the sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;

use crate::error::Result;
use crate::id::SandboxId;
use crate::opening::Grant;
use crate::time::Timestamp;

/// The name under which the model gateway's key is attached and granted.
pub const GATEWAY_KEY: &str = "LITELLM_API_KEY";

/// How a sandbox reaches models: through the vault's relay, with a stub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayAccess {
    /// Base URL as the sandbox sees it.
    pub base: String,
    /// Stub key.
    pub key: String,
}

/// What to prepare for one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Names of its secrets, [`GATEWAY_KEY`] not included: it is always there.
    pub secrets: BTreeSet<String>,
    /// Egress allow list.
    pub allow_out: Vec<String>,
    /// Egress deny list.
    pub deny_out: Vec<String>,
}

/// What the sandbox may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Stubs by variable name.
    pub env: BTreeMap<String, String>,
    /// The way to models.
    pub gateway: GatewayAccess,
}

/// One redeemed or refused use of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Grows within a sandbox.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// HTTP method.
    pub method: String,
    /// Host the request went to or was refused for.
    pub host: String,
    /// Path without the values of its query.
    pub path: String,
    /// `swapped`, `literal` or `refused`.
    pub verdict: String,
    /// Reason code of a refusal.
    pub reason: Option<String>,
    /// Names of the credentials, never values.
    pub credentials: Vec<String>,
    /// Status the sandbox saw.
    pub status: u16,
}

/// Holds real credentials.
#[async_trait]
pub trait Vault: Send + Sync + fmt::Debug + 'static {
    /// The sandbox has its stubs, and nothing else has them. Before launch. Idempotent: the same sandbox gets
    /// the same stubs, also after a restart of the vault.
    ///
    /// # Errors
    /// `Unavailable` when the vault does not answer. No vault, no egress: the caller does not launch.
    async fn attach(&self, attach: &Attach) -> Result<Attachment>;

    /// The vault redeems the stubs of these names with these values from now on. Values replace earlier ones.
    /// A vault that was restarted gets them again by itself from whoever granted them, or by a repetition.
    ///
    /// # Errors
    /// `NotFound` when the sandbox is not attached; `Unavailable`.
    async fn grant(&self, sandbox: SandboxId, grants: &[Grant]) -> Result<()>;

    /// The sandbox's stubs are dead. Idempotent.
    ///
    /// # Errors
    /// `Unavailable`; the caller repeats.
    async fn detach(&self, sandbox: SandboxId) -> Result<()>;

    /// Receipts after this number, oldest first, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn receipts(&self, sandbox: SandboxId, after: u64, limit: usize) -> Result<Vec<Receipt>>;
}
