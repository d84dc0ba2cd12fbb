use async_trait::async_trait;

use super::MemoryStore;
use super::tables::Tables;
use crate::error::Result;
use crate::event::{Event, NewEvent};
use crate::id::{SandboxId, SessionId, TurnId};
use crate::store::{Append, Appended, EventPage, Events};
use crate::time::Timestamp;
use crate::turn::TurnState;

#[async_trait]
impl Events for MemoryStore {
    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        Ok(self.commit(|tables, now| appends.into_iter().map(|one| append(tables, one, now)).collect()))
    }

    async fn events(&self, session: SessionId, after: u64, limit: u32) -> Result<Option<EventPage>> {
        Ok(self.commit(|tables, _| {
            let log = tables.events.get(&session)?;
            let later = log.iter().filter(|event| event.id > after);
            let events = later.take(limit as usize).cloned().collect();
            Some(EventPage {
                events,
                first_kept: 1,
                head: log.len() as u64,
            })
        }))
    }

    async fn cursor(&self, session: SessionId, source: SandboxId) -> Result<u64> {
        Ok(self.commit(|tables, _| stored_cursor(tables, session, source)))
    }
}

fn stored_cursor(tables: &Tables, session: SessionId, source: SandboxId) -> u64 {
    tables.cursors.get(&(session, source)).copied().unwrap_or(0)
}

pub(super) fn append(tables: &mut Tables, append: Append, now: Timestamp) -> Appended {
    let session = append.session;
    if tables.session(session).is_none() {
        return Appended::NoSession;
    }
    if append.hold.as_ref().is_some_and(|hold| !tables.is_held(hold)) {
        return Appended::Stale;
    }
    if let Some(ingest) = append.ingest {
        let stored = stored_cursor(tables, session, ingest.source);
        if stored != ingest.expected {
            return Appended::CursorAt(stored);
        }
        tables.cursors.insert((session, ingest.source), ingest.cursor);
    }
    let mut events: Vec<_> = append
        .running
        .and_then(|turn| run(tables, session, turn, now))
        .into_iter()
        .collect();
    events.extend(
        append
            .events
            .into_iter()
            .map(|event| tables.append_event(session, event, now)),
    );
    Appended::Done(events)
}

/// sending -> running, with its event.
fn run(tables: &mut Tables, session: SessionId, id: TurnId, now: Timestamp) -> Option<Event> {
    let turn = tables.turn_mut(id)?;
    if turn.session != session || turn.state != TurnState::Sending {
        return None;
    }
    turn.state = TurnState::Running;
    Some(tables.append_event(session, NewEvent::turn_running(id), now))
}
