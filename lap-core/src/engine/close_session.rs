//! The verb that ends a session.

use super::Engine;
use crate::caller::Caller;
use crate::error::{Error, Result};
use crate::id::SessionId;
use crate::session::{EndedBy, Session};
use crate::store::{End, Ended};

/// The answer to a close.
#[derive(Debug, Clone, PartialEq)]
pub enum Closed {
    /// It was ended now.
    Now(Session),
    /// It had ended before.
    Already(Session),
}

impl Engine {
    /// The session is dead, its turns have their outcome, and its sandbox is being removed.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn close_session(&self, caller: &Caller, id: SessionId) -> Result<Closed> {
        let reason = Some(format!("closed by {}", caller.principal()));
        let end = End {
            session: id,
            by: EndedBy::User,
            reason,
            only_if_idle_for: None,
        };
        match self.core.parts.store.end(end).await? {
            Ended::Done(session) => {
                self.core.runs.end_session(id);
                self.core.changed(id);
                self.core.work_is_due();
                Ok(Closed::Now(session))
            }
            Ended::Already(session) => Ok(Closed::Already(session)),
            Ended::InUse(_) => self.core.session(id).await.map(Closed::Already),
            Ended::Missing => Err(Error::not_found("close session", "session", id)),
        }
    }
}
