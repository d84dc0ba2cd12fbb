//! Turns.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::{Error, Result};
use lap_core::event::NewEvent;
use lap_core::id::{SessionId, TurnId};
use lap_core::store::{
    Aborting, Accept, Accepted, Finish, Finished, Hold, NewTurn, TurnQuery, Turns, WorkKind,
};
use lap_core::turn::{Outcome, Turn, TurnState, Usage, preview};
use sqlx::postgres::PgRow;

use crate::error::{Answer, Failure};
use crate::link::{Link, Tx, sql};
use crate::row::{Columns as _, clean, json_text, stored};
use crate::store::PostgresStore;
use crate::{accept, events, sessions, work};

#[async_trait]
impl Turns for PostgresStore {
    async fn accept(&self, accept: Accept) -> Result<Accepted> {
        self.core()
            .write("accept turn", accept, |tx, accept| accept::accept(tx, accept).boxed())
            .await
    }

    async fn begin(&self, session: SessionId, hold: &Hold) -> Result<Option<Turn>> {
        let asked = (session, hold.clone());
        self.core()
            .write("begin turn", asked, |tx, asked| begin(tx, asked).boxed())
            .await
    }

    async fn finish(&self, finish: Finish) -> Result<Finished> {
        if !finish.outcome.state.is_terminal() {
            return Err(Error::invalid(
                "finish turn",
                "outcome",
                "a turn ends in a terminal state",
            ));
        }
        self.core()
            .write("finish turn", finish, |tx, finish| finish_turn(tx, finish).boxed())
            .await
    }

    async fn abort(&self, session: SessionId, turn: Option<TurnId>) -> Result<Aborting> {
        self.core()
            .write("abort turn", (session, turn), |tx, asked| abort(tx, asked).boxed())
            .await
    }

    async fn turn(&self, id: TurnId) -> Result<Option<Turn>> {
        self.core()
            .ask("read turn", id, |link, id| find(link, id).boxed())
            .await
    }

    async fn list_turns(&self, query: TurnQuery) -> Result<Vec<Turn>> {
        self.core()
            .ask("list turns", query, |link, query| list(link, query).boxed())
            .await
    }
}

