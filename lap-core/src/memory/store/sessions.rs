use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::revive;
use super::tables::{Request, SandboxRow, SessionRow, Tables};
use super::transitions::Ending;
use crate::agent::Agent;
use crate::error::{Error, ErrorKind, Result};
use crate::event::NewEvent;
use crate::id::SessionId;
use crate::sandbox::{Place, Sandbox, SandboxState};
use crate::session::{EndedBy, Phase, Session, SessionState};
use crate::store::{
    Advance, Advanced, BringUp, End, Ended, NewWork, Open, Opened, OpenedSession, Revive, Revived,
    SessionQuery, Sessions, Step, WorkItem, WorkKind,
};
use crate::time::Timestamp;
use crate::turn::{Turn, TurnState};

#[async_trait]
impl Sessions for MemoryStore {
    async fn open(&self, open: Open) -> Result<Opened> {
        self.commit(|tables, now| open_session(tables, open, now))
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>> {
        Ok(self.commit(|tables, _| tables.session(id).cloned()))
    }

    async fn bring_up(&self, id: SessionId) -> Result<Option<BringUp>> {
        Ok(self.commit(|tables, _| {
            let row = tables.sessions.get(&id)?;
            let sandbox = tables.sandboxes.get(&row.session.sandbox?)?.sandbox.clone();
            Some(BringUp {
                session: row.session.clone(),
                opening: row.opening.clone(),
                sandbox,
            })
        }))
    }

    async fn list_sessions(&self, query: SessionQuery) -> Result<Vec<Session>> {
        Ok(self.commit(|tables, _| list(tables, &query)))
    }

    async fn advance(&self, advance: Advance) -> Result<Advanced> {
        Ok(self.commit(|tables, now| advance_session(tables, advance, now)))
    }

    async fn end(&self, end: End) -> Result<Ended> {
        Ok(self.commit(|tables, now| end_session(tables, &end, now)))
    }

    async fn revive(&self, revive: Revive) -> Result<Revived> {
        Ok(self.commit(|tables, now| revive::revive(tables, &revive, now)))
    }

    async fn touch(&self, sessions: &[SessionId]) -> Result<()> {
        self.commit(|tables, now| {
            for id in sessions {
                if let Some(session) = tables.session_mut(*id) {
                    session.last_seen_at = now;
                }
            }
        });
        Ok(())
    }
}

impl Tables {
    pub(super) fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id).map(|row| &row.session)
    }

    pub(super) fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id).map(|row| &mut row.session)
    }
}

fn open_session(tables: &mut Tables, open: Open, now: Timestamp) -> Result<Opened> {
    match tables.request(Some(&open.idempotency), now) {
        Request::KeyReused => return Ok(Opened::KeyReused),
        Request::Repeated(id) => {
            let session = tables.session(SessionId::from_uuid(id)).cloned();
            let lost = || {
                Error::new(
                    ErrorKind::Internal,
                    "open session",
                    "a remembered session is not there",
                )
            };
            return session.map(Opened::Replayed).ok_or_else(lost);
        }
        Request::New => {}
    }
    let Some(agent) = tables.agent(open.agent).cloned() else {
        return Ok(Opened::NoAgent);
    };
    if agent.version != open.agent_version {
        return Ok(Opened::AgentChanged);
    }
    if tables.sessions.contains_key(&open.session) {
        return Err(Error::new(
            ErrorKind::WrongState,
            "open session",
            "this session id is in use",
        ));
    }
    tables.remember(Some(&open.idempotency), open.session.as_uuid(), now);
    let (sandbox, is_warm) = claim_or_plan(tables, &agent, &open, now)?;
    let worker = open.worker;
    let is_mine = sandbox.place == Place::Cluster || sandbox.place == open.place;
    let id = insert_session(tables, open, &sandbox, now);
    let bring_up = NewWork {
        kind: WorkKind::BringUp,
        key: id.to_string(),
        place: Some(sandbox.place),
        after: Duration::ZERO,
    };
    let work = if is_mine {
        tables.enqueue_held(bring_up, worker, now)
    } else {
        tables.enqueue(bring_up, now);
        None
    };
    let session = tables.session(id).cloned().ok_or_else(broken)?;
    let opened = OpenedSession {
        session,
        sandbox,
        work,
    };
    Ok(if is_warm {
        Opened::Warm(opened)
    } else {
        Opened::Cold(opened)
    })
}

/// The oldest warm sandbox of the pool key, else a planned cold one.
fn claim_or_plan(tables: &mut Tables, agent: &Agent, open: &Open, now: Timestamp) -> Result<(Sandbox, bool)> {
    if let Some(warm) = tables.oldest_warm(&agent.blueprint_hash, &open.platform_hash) {
        return tables
            .claim(warm, open.session, now)
            .map(|sandbox| (sandbox, true))
            .ok_or_else(broken);
    }
    let cold = tables.plan(Sandbox {
        id: open.cold_sandbox,
        blueprint_hash: agent.blueprint_hash.clone(),
        platform_hash: open.platform_hash.clone(),
        state: SandboxState::Provisioning,
        state_since: now,
        session: Some(open.session),
        place: open.place,
        address: None,
        reason: None,
        created_at: now,
    });
    Ok((cold, false))
}

