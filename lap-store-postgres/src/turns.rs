//! Turns.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::event::NewEvent;
use lap_core::id::{SessionId, TurnId};
use lap_core::store::{
    Aborting, Accept, Accepted, Append, Finish, Finished, Hold, TurnQuery, Turns, WorkKind,
};
use lap_core::turn::{Outcome, Turn, TurnState, Usage};
use sqlx::postgres::PgRow;

use crate::error::Answer;
use crate::link::{Link, Tx, sql};
use crate::row::{Columns as _, clean, json_text, stored};
use crate::store::PostgresStore;
use crate::{accept, events, finish, sessions, work};

#[async_trait]
impl Turns for PostgresStore {
    async fn accept(&self, accept: Accept) -> Result<Accepted> {
        self.core()
            .ask("accept turn", accept, |link, accept| {
                accept::accept(link, accept).boxed()
            })
            .await
    }

    async fn begin(&self, session: SessionId, hold: &Hold) -> Result<Option<Turn>> {
        let asked = (session, hold.clone());
        self.core()
            .write("begin turn", asked, |tx, asked| begin(tx, asked).boxed())
            .await
    }

    async fn finish(&self, finish: Finish) -> Result<Finished> {
        terminal(&finish)?;
        self.core()
            .ask("finish turn", finish, |link, finish| {
                finish::finish(link, finish).boxed()
            })
            .await
    }

    async fn conclude(&self, last: Append, finish: Finish) -> Result<Finished> {
        terminal(&finish)?;
        let concluded = self
            .core()
            .write("conclude turn", (last, finish), |tx, end| {
                finish::conclude(tx, end).boxed()
            })
            .await;
        match concluded {
            Err(error) if error.kind() == ErrorKind::Stale => Ok(Finished::Stale),
            concluded => concluded,
        }
    }

    async fn abort(&self, session: SessionId, turn: Option<TurnId>) -> Result<Aborting> {
        self.core()
            .write("abort turn", (session, turn), |tx, asked| {
                abort(tx, asked).boxed()
            })
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
