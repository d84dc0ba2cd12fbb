//! The steps of a bring-up.

use lap_core::event::NewEvent;
use lap_core::id::SessionId;
use lap_core::sandbox::Place;
use lap_core::session::{EndedBy, Phase, Session, SessionState};
use lap_core::store::{Advance, Advanced, Hold, NewWork, Step, WorkItem, WorkKind};
use lap_core::turn::{Turn, TurnState};

use crate::ending::{Ending, end_session};
use crate::error::Answer;
use crate::link::sql;
use crate::row::Columns as _;
use crate::work::Born;
use crate::writer::Tx;
use crate::{events, sessions, turns, work};

pub(crate) async fn advance(tx: &mut Tx, advance: Advance) -> Answer<Advanced> {
    let (id, hold) = (advance.session, &advance.hold);
    let Some(session) = sessions::find(tx, id).await? else {
        return Ok(Advanced::Stale);
    };
    if session.state != SessionState::Creating || !work::holds(tx, hold, WorkKind::BringUp, id).await? {
        return Ok(Advanced::Stale);
    }
    match advance.step {
        Step::Phase(phase, detail) => reach_phase(tx, session, phase, detail)
            .await
            .map(|session| Advanced::Done(session, None)),
        Step::Ready {
            conversation,
            address,
            reap_after,
        } => {
            become_ready(tx, id, conversation, address).await?;
            work::complete(tx, hold).await?;
            let reap = NewWork {
                kind: WorkKind::Reap,
                key: id.to_string(),
                place: None,
                after: reap_after,
            };
            work::enqueue(tx, reap).await?;
            let started = start_first(tx, &session, hold).await?;
            let session = sessions::find(tx, id).await?.ok_or(sqlx::Error::RowNotFound)?;
            Ok(Advanced::Done(session, started))
        }
        Step::Failed(reason) => {
            let ending = Ending {
                state: SessionState::Failed,
                by: EndedBy::Error,
                reason: Some(reason),
                open: TurnState::Failed,
                queued: TurnState::Failed,
            };
            end_session(tx, id, &ending)
                .await
                .map(|session| Advanced::Done(session, None))
        }
    }
}

/// Phases only go forward. The same phase with another detail is progress within it.
async fn reach_phase(tx: &mut Tx, session: Session, phase: Phase, detail: Option<String>) -> Answer<Session> {
    let is_further = session.phase < Some(phase);
    let is_news = is_further || (session.phase == Some(phase) && session.phase_detail != detail);
    if !is_news {
        return Ok(session);
    }
    let update = sql("UPDATE lap_sessions SET phase = ?2, phase_detail = ?3 WHERE id = ?1")
        .bind(session.id.to_string())
        .bind(phase.as_str())
        .bind(detail.clone());
    tx.run(update).await?;
    events::log(
        tx,
        session.id,
        vec![NewEvent::session_phase(phase, detail.as_deref())],
    )
    .await?;
    Ok(Session {
        phase: Some(phase),
        phase_detail: detail,
        ..session
    })
}

async fn become_ready(tx: &mut Tx, id: SessionId, conversation: String, address: String) -> Answer<()> {
    // A long bring-up is not idleness, so the session was seen just now.
    let update = "UPDATE lap_sessions SET state = 'ready', state_since = ?2, last_seen_at = ?2, phase = ?3, \
                  phase_detail = NULL, conversation = ?4 WHERE id = ?1";
    let update = sql(update)
        .bind(id.to_string())
        .bind(tx.now.unix_millis())
        .bind(Phase::Ready.as_str())
        .bind(conversation);
    tx.run(update).await?;
    let update = "UPDATE lap_sandboxes SET address = ?2, \
                  state_since = iif(state = 'provisioning', ?3, state_since), \
                  state = iif(state = 'provisioning', 'claimed', state) \
                  WHERE id = (SELECT sandbox FROM lap_sessions WHERE id = ?1)";
    tx.run(
        sql(update)
            .bind(id.to_string())
            .bind(address)
            .bind(tx.now.unix_millis()),
    )
    .await?;
    events::log(tx, id, vec![NewEvent::session_ready()])
        .await
        .map(drop)
}

/// The first queued turn is sending, with its item held by the worker that brought the session up.
async fn start_first(tx: &mut Tx, session: &Session, hold: &Hold) -> Answer<Option<(Turn, WorkItem)>> {
    let Some(turn) = turns::start_next(tx, session.id).await? else {
        return Ok(None);
    };
    let place = place_of(tx, session).await?;
    let born = Born {
        kind: WorkKind::Turn,
        session: session.id,
        place,
        holder: Some(hold.worker),
    };
    Ok(work::bear(tx, born).await?.map(|item| (turn, item)))
}

async fn place_of(tx: &mut Tx, session: &Session) -> Answer<Place> {
    let select = sql("SELECT place FROM lap_sandboxes WHERE id = ?1");
    tx.one(select.bind(session.sandbox.map(|sandbox| sandbox.to_string())))
        .await?
        .place("place")
}