/// The session with its first events and turn 1.
fn insert_session(tables: &mut Tables, open: Open, sandbox: &Sandbox, now: Timestamp) -> SessionId {
    let session = Session {
        id: open.session,
        agent: open.agent,
        agent_version: open.agent_version,
        state: SessionState::Creating,
        state_since: now,
        phase: None,
        phase_detail: None,
        attempt: 1,
        sandbox: Some(sandbox.id),
        address: sandbox.address.clone(),
        conversation: None,
        title: open.title,
        preview: None,
        failure: None,
        ended_by: None,
        created_at: now,
        created_by: open.created_by,
        last_seen_at: now,
    };
    let id = session.id;
    let created = NewEvent::session_created(&session.created_by);
    tables.sessions.insert(
        id,
        SessionRow {
            session,
            opening: open.opening,
        },
    );
    tables.append_event(id, created, now);
    if let Some(turn) = open.first_turn {
        tables.queue_turn(id, turn, now);
    }
    id
}

fn advance_session(tables: &mut Tables, advance: Advance, now: Timestamp) -> Advanced {
    let id = advance.session;
    let is_creating = tables
        .session(id)
        .is_some_and(|session| session.state == SessionState::Creating);
    if !is_creating || !tables.holds(&advance.hold, WorkKind::BringUp, id) {
        return Advanced::Stale;
    }
    let mut started = None;
    match advance.step {
        Step::Phase(phase, detail) => reach_phase(tables, id, phase, detail, now),
        Step::Ready {
            conversation,
            address,
            reap_after,
        } => {
            become_ready(tables, id, conversation, address, now);
            tables.work.remove(&(WorkKind::BringUp, id.to_string()));
            let reap = NewWork {
                kind: WorkKind::Reap,
                key: id.to_string(),
                place: None,
                after: reap_after,
            };
            tables.enqueue(reap, now);
            started = start_first(tables, id, &advance.hold, now);
        }
        Step::Failed(reason) => {
            let ending = Ending {
                state: SessionState::Failed,
                by: EndedBy::Error,
                reason: Some(&reason),
                open: TurnState::Failed,
                queued: TurnState::Failed,
            };
            tables.end_session(id, &ending, now);
        }
    }
    match tables.session(id) {
        Some(session) => Advanced::Done(session.clone(), started),
        None => Advanced::Stale,
    }
}

/// Phases only go forward. The same phase with another detail is progress within it.
fn reach_phase(tables: &mut Tables, id: SessionId, phase: Phase, detail: Option<String>, now: Timestamp) {
    let Some(session) = tables.session_mut(id) else {
        return;
    };
    let is_news =
        session.phase < Some(phase) || (session.phase == Some(phase) && session.phase_detail != detail);
    if !is_news {
        return;
    }
    let event = NewEvent::session_phase(phase, detail.as_deref());
    session.phase = Some(phase);
    session.phase_detail = detail;
    tables.append_event(id, event, now);
}

fn become_ready(tables: &mut Tables, id: SessionId, conversation: String, address: String, now: Timestamp) {
    let Some(session) = tables.session_mut(id) else {
        return;
    };
    session.state = SessionState::Ready;
    session.state_since = now;
    session.phase = Some(Phase::Ready);
    session.phase_detail = None;
    session.conversation = Some(conversation);
    session.address = Some(address.clone());
    // A long bring-up is not idleness.
    session.last_seen_at = now;
    let sandbox = session
        .sandbox
        .and_then(|sandbox| tables.sandboxes.get_mut(&sandbox));
    if let Some(SandboxRow { sandbox, .. }) = sandbox {
        sandbox.address = Some(address);
        if sandbox.state == SandboxState::Provisioning {
            sandbox.state = SandboxState::Claimed;
            sandbox.state_since = now;
        }
    }
    tables.append_event(id, NewEvent::session_ready(), now);
}

/// The first queued turn is sending, with its item held by the worker that brought the session up.
fn start_first(
    tables: &mut Tables,
    id: SessionId,
    hold: &crate::store::Hold,
    now: Timestamp,
) -> Option<(Turn, WorkItem)> {
    let first = tables.first_queued(id)?;
    let place = tables.place_of(id);
    let turn = tables.start_turn(first, now)?;
    let work = NewWork {
        kind: WorkKind::Turn,
        key: id.to_string(),
        place,
        after: Duration::ZERO,
    };
    tables
        .enqueue_held(work, hold.worker, now)
        .map(|item| (turn, item))
}

fn end_session(tables: &mut Tables, end: &End, now: Timestamp) -> Ended {
    let Some(session) = tables.session(end.session) else {
        return Ended::Missing;
    };
    if !session.state.is_active() {
        return Ended::Already(session.clone());
    }
    if let Some(idle_for) = end.only_if_idle_for {
        let is_busy = tables.turns_of(session.id).any(|turn| !turn.state.is_terminal());
        if is_busy || session.state != SessionState::Ready {
            return Ended::InUse(idle_for);
        }
        let idle = now.since(session.last_seen_at);
        if idle < idle_for {
            return Ended::InUse(idle_for - idle);
        }
    }
    let ending = Ending {
        state: SessionState::Dead,
        by: end.by,
        reason: end.reason.as_deref(),
        open: TurnState::Aborted,
        queued: TurnState::Aborted,
    };
    tables
        .end_session(end.session, &ending, now)
        .map_or(Ended::Missing, Ended::Done)
}

fn list(tables: &Tables, query: &SessionQuery) -> Vec<Session> {
    tables
        .sessions
        .values()
        .rev()
        .map(|row| &row.session)
        .filter(|session| query.agent.is_none_or(|agent| session.agent == agent))
        .filter(|session| query.states.is_empty() || query.states.contains(&session.state))
        .filter(|session| query.before.is_none_or(|before| session.id < before))
        .take(query.limit as usize)
        .cloned()
        .collect()
}

fn broken() -> Error {
    Error::new(
        ErrorKind::Internal,
        "open session",
        "a row that was just written is not there",
    )
}
