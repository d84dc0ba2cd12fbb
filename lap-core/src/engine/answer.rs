//! The verb that answers what an agent asks: a permission or a question.

use serde_json::Value;

use super::Engine;
use crate::caller::Caller;
use crate::error::{Error, ErrorKind, Result};
use crate::id::SessionId;
use crate::session::SessionState;

impl Engine {
    /// The harness has the answer to the request `request`, which it told in an event, and goes on. The session
    /// counts as used.
    ///
    /// # Errors
    /// `NotFound` for the session, or when nothing waits under this id (somebody else answered, or it timed out);
    /// `WrongState` while the session is creating; `Gone` after its end; `Unavailable`.
    pub async fn answer(&self, _caller: &Caller, id: SessionId, request: &str, reply: &Value) -> Result<()> {
        const ANSWER: &str = "answer agent";
        let session = self.core.session(id).await?;
        let (sandbox, address) = match (session.state, session.sandbox, &session.address) {
            (SessionState::Ready, Some(sandbox), Some(address)) => (sandbox, address),
            (SessionState::Creating, ..) => {
                return Err(Error::new(
                    ErrorKind::WrongState,
                    ANSWER,
                    "the session is not ready yet",
                ));
            }
            _ => return Err(Error::new(ErrorKind::Gone, ANSWER, "the session has ended")),
        };
        self.touch(id);
        let contact = self.core.contact(sandbox, address);
        self.core.parts.harness.answer(&contact, request, reply).await
    }
}
