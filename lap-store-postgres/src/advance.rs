//! The steps of a bring-up.

use lap_core::event::NewEvent;
use lap_core::id::SessionId;
use lap_core::sandbox::Place;
use lap_core::session::{EndedBy, Phase, Session, SessionState};
use lap_core::store::{Advance, Advanced, Hold, NewWork, Step, WorkItem, WorkKind};
use lap_core::turn::{Turn, TurnState};

use crate::ending::{Ending, end_session};
use crate::error::Answer;
use crate::link::{Tx, sql};
use crate::row::{Columns as _, clean};
use crate::work::Born;
use crate::{events, sessions, turns, work};

pub(crate) async fn advance(tx: &mut Tx, advance: Advance) -> Answer<Advanced> {
    let (id, hold) = (advance.session, &advance.hold);
    if !sessions::lock(tx, id).await? || !work::holds(tx, hold, WorkKind::BringUp, id).await? {
        return Ok(Advanced::Stale);
    }
    let session = sessions::find(&mut tx.link, id)
        .await?
        .filter(|session| session.state == SessionState::Creating);
    let Some(session) = session else {
        return Ok(Advanced::Stale);
    };
    match advance.step {
        Step::Phase(phase, detail) => reach_phase(tx, session, phase, detail)
            .await
            .map(|session| Advanced::Done(session, None)),
        Step::Ready {
            conversation,
            address,
            reap_after,
        } => {
            work::complete(tx, hold).await?;
            let reap = NewWork {
                kind: WorkKind::Reap,
                key: id.to_string(),
                place: None,
                after: reap_after,
            };
            work::enqueue(tx, reap).await?;
            become_ready(tx, id, conversation, address).await?;
            let started = start_first(tx, &session, hold).await?;
            events::log(tx, id, vec![NewEvent::session_ready()]).await?;
            let session = sessions::find(&mut tx.link, id)
                .await?
                .ok_or(sqlx::Error::RowNotFound)?;
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
    let update = sql("UPDATE lap.sessions SET phase = $2, phase_detail = $3 WHERE id = $1")
        .bind(session.id.as_uuid())
        .bind(phase.as_str())
        .bind(detail.as_deref().map(clean));
    tx.run(update).await?;
    events::log(
        tx,
        session.id,
        vec![NewEvent::session_phase(phase, detail.as_deref())],
    )
    .await?;
    Ok(Session {
        phase: Some(phase),
        phase_detail: detail.map(clean),
        ..session
    })
}

async fn become_ready(tx: &mut Tx, id: SessionId, conversation: String, address: String) -> Answer<()> {
    // A long bring-up is not idleness, so the session was seen just now.
    let update = "UPDATE lap.sessions SET state = 'ready', state_since = $2, last_seen_at = $2, phase = $3, \
                  phase_detail = NULL, conversation = $4 WHERE id = $1";
    let update = sql(update)
        .bind(id.as_uuid())
        .bind(tx.now.unix_millis())
        .bind(Phase::Ready.as_str())
        .bind(clean(conversation));
    tx.run(update).await?;
    let update = "UPDATE lap.sandboxes SET address = $2, \
                  state_since = CASE state WHEN 'provisioning' THEN $3 ELSE state_since END, \
                  state = CASE state WHEN 'provisioning' THEN 'claimed' ELSE state END \
                  WHERE id = (SELECT sandbox FROM lap.sessions WHERE id = $1)";
    tx.run(
        sql(update)
            .bind(id.as_uuid())
            .bind(clean(address))
            .bind(tx.now.unix_millis()),
    )
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
    let select = sql("SELECT place FROM lap.sandboxes WHERE id = $1");
    tx.one(select.bind(session.sandbox.map(|sandbox| sandbox.as_uuid())))
        .await?
        .place("place")
}