pub(crate) fn turn(row: &PgRow) -> Answer<Turn> {
    Ok(Turn {
        id: row.id("id")?,
        session: row.id("session")?,
        number: row.number("number")?,
        state: row.named("state", TurnState::from_name)?,
        parts: row.json("parts")?,
        model: row.maybe_text("model")?,
        abort_requested: row.flag("abort_requested")?,
        failure: row.maybe_text("failure")?,
        reply: row.maybe_json("reply")?,
        usage: Usage {
            input_tokens: row.number("input_tokens")?,
            output_tokens: row.number("output_tokens")?,
            cost: row.real("cost")?,
        },
        created_by: row.text("created_by")?,
        created_at: row.time("created_at")?,
        started_at: row.maybe_time("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
    })
}

pub(crate) async fn find(link: &mut Link, id: TurnId) -> Answer<Option<Turn>> {
    let row = link
        .first(sql("SELECT * FROM lap.turns WHERE id = $1").bind(id.as_uuid()))
        .await?;
    row.as_ref().map(turn).transpose()
}

async fn list(link: &mut Link, query: TurnQuery) -> Answer<Vec<Turn>> {
    let select = "SELECT * FROM lap.turns WHERE session = $1 AND number > $2 ORDER BY number LIMIT $3";
    let select = sql(select)
        .bind(query.session.as_uuid())
        .bind(stored(query.after))
        .bind(i64::from(query.limit));
    link.all(select).await?.iter().map(turn).collect()
}

/// The open and queued turns of a session, in order.
pub(crate) async fn unfinished(tx: &mut Tx, session: SessionId) -> Answer<Vec<Turn>> {
    let select = "SELECT * FROM lap.turns \
                  WHERE session = $1 AND state IN ('queued', 'sending', 'running') ORDER BY number";
    tx.all(sql(select).bind(session.as_uuid()))
        .await?
        .iter()
        .map(turn)
        .collect()
}

/// Makes a queued turn. Its event is [`NewEvent::turn_accepted`].
pub(crate) async fn queue(tx: &mut Tx, session: SessionId, number: u64, new: NewTurn) -> Answer<Turn> {
    let insert = "INSERT INTO lap.turns (id, session, number, state, parts, model, created_by, created_at) \
                  VALUES ($1, $2, $3, 'queued', $4, $5, $6, $7) RETURNING *";
    let insert = sql(insert)
        .bind(new.id.as_uuid())
        .bind(session.as_uuid())
        .bind(stored(number))
        .bind(json_text(&new.parts)?)
        .bind(new.model.map(clean))
        .bind(clean(new.created_by))
        .bind(tx.now.unix_millis());
    match tx.one(insert).await {
        Ok(row) => turn(&row),
        // The same turn was accepted meanwhile, for another session. The next attempt finds it.
        Err(failure) if failure.is_duplicate_in("turns_pkey") => Err(Failure::Race),
        Err(failure) => Err(failure),
    }
}

/// The session was seen, and shows its first text.
pub(crate) async fn note_accepted(tx: &mut Tx, turn: &Turn) -> Answer<()> {
    let update = "UPDATE lap.sessions SET last_seen_at = $2, preview = coalesce(preview, $3) WHERE id = $1";
    let update = sql(update)
        .bind(turn.session.as_uuid())
        .bind(tx.now.unix_millis())
        .bind(preview(&turn.parts).map(clean));
    tx.run(update).await.map(drop)
}

/// queued -> sending.
pub(crate) async fn start(tx: &mut Tx, id: TurnId) -> Answer<Turn> {
    let update = "UPDATE lap.turns SET state = 'sending', started_at = $2 WHERE id = $1 RETURNING *";
    turn(
        &tx.one(sql(update).bind(id.as_uuid()).bind(tx.now.unix_millis()))
            .await?,
    )
}

/// The first queued turn of a ready session is sending.
pub(crate) async fn start_next(tx: &mut Tx, session: SessionId) -> Answer<Option<Turn>> {
    let update = "UPDATE lap.turns SET state = 'sending', started_at = $2 WHERE id = \
                  (SELECT t.id FROM lap.turns t JOIN lap.sessions s ON s.id = t.session \
                   WHERE t.session = $1 AND t.state = 'queued' AND s.state = 'ready' \
                   ORDER BY t.number LIMIT 1) RETURNING *";
    let row = tx
        .first(sql(update).bind(session.as_uuid()).bind(tx.now.unix_millis()))
        .await?;
    row.as_ref().map(turn).transpose()
}

/// Gives a turn its outcome. The caller appends [`NewEvent::turn_finished`].
pub(crate) async fn conclude(tx: &mut Tx, id: TurnId, outcome: Outcome) -> Answer<Turn> {
    let update = "UPDATE lap.turns SET state = $2, failure = $3, reply = $4, input_tokens = $5, \
                  output_tokens = $6, cost = $7, finished_at = $8 WHERE id = $1 RETURNING *";
    let reply = outcome.reply.as_ref().map(json_text).transpose()?;
    // A number that is not one breaks every sum; such a cost came from outside and says nothing.
    let cost = if outcome.usage.cost.is_finite() {
        outcome.usage.cost
    } else {
        0.0
    };
    let update = sql(update)
        .bind(id.as_uuid())
        .bind(outcome.state.as_str())
        .bind(outcome.failure.map(clean))
        .bind(reply)
        .bind(stored(outcome.usage.input_tokens))
        .bind(stored(outcome.usage.output_tokens))
        .bind(cost)
        .bind(tx.now.unix_millis());
    turn(&tx.one(update).await?)
}

async fn begin(tx: &mut Tx, (session, hold): (SessionId, Hold)) -> Answer<Option<Turn>> {
    if !sessions::lock(tx, session).await? || !work::holds(tx, &hold, WorkKind::Turn, session).await? {
        return Ok(None);
    }
    let select = "SELECT * FROM lap.turns WHERE session = $1 AND state IN ('sending', 'running')";
    if let Some(row) = tx.first(sql(select).bind(session.as_uuid())).await? {
        return turn(&row).map(Some);
    }
    start_next(tx, session).await
}

async fn finish_turn(tx: &mut Tx, finish: Finish) -> Answer<Finished> {
    let Some(session) = find(&mut tx.link, finish.turn).await?.map(|turn| turn.session) else {
        return Ok(Finished::Stale);
    };
    sessions::lock(tx, session).await?;
    if !work::holds(tx, &finish.hold, WorkKind::Turn, session).await? {
        return Ok(Finished::Stale);
    }
    // Again, under the lock.
    let turn = find(&mut tx.link, finish.turn).await?;
    if !turn.is_some_and(|turn| turn.state.is_open()) {
        return Ok(Finished::Stale);
    }
    let turn = conclude(tx, finish.turn, finish.outcome).await?;
    let seen = sql("UPDATE lap.sessions SET last_seen_at = $2 WHERE id = $1");
    tx.run(seen.bind(session.as_uuid()).bind(tx.now.unix_millis()))
        .await?;
    let next = start_next(tx, session).await?;
    match &next {
        Some(_) => work::go_on(tx, &finish.hold).await?,
        None => work::complete(tx, &finish.hold).await?,
    }
    events::log(tx, session, vec![NewEvent::turn_finished(&turn)]).await?;
    Ok(Finished::Done(turn, next))
}

async fn abort(tx: &mut Tx, (session, only): (SessionId, Option<TurnId>)) -> Answer<Aborting> {
    sessions::lock(tx, session).await?;
    let mut aborting = Aborting::default();
    let mut log = Vec::new();
    for turn in unfinished(tx, session).await? {
        if only.is_some_and(|only| only != turn.id) {
            continue;
        }
        if turn.state.is_open() {
            // Asking twice is asking once.
            if !turn.abort_requested {
                log.push(NewEvent::turn_abort_requested(turn.id));
                let update = "UPDATE lap.turns SET abort_requested = true WHERE id = $1";
                tx.run(sql(update).bind(turn.id.as_uuid())).await?;
            }
            aborting.open = Some(Turn {
                abort_requested: true,
                ..turn
            });
        } else {
            let turn = conclude(tx, turn.id, Outcome::aborted("someone stopped it")).await?;
            log.push(NewEvent::turn_finished(&turn));
            aborting.aborted.push(turn);
        }
    }
    events::log(tx, session, log).await?;
    Ok(aborting)
}
