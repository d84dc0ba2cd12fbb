//! What a session's sandbox printed.

use super::Engine;
use crate::error::{ErrorKind, Result};
use crate::id::SessionId;

impl Engine {
    /// The last `lines` lines that the session's sandbox printed; empty when there is no sandbox, or none any more.
    /// Untrusted text.
    ///
    /// # Errors
    /// `NotFound` for the session; `Unavailable` when the store or the runtime cannot be asked.
    pub async fn sandbox_logs(&self, id: SessionId, lines: usize) -> Result<String> {
        let Some(sandbox) = self.core.session(id).await?.sandbox else {
            return Ok(String::new());
        };
        match self.core.parts.runtime.logs(sandbox, lines).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            read => read,
        }
    }
}
