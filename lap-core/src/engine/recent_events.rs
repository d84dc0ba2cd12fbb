//! The newest part of a session's log.

use super::Engine;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::SessionId;

/// Events read from the store at once.
const PAGE: u32 = 512;

impl Engine {
    /// The newest events of the session that retention has kept, at most `limit`, oldest first.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn recent_events(&self, session: SessionId, limit: u32) -> Result<Vec<Event>> {
        let store = &self.core.parts.store;
        let missing = || Error::not_found("read events", "session", session);
        let head = store
            .events(session, u64::MAX, 1)
            .await?
            .ok_or_else(missing)?
            .head;
        let mut events: Vec<Event> = Vec::new();
        let mut after = head.saturating_sub(u64::from(limit));
        while after < head {
            let page = store.events(session, after, PAGE).await?.ok_or_else(missing)?;
            let Some(last) = page.events.last() else { break };
            after = last.id;
            // What is appended meanwhile belongs to the next call.
            events.extend(page.events.into_iter().filter(|event| event.id <= head));
        }
        Ok(events)
    }
}
