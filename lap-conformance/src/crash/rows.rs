//! What the rows of one moment must say about each other.

use std::collections::BTreeMap;

use lap_core::id::{SandboxId, SessionId};
use lap_core::sandbox::{Sandbox, SandboxState};
use lap_core::session::{EndedBy, Session, SessionState};
use lap_core::store::WorkKind;
use lap_core::turn::{Turn, TurnState};

use super::invariants::{Broken, Snapshot};

pub(super) fn check(snapshot: &Snapshot) -> Result<(), Broken> {
    let mut owners: BTreeMap<SandboxId, SessionId> = BTreeMap::new();
    for session in snapshot.sessions.values() {
        if let Some(sandbox) = session.sandbox
            && let Some(other) = owners.insert(sandbox, session.id)
        {
            return Err(format!("{sandbox} belongs to {other} and to {}", session.id));
        }
        check_session(snapshot, session)?;
        check_turns(snapshot, session)?;
    }
    snapshot
        .sandboxes
        .values()
        .try_for_each(|sandbox| check_sandbox(snapshot, sandbox))
}

fn has_work(snapshot: &Snapshot, kind: WorkKind, key: &str) -> bool {
    snapshot
        .work
        .iter()
        .any(|item| item.kind == kind && item.key == key)
}

fn needs_work(snapshot: &Snapshot, kind: WorkKind, key: &str) -> Result<(), Broken> {
    if has_work(snapshot, kind, key) {
        Ok(())
    } else {
        Err(format!("the work {kind} of {key} is lost"))
    }
}

/// A live session has a live sandbox of its own, and somebody who goes on with it.
fn check_session(snapshot: &Snapshot, session: &Session) -> Result<(), Broken> {
    let key = session.id.to_string();
    match session.state {
        SessionState::Creating => needs_work(snapshot, WorkKind::BringUp, &key)?,
        SessionState::Ready => needs_work(snapshot, WorkKind::Reap, &key)?,
        SessionState::Failed | SessionState::Dead => {
            for kind in [WorkKind::BringUp, WorkKind::Turn, WorkKind::Reap] {
                if has_work(snapshot, kind, &key) {
                    return Err(format!("the ended session {key} has work {kind}"));
                }
            }
            return check_ended(snapshot, session);
        }
    }
    let sandbox = session
        .sandbox
        .and_then(|sandbox| snapshot.sandboxes.get(&sandbox));
    match sandbox {
        Some(sandbox) if sandbox.state.is_live() && sandbox.session == Some(session.id) => Ok(()),
        _ => Err(format!(
            "the live session {session:?} has this sandbox: {sandbox:?}"
        )),
    }
}

/// Nobody's turn ended because nobody used the session.
fn check_ended(snapshot: &Snapshot, session: &Session) -> Result<(), Broken> {
    if session.ended_by != Some(EndedBy::Idle) {
        return Ok(());
    }
    let mut turns = snapshot.turns.get(&session.id).into_iter().flatten();
    match turns.find(|turn| turn.failure.is_some() && turn.failure == session.failure) {
        Some(turn) => Err(format!("{session:?} was called idle while it had {turn:?}")),
        None => Ok(()),
    }
}

/// A sandbox with an owner belongs to a live session; an ended one is being removed.
fn check_sandbox(snapshot: &Snapshot, sandbox: &Sandbox) -> Result<(), Broken> {
    if !sandbox.state.is_live() {
        return needs_work(snapshot, WorkKind::Cleanup, &sandbox.id.to_string());
    }
    let Some(owner) = sandbox.session else {
        return match sandbox.state {
            SandboxState::Claimed => Err(format!("nobody has the claimed {sandbox:?}")),
            _ => Ok(()),
        };
    };
    let owner = snapshot.sessions.get(&owner);
    let is_owned = |owner: &&Session| owner.state.is_active() && owner.sandbox == Some(sandbox.id);
    if owner.filter(is_owned).is_some() {
        return Ok(());
    }
    Err(format!("the live {sandbox:?} belongs to {owner:?}"))
}

/// Turns run one at a time and in order, and somebody runs them.
fn check_turns(snapshot: &Snapshot, session: &Session) -> Result<(), Broken> {
    let turns = snapshot
        .turns
        .get(&session.id)
        .map(Vec::as_slice)
        .unwrap_or_default();
    for (index, turn) in turns.iter().enumerate() {
        if turn.number != index as u64 + 1 {
            return Err(format!(
                "turn {} of {} is number {}",
                index + 1,
                session.id,
                turn.number
            ));
        }
        if !session.state.is_active() && !turn.state.is_terminal() {
            return Err(format!("the session has ended and its turn has not: {turn:?}"));
        }
    }
    let open: Vec<&Turn> = turns.iter().filter(|turn| turn.state.is_open()).collect();
    if open.len() > 1 {
        return Err(format!("several turns are open: {open:?}"));
    }
    let is_queued = |turn: &&Turn| turn.state == TurnState::Queued;
    if session.state == SessionState::Ready && (!open.is_empty() || turns.iter().any(|turn| is_queued(&turn)))
    {
        needs_work(snapshot, WorkKind::Turn, &session.id.to_string())?;
    }
    let started = turns.iter().filter(|turn| turn.started_at.is_some());
    if let Some(last) = started.max_by_key(|turn| turn.number)
        && let Some(late) = turns[..last.number as usize].iter().find(is_queued)
    {
        return Err(format!("{late:?} was overtaken by {last:?}"));
    }
    Ok(())
}
