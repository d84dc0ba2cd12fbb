//! How a session ends, and everything that ends with it.

use lap_core::event::NewEvent;
use lap_core::id::SessionId;
use lap_core::sandbox::SandboxState;
use lap_core::session::{EndedBy, Session, SessionState};
use lap_core::turn::{Outcome, TurnState};

use crate::error::Answer;
use crate::link::{Tx, sql};
use crate::row::clean;
use crate::{events, sandboxes, sessions, turns, work};

/// How a session ends, and what becomes of its turns.
pub(crate) struct Ending {
    /// Failed or dead.
    pub(crate) state: SessionState,
    pub(crate) by: EndedBy,
    pub(crate) reason: Option<String>,
    /// What becomes of the open turn.
    pub(crate) open: TurnState,
    /// What becomes of the queued turns.
    pub(crate) queued: TurnState,
}

/// Ends a session that exists and is locked: its turns first, then itself, then its work and its sandbox. Its last event is
/// its own.
pub(crate) async fn end_session(tx: &mut Tx, id: SessionId, ending: &Ending) -> Answer<Session> {
    let reason = ending.reason.as_deref().unwrap_or("the session has ended");
    // The work first: that is the order in which all writes lock.
    work::remove_of_session(tx, id).await?;
    let mut log = Vec::new();
    for turn in turns::unfinished(tx, id).await? {
        let state = if turn.state.is_open() {
            ending.open
        } else {
            ending.queued
        };
        let turn = turns::conclude(
            tx,
            turn.id,
            Outcome {
                state,
                ..Outcome::failed(reason)
            },
        )
        .await?;
        log.push(NewEvent::turn_finished(&turn));
    }
    log.push(match ending.state {
        SessionState::Failed => NewEvent::session_failed(reason),
        _ => NewEvent::session_ended(ending.by, ending.reason.as_deref()),
    });
    let update =
        "UPDATE lap.sessions SET state = $2, state_since = $3, ended_by = $4, failure = $5 WHERE id = $1";
    let update = sql(update)
        .bind(id.as_uuid())
        .bind(ending.state.as_str())
        .bind(tx.now.unix_millis())
        .bind(ending.by.as_str())
        .bind(ending.reason.as_deref().map(clean));
    tx.run(update).await?;
    events::log(tx, id, log).await?;
    let session = sessions::find(&mut tx.link, id)
        .await?
        .ok_or(sqlx::Error::RowNotFound)?;
    if let Some(sandbox) = session.sandbox {
        sandboxes::let_go(tx, sandbox, SandboxState::Stopping, reason).await?;
    }
    // An ended session answers nowhere.
    Ok(Session {
        address: None,
        ..session
    })
}
