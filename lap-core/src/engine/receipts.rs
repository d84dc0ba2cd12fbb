//! What the vault knows about a session: the names of its credentials, and what became of their uses.

use super::Engine;
use crate::error::Result;
use crate::id::SessionId;
use crate::opening::Opening;
use crate::vault::{GATEWAY_KEY, Receipt};

impl Engine {
    /// Receipts of the session's present sandbox after this number, oldest first, at most `limit`.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when the store or the vault does not answer.
    pub async fn receipts(&self, id: SessionId, after: u64, limit: usize) -> Result<Vec<Receipt>> {
        match self.core.session(id).await?.sandbox {
            Some(sandbox) => self.core.parts.vault.receipts(sandbox, after, limit).await,
            None => Ok(Vec::new()),
        }
    }

    /// The names under which the session's sandbox sees stubs of credentials, sorted; the gateway's key included.
    /// Empty once the sandbox is gone.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable`; `Corrupt` when the opening was sealed with another key.
    pub async fn credential_names(&self, id: SessionId) -> Result<Vec<String>> {
        self.core.session(id).await?;
        let Some(found) = self.core.parts.store.bring_up(id).await? else {
            return Ok(Vec::new());
        };
        if !found.session.state.is_active() {
            return Ok(Vec::new());
        }
        let opening = Opening::unseal(id, &found.opening, &self.core.parts.sealer)?;
        let mut names: Vec<_> = opening.grants.into_iter().map(|grant| grant.name).collect();
        names.push(GATEWAY_KEY.to_owned());
        names.sort();
        Ok(names)
    }
}
