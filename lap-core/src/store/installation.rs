use async_trait::async_trait;

use crate::error::Result;
use crate::id::InstanceId;
use crate::seal::Sealed;

/// Names this installation. Everything made in a runtime carries the id, so two installations that share a
/// runtime never touch each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// The sealed seed of the key that signs sandbox tokens.
    pub signing_seed: Sealed,
}

/// The one row about the installation, and the store's health.
#[async_trait]
pub trait Installation {
    /// The stored instance; `candidate` when there was none. All callers get the same.
    async fn instance(&self, candidate: Instance) -> Result<Instance>;

    /// The store answers.
    ///
    /// # Errors
    /// `Unavailable` with the reason.
    async fn ping(&self) -> Result<()>;
}
