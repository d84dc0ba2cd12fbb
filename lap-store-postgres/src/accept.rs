//! Accepting a turn.

use lap_core::event::NewEvent;
use lap_core::sandbox::Place;
use lap_core::session::SessionState;
use lap_core::store::{Accept, Accepted, WorkKind};
use lap_core::turn::Turn;

use crate::error::Answer;
use crate::idempotency::{Seen, remember, seen};
use crate::link::{Tx, sql};
use crate::row::Columns as _;
use crate::work::Born;
use crate::{events, sessions, turns, work};

/// What decides about a turn.
struct Situation {
    state: SessionState,
    /// Where the session's sandbox lives.
    place: Option<Place>,
    last_number: u64,
    is_open: bool,
    queued: u64,
}

pub(crate) async fn accept(tx: &mut Tx, accept: Accept) -> Answer<Accepted> {
    // The lock first, so that a concurrent repetition is seen. A request is remembered without a session, too.
    sessions::lock(tx, accept.session).await?;
    let mut known = accept.turn.id;
    if let Some(request) = &accept.idempotency {
        match seen(tx, request).await? {
            Seen::KeyReused => return Ok(Accepted::KeyReused),
            Seen::Before(id) => known = id,
            Seen::New => {}
        }
    }
    // The same id is the same request, also when the client gave no key.
    if let Some(turn) = turns::find(&mut tx.link, known).await? {
        return Ok(Accepted::Replayed(turn));
    }
    let Some(situation) = situation(tx, &accept).await? else {
        return Ok(Accepted::NoSession);
    };
    if !situation.state.is_active() {
        return Ok(Accepted::Ended(situation.state));
    }
    let is_busy = situation.is_open || situation.queued > 0;
    let starts = situation.state == SessionState::Ready && !is_busy;
    if !starts && situation.queued >= u64::from(accept.queue_limit) {
        return Ok(Accepted::Full);
    }
    if let Some(request) = &accept.idempotency {
        remember(tx, request, accept.turn.id.as_uuid()).await?;
    }
    let turn = queue(tx, &accept, situation.last_number + 1).await?;
    let accepted = if starts {
        start(tx, &accept, &turn, situation.place).await?
    } else {
        Accepted::Queued(turn.clone())
    };
    // After the work, which everybody locks before the log.
    tell(tx, &turn).await?;
    Ok(accepted)
}

async fn situation(tx: &mut Tx, accept: &Accept) -> Answer<Option<Situation>> {
    let select = "SELECT s.state, b.place, \
                  (SELECT max(number) FROM lap.turns WHERE session = s.id) AS last_number, \
                  EXISTS (SELECT 1 FROM lap.turns WHERE session = s.id AND state IN ('sending', 'running')) \
                  AS is_open, \
                  (SELECT count(*) FROM lap.turns WHERE session = s.id AND state = 'queued') AS queued \
                  FROM lap.sessions s LEFT JOIN lap.sandboxes b ON b.id = s.sandbox WHERE s.id = $1";
    let Some(row) = tx.first(sql(select).bind(accept.session.as_uuid())).await? else {
        return Ok(None);
    };
    Ok(Some(Situation {
        state: row.named("state", SessionState::from_name)?,
        place: row.maybe_place("place")?,
        last_number: row
            .maybe_integer("last_number")?
            .map_or(Ok(0), |_| row.number("last_number"))?,
        is_open: row.flag("is_open")?,
        queued: row.number("queued")?,
    }))
}

async fn queue(tx: &mut Tx, accept: &Accept, number: u64) -> Answer<Turn> {
    let turn = turns::queue(tx, accept.session, number, accept.turn.clone()).await?;
    turns::note_accepted(tx, &turn).await?;
    Ok(turn)
}

async fn tell(tx: &mut Tx, turn: &Turn) -> Answer<()> {
    let event = NewEvent::turn_accepted(turn.id, turn.number, &turn.parts, &turn.created_by);
    events::log(tx, turn.session, vec![event]).await.map(drop)
}

/// The turn is sending, and its item is held by the accepting process if that reaches the sandbox.
async fn start(tx: &mut Tx, accept: &Accept, turn: &Turn, place: Option<Place>) -> Answer<Accepted> {
    let turn = turns::start(tx, turn.id).await?;
    let place = place.unwrap_or(accept.place);
    let is_reached = place == Place::Cluster || place == accept.place;
    let born = Born {
        kind: WorkKind::Turn,
        session: accept.session,
        place,
        holder: is_reached.then_some(accept.worker),
    };
    Ok(Accepted::Started(turn, work::bear(tx, born).await?))
}
