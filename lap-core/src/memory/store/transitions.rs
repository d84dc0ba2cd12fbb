//! Transitions that several verbs share: how turns begin and end, how sessions end, how sandboxes are let go.

use std::time::Duration;

use super::tables::{SandboxRow, Tables};
use crate::event::NewEvent;
use crate::id::{SandboxId, SessionId, TurnId};
use crate::sandbox::{Place, Sandbox, SandboxState};
use crate::session::{EndedBy, Session, SessionState};
use crate::store::{NewTurn, NewWork, WorkKind};
use crate::time::Timestamp;
use crate::turn::{Outcome, Turn, TurnState, Usage, preview};

/// How a session ends, and what becomes of its turns.
pub(super) struct Ending<'a> {
    /// Failed or dead.
    pub(super) state: SessionState,
    pub(super) by: EndedBy,
    pub(super) reason: Option<&'a str>,
    /// What becomes of the open turn.
    pub(super) open: TurnState,
    /// What becomes of the queued turns.
    pub(super) queued: TurnState,
}

impl Tables {
    /// A new turn at the end of the session's queue, with its event.
    pub(super) fn queue_turn(&mut self, session: SessionId, new: NewTurn, now: Timestamp) -> TurnId {
        let number = self.turns_of(session).last().map_or(1, |last| last.number + 1);
        if let Some(row) = self.sessions.get_mut(&session) {
            row.session.last_seen_at = now;
            row.session.preview = row.session.preview.take().or_else(|| preview(&new.parts));
        }
        self.append_event(
            session,
            NewEvent::turn_accepted(new.id, number, &new.parts, &new.created_by),
            now,
        );
        let turn = Turn {
            id: new.id,
            session,
            number,
            state: TurnState::Queued,
            parts: new.parts,
            model: new.model,
            abort_requested: false,
            failure: None,
            reply: None,
            usage: Usage::default(),
            created_by: new.created_by,
            created_at: now,
            started_at: None,
            finished_at: None,
        };
        self.turn_numbers.insert(turn.id, (session, number));
        let id = turn.id;
        self.turns.insert((session, number), turn);
        id
    }

    /// queued -> sending.
    pub(super) fn start_turn(&mut self, id: TurnId, now: Timestamp) -> Option<Turn> {
        let turn = self.turn_mut(id)?;
        turn.state = TurnState::Sending;
        turn.started_at = Some(now);
        Some(turn.clone())
    }

    /// The turn has its outcome, with its event.
    pub(super) fn finish_turn(&mut self, id: TurnId, outcome: Outcome, now: Timestamp) -> Option<Turn> {
        let turn = self.turn_mut(id)?;
        turn.state = outcome.state;
        turn.failure = outcome.failure;
        turn.reply = outcome.reply;
        turn.usage = outcome.usage;
        turn.finished_at = Some(now);
        let turn = turn.clone();
        self.append_event(turn.session, NewEvent::turn_finished(&turn), now);
        Some(turn)
    }

    /// The session has ended: its turns first, then itself, then its work and its sandbox. Its last event is its own.
    pub(super) fn end_session(
        &mut self,
        id: SessionId,
        ending: &Ending<'_>,
        now: Timestamp,
    ) -> Option<Session> {
        let reason = ending.reason.unwrap_or("the session has ended");
        let unfinished: Vec<_> = self
            .turns_of(id)
            .filter(|turn| !turn.state.is_terminal())
            .cloned()
            .collect();
        for turn in unfinished {
            let state = if turn.state.is_open() {
                ending.open
            } else {
                ending.queued
            };
            self.finish_turn(
                turn.id,
                Outcome {
                    state,
                    ..Outcome::failed(reason)
                },
                now,
            );
        }
        let session = &mut self.sessions.get_mut(&id)?.session;
        session.state = ending.state;
        session.state_since = now;
        session.ended_by = Some(ending.by);
        session.failure = ending.reason.map(str::to_owned);
        session.address = None;
        let session = session.clone();
        let event = match ending.state {
            SessionState::Failed => NewEvent::session_failed(reason),
            _ => NewEvent::session_ended(ending.by, ending.reason),
        };
        self.append_event(id, event, now);
        for kind in [WorkKind::BringUp, WorkKind::Turn, WorkKind::Reap] {
            self.work.remove(&(kind, id.to_string()));
        }
        if let Some(sandbox) = session.sandbox {
            self.let_go(sandbox, SandboxState::Stopping, reason, now);
        }
        Some(session)
    }

    /// A live sandbox is stopping or dead, and its `cleanup` item is due. `false` when it was not live.
    pub(super) fn let_go(
        &mut self,
        id: SandboxId,
        state: SandboxState,
        reason: &str,
        now: Timestamp,
    ) -> bool {
        let Some(row) = self
            .sandboxes
            .get_mut(&id)
            .filter(|row| row.sandbox.state.is_live())
        else {
            return false;
        };
        row.sandbox.state = state;
        row.sandbox.state_since = now;
        row.sandbox.reason = Some(reason.to_owned());
        let place = Some(row.sandbox.place);
        let cleanup = NewWork {
            kind: WorkKind::Cleanup,
            key: id.to_string(),
            place,
            after: Duration::ZERO,
        };
        self.enqueue(cleanup, now);
        true
    }

    /// A warm sandbox belongs to the session.
    pub(super) fn claim(&mut self, id: SandboxId, session: SessionId, now: Timestamp) -> Option<Sandbox> {
        let sandbox = &mut self.sandboxes.get_mut(&id)?.sandbox;
        sandbox.state = SandboxState::Claimed;
        sandbox.state_since = now;
        sandbox.session = Some(session);
        Some(sandbox.clone())
    }

    /// The new sandbox is provisioning.
    pub(super) fn plan(&mut self, sandbox: Sandbox) -> Sandbox {
        self.sandboxes.insert(
            sandbox.id,
            SandboxRow {
                sandbox: sandbox.clone(),
                warm_at: None,
            },
        );
        sandbox
    }

    /// Where the session's sandbox lives.
    pub(super) fn place_of(&self, session: SessionId) -> Option<Place> {
        let sandbox = self.sessions.get(&session)?.session.sandbox?;
        self.sandboxes.get(&sandbox).map(|row| row.sandbox.place)
    }
}
