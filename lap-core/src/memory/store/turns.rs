use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::events::append;
use super::tables::{Request, Tables};
use crate::error::{Error, Result};
use crate::event::NewEvent;
use crate::id::{SessionId, TurnId};
use crate::sandbox::Place;
use crate::session::SessionState;
use crate::store::{
    Aborting, Accept, Accepted, Append, Appended, Finish, Finished, Hold, NewWork, TurnQuery, Turns, WorkKind,
};
use crate::time::Timestamp;
use crate::turn::{Outcome, Turn, TurnState};

#[async_trait]
impl Turns for MemoryStore {
    async fn accept(&self, accept: Accept) -> Result<Accepted> {
        Ok(self.commit(|tables, now| accept_turn(tables, accept, now)))
    }

    async fn begin(&self, session: SessionId, hold: &Hold) -> Result<Option<Turn>> {
        Ok(self.commit(|tables, now| begin(tables, session, hold, now)))
    }

    async fn conclude(&self, last: Append, finish: Finish) -> Result<Finished> {
        terminal(&finish)?;
        Ok(self.commit(|tables, now| {
            let is_open = tables.turn(finish.turn).is_some_and(|turn| {
                turn.state.is_open() && tables.holds(&finish.hold, WorkKind::Turn, turn.session)
            });
            if !is_open || !matches!(append(tables, last, now), Appended::Done(_)) {
                return Finished::Stale;
            }
            finish_turn(tables, finish, now).unwrap_or(Finished::Stale)
        }))
    }

    async fn finish(&self, finish: Finish) -> Result<Finished> {
        terminal(&finish)?;
        Ok(self.commit(|tables, now| finish_turn(tables, finish, now).unwrap_or(Finished::Stale)))
    }

    async fn abort(&self, session: SessionId, turn: Option<TurnId>) -> Result<Aborting> {
        Ok(self.commit(|tables, now| abort(tables, session, turn, now)))
    }

    async fn turn(&self, id: TurnId) -> Result<Option<Turn>> {
        Ok(self.commit(|tables, _| tables.turn(id).cloned()))
    }

    async fn list_turns(&self, query: TurnQuery) -> Result<Vec<Turn>> {
        Ok(self.commit(|tables, _| {
            let later = tables
                .turns_of(query.session)
                .filter(|turn| turn.number > query.after);
            later.take(query.limit as usize).cloned().collect()
        }))
    }
}

fn terminal(finish: &Finish) -> Result<()> {
    if finish.outcome.state.is_terminal() {
        return Ok(());
    }
    Err(Error::invalid(
        "finish turn",
        "outcome",
        "a turn ends in a terminal state",
    ))
}

fn accept_turn(tables: &mut Tables, accept: Accept, now: Timestamp) -> Accepted {
    let known = match tables.request(accept.idempotency.as_ref(), now) {
        Request::KeyReused => return Accepted::KeyReused,
        Request::Repeated(id) => TurnId::from_uuid(id),
        // The same id is the same request, also when the client gave no key.
        Request::New => accept.turn.id,
    };
    if let Some(turn) = tables.turn(known) {
        return Accepted::Replayed(turn.clone());
    }
    let Some(session) = tables.session(accept.session) else {
        return Accepted::NoSession;
    };
    if !session.state.is_active() {
        return Accepted::Ended(session.state);
    }
    let is_busy = tables.turns_of(session.id).any(|turn| !turn.state.is_terminal());
    let starts = session.state == SessionState::Ready && !is_busy;
    let waiting = tables
        .turns_of(session.id)
        .filter(|turn| turn.state == TurnState::Queued)
        .count();
    if !starts && waiting >= accept.queue_limit as usize {
        return Accepted::Full;
    }
    tables.remember(accept.idempotency.as_ref(), accept.turn.id.as_uuid(), now);
    let id = tables.queue_turn(accept.session, accept.turn.clone(), now);
    if starts {
        start(tables, id, &accept, now)
    } else {
        queued(tables, id)
    }
    .unwrap_or(Accepted::NoSession)
}

fn queued(tables: &Tables, id: TurnId) -> Option<Accepted> {
    tables.turn(id).cloned().map(Accepted::Queued)
}

/// The turn is sending, and its item is held by the accepting process if that reaches the sandbox.
fn start(tables: &mut Tables, id: TurnId, accept: &Accept, now: Timestamp) -> Option<Accepted> {
    let place = tables.place_of(accept.session);
    let turn = tables.start_turn(id, now)?;
    let key = accept.session.to_string();
    let work = NewWork {
        kind: WorkKind::Turn,
        key,
        place,
        after: Duration::ZERO,
    };
    if place == Some(Place::Cluster) || place == Some(accept.place) {
        let item = tables.enqueue_held(work, accept.worker, now);
        return Some(Accepted::Started(turn, item));
    }
    tables.enqueue(work, now);
    Some(Accepted::Started(turn, None))
}

fn begin(tables: &mut Tables, session: SessionId, hold: &Hold, now: Timestamp) -> Option<Turn> {
    if !tables.holds(hold, WorkKind::Turn, session) {
        return None;
    }
    if let Some(turn) = tables.open_turn(session) {
        return Some(turn.clone());
    }
    next(tables, session, now)
}

/// The first queued turn of a ready session is sending.
fn next(tables: &mut Tables, session: SessionId, now: Timestamp) -> Option<Turn> {
    if tables.session(session)?.state != SessionState::Ready {
        return None;
    }
    let first = tables.first_queued(session)?;
    tables.start_turn(first, now)
}

/// `None`: the caller was late and nothing changes.
fn finish_turn(tables: &mut Tables, finish: Finish, now: Timestamp) -> Option<Finished> {
    let turn = tables.turn(finish.turn)?;
    let session = turn.session;
    if !turn.state.is_open() || !tables.holds(&finish.hold, WorkKind::Turn, session) {
        return None;
    }
    let turn = tables.finish_turn(finish.turn, finish.outcome, now)?;
    tables.session_mut(session)?.last_seen_at = now;
    let following = next(tables, session, now);
    let key = (WorkKind::Turn, session.to_string());
    match &following {
        Some(_) => tables.work.get_mut(&key)?.attempts = 1,
        None => drop(tables.work.remove(&key)),
    }
    Some(Finished::Done(turn, following))
}

fn abort(tables: &mut Tables, session: SessionId, only: Option<TurnId>, now: Timestamp) -> Aborting {
    let meant: Vec<_> = tables
        .turns_of(session)
        .filter(|turn| !turn.state.is_terminal() && only.is_none_or(|only| only == turn.id))
        .cloned()
        .collect();
    let mut aborting = Aborting::default();
    for turn in meant {
        if turn.state.is_open() {
            aborting.open = request_abort(tables, &turn, now);
        } else {
            aborting
                .aborted
                .extend(tables.finish_turn(turn.id, Outcome::aborted("someone stopped it"), now));
        }
    }
    aborting
}

/// The open turn's worker is told to end it; asking twice is asking once.
fn request_abort(tables: &mut Tables, turn: &Turn, now: Timestamp) -> Option<Turn> {
    if !turn.abort_requested {
        tables.turn_mut(turn.id)?.abort_requested = true;
        tables.append_event(turn.session, NewEvent::turn_abort_requested(turn.id), now);
    }
    tables.turn(turn.id).cloned()
}
