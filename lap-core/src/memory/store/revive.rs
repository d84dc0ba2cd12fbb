use std::time::Duration;

use super::tables::Tables;
use super::transitions::Ending;
use crate::event::NewEvent;
use crate::sandbox::{Place, Sandbox, SandboxState};
use crate::session::{EndedBy, SessionState};
use crate::store::{NewWork, OpenedSession, Revive, Revived, WorkKind};
use crate::time::Timestamp;
use crate::turn::TurnState;

/// ready | failed | dead -> creating, because someone asked for it.
pub(super) fn revive(tables: &mut Tables, revive: &Revive, now: Timestamp) -> Revived {
    let Some(session) = tables.session(revive.session).cloned() else {
        return Revived::Missing;
    };
    if session.state == SessionState::Creating {
        return Revived::Creating(session);
    }
    let last = session
        .sandbox
        .and_then(|id| tables.sandboxes.get(&id))
        .map(|row| row.sandbox.clone());
    let (Some(_), Some(last)) = (tables.agent(session.agent), last) else {
        return Revived::AgentGone;
    };
    if session.state == SessionState::Ready {
        let ending = Ending {
            state: SessionState::Dead,
            by: EndedBy::User,
            reason: Some("the session was restarted"),
            open: TurnState::Aborted,
            queued: TurnState::Aborted,
        };
        tables.end_session(session.id, &ending, now);
    }
    let warm = tables.oldest_warm(&last.blueprint_hash, &revive.platform_hash);
    let claimed = warm.and_then(|warm| tables.claim(warm, session.id, now));
    let is_warm = claimed.is_some();
    let sandbox = claimed.unwrap_or_else(|| {
        tables.plan(Sandbox {
            id: revive.cold_sandbox,
            blueprint_hash: last.blueprint_hash,
            platform_hash: revive.platform_hash.clone(),
            state: SandboxState::Provisioning,
            state_since: now,
            session: Some(session.id),
            place: revive.place,
            address: None,
            reason: None,
            created_at: now,
        })
    });
    begin_again(tables, revive, sandbox, is_warm, now)
}

fn begin_again(
    tables: &mut Tables,
    revive: &Revive,
    sandbox: Sandbox,
    is_warm: bool,
    now: Timestamp,
) -> Revived {
    let Some(session) = tables.session_mut(revive.session) else {
        return Revived::Missing;
    };
    session.state = SessionState::Creating;
    session.state_since = now;
    session.phase = None;
    session.phase_detail = None;
    session.attempt += 1;
    session.sandbox = Some(sandbox.id);
    session.address.clone_from(&sandbox.address);
    session.conversation = None;
    session.failure = None;
    session.ended_by = None;
    session.last_seen_at = now;
    let session = session.clone();
    tables.append_event(
        session.id,
        NewEvent::session_restarted(session.attempt, &revive.by),
        now,
    );
    let bring_up = NewWork {
        kind: WorkKind::BringUp,
        key: session.id.to_string(),
        place: Some(sandbox.place),
        after: Duration::ZERO,
    };
    let work = if sandbox.place == Place::Cluster || sandbox.place == revive.place {
        tables.enqueue_held(bring_up, revive.worker, now)
    } else {
        tables.enqueue(bring_up, now);
        None
    };
    let opened = OpenedSession {
        session,
        sandbox,
        work,
    };
    if is_warm {
        Revived::Warm(opened)
    } else {
        Revived::Cold(opened)
    }
}
