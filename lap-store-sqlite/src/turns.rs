//! Turns.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::{Error, Result};
use lap_core::event::NewEvent;
use lap_core::id::{SessionId, TurnId};
use lap_core::store::{
    Aborting, Accept, Accepted, Append, Appended, Finish, Finished, Hold, NewTurn, TurnQuery, Turns, WorkKind,
};
use lap_core::turn::{Outcome, Turn, TurnState, Usage, preview};
use sqlx::sqlite::SqliteRow;

use crate::error::Answer;
use crate::link::{Link, sql};
use crate::row::{Columns as _, json_text, stored};
use crate::store::SqliteStore;
use crate::writer::Tx;
use crate::{accept, events, work};

#[async_trait]
impl Turns for SqliteStore {
    async fn accept(&self, accept: Accept) -> Result<Accepted> {
        self.write("accept turn", move |tx| accept::accept(tx, accept).boxed())
            .await
    }

    async fn begin(&self, session: SessionId, hold: &Hold) -> Result<Option<Turn>> {
        let hold = hold.clone();
        self.write("begin turn", move |tx| begin(tx, session, hold).boxed())
            .await
    }

    async fn conclude(&self, last: Append, finish: Finish) -> Result<Finished> {
        terminal(&finish)?;
        self.write("conclude turn", move |tx| conclude_turn(tx, last, finish).boxed())
            .await
    }

    async fn finish(&self, finish: Finish) -> Result<Finished> {
        terminal(&finish)?;
        self.write("finish turn", move |tx| finish_turn(tx, finish).boxed())
            .await
    }

    async fn abort(&self, session: SessionId, turn: Option<TurnId>) -> Result<Aborting> {
        self.write("abort turn", move |tx| abort(tx, session, turn).boxed())
            .await
    }

    async fn turn(&self, id: TurnId) -> Result<Option<Turn>> {
        self.read("read turn", move |link| find(link, id).boxed()).await
    }

    async fn list_turns(&self, query: TurnQuery) -> Result<Vec<Turn>> {
        self.read("list turns", move |link| list(link, query).boxed())
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

/// Whether the end could be stored is asked before anything is written, because a refusal changes nothing.
async fn conclude_turn(tx: &mut Tx, last: Append, finish: Finish) -> Answer<Finished> {
    let is_open = find(tx, finish.turn)
        .await?
        .is_some_and(|turn| turn.state.is_open());
    if !is_open || !work::is_held(tx, &finish.hold).await? {
        return Ok(Finished::Stale);
    }
    match events::append(tx, last).await? {
        Appended::Done(_) => finish_turn(tx, finish).await,
        _ => Ok(Finished::Stale),
    }
}

pub(crate) fn turn(row: &SqliteRow) -> Answer<Turn> {
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
        .first(sql("SELECT * FROM lap_turns WHERE id = ?1").bind(id.to_string()))
        .await?;
    row.as_ref().map(turn).transpose()
}

async fn list(link: &mut Link, query: TurnQuery) -> Answer<Vec<Turn>> {
    let select = "SELECT * FROM lap_turns WHERE session = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
    let select = sql(select)
        .bind(query.session.to_string())
        .bind(stored(query.after))
        .bind(i64::from(query.limit));
    link.all(select).await?.iter().map(turn).collect()
}

/// The open and queued turns of a session, in order.
pub(crate) async fn unfinished(link: &mut Link, session: SessionId) -> Answer<Vec<Turn>> {
    let select = "SELECT * FROM lap_turns \
                  WHERE session = ?1 AND state IN ('queued', 'sending', 'running') ORDER BY number";
    link.all(sql(select).bind(session.to_string()))
        .await?
        .iter()
        .map(turn)
        .collect()
}

/// Makes a queued turn. Its event is [`NewEvent::turn_accepted`].
pub(crate) async fn queue(tx: &mut Tx, session: SessionId, number: u64, new: NewTurn) -> Answer<Turn> {
    let insert = "INSERT INTO lap_turns (id, session, number, state, parts, model, created_by, created_at) \
                  VALUES (?1, ?2, ?3, 'queued', ?4, ?5, ?6, ?7)";
    let insert = sql(insert)
        .bind(new.id.to_string())
        .bind(session.to_string())
        .bind(stored(number))
        .bind(json_text(&new.parts)?)
        .bind(new.model.clone())
        .bind(new.created_by.clone())
        .bind(tx.now.unix_millis());
    tx.run(insert).await?;
    Ok(Turn {
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
        created_at: tx.now,
        started_at: None,
        finished_at: None,
    })
}

/// The session was seen, and shows its first text.
pub(crate) async fn note_accepted(tx: &mut Tx, turn: &Turn) -> Answer<()> {
    let update = "UPDATE lap_sessions SET last_seen_at = ?2, preview = ifnull(preview, ?3) WHERE id = ?1";
    let update = sql(update)
        .bind(turn.session.to_string())
        .bind(tx.now.unix_millis())
        .bind(preview(&turn.parts));
    tx.run(update).await.map(drop)
}

/// queued -> sending.
pub(crate) async fn start(tx: &mut Tx, id: TurnId) -> Answer<Turn> {
    let update = "UPDATE lap_turns SET state = 'sending', started_at = ?2 WHERE id = ?1 RETURNING *";
    turn(
        &tx.one(sql(update).bind(id.to_string()).bind(tx.now.unix_millis()))
            .await?,
    )
}

/// The first queued turn of a ready session is sending.
pub(crate) async fn start_next(tx: &mut Tx, session: SessionId) -> Answer<Option<Turn>> {
    let update = "UPDATE lap_turns SET state = 'sending', started_at = ?2 WHERE id = \
                  (SELECT t.id FROM lap_turns t JOIN lap_sessions s ON s.id = t.session \
                   WHERE t.session = ?1 AND t.state = 'queued' AND s.state = 'ready' \
                   ORDER BY t.number LIMIT 1) RETURNING *";
    let row = tx
        .first(sql(update).bind(session.to_string()).bind(tx.now.unix_millis()))
        .await?;
    row.as_ref().map(turn).transpose()
}

/// Gives a turn its outcome. The caller appends [`NewEvent::turn_finished`].
pub(crate) async fn conclude(tx: &mut Tx, id: TurnId, outcome: Outcome) -> Answer<Turn> {
    let update = "UPDATE lap_turns SET state = ?2, failure = ?3, reply = ?4, input_tokens = ?5, \
                  output_tokens = ?6, cost = ?7, finished_at = ?8 WHERE id = ?1 RETURNING *";
    let reply = outcome.reply.as_ref().map(json_text).transpose()?;
    // SQLite keeps no number that is not one; such a cost came from outside and says nothing.
    let cost = if outcome.usage.cost.is_finite() {
        outcome.usage.cost
    } else {
        0.0
    };
    let update = sql(update)
        .bind(id.to_string())
        .bind(outcome.state.as_str())
        .bind(outcome.failure)
        .bind(reply)
        .bind(stored(outcome.usage.input_tokens))
        .bind(stored(outcome.usage.output_tokens))
        .bind(cost)
        .bind(tx.now.unix_millis());
    turn(&tx.one(update).await?)
}

async fn begin(tx: &mut Tx, session: SessionId, hold: Hold) -> Answer<Option<Turn>> {
    if !work::holds(tx, &hold, WorkKind::Turn, session).await? {
        return Ok(None);
    }
    let select = "SELECT * FROM lap_turns WHERE session = ?1 AND state IN ('sending', 'running')";
    if let Some(row) = tx.first(sql(select).bind(session.to_string())).await? {
        return turn(&row).map(Some);
    }
    start_next(tx, session).await
}

async fn finish_turn(tx: &mut Tx, finish: Finish) -> Answer<Finished> {
    let Some(open) = find(tx, finish.turn).await?.filter(|turn| turn.state.is_open()) else {
        return Ok(Finished::Stale);
    };
    let session = open.session;
    if !work::holds(tx, &finish.hold, WorkKind::Turn, session).await? {
        return Ok(Finished::Stale);
    }
    let turn = conclude(tx, finish.turn, finish.outcome).await?;
    events::log(tx, session, vec![NewEvent::turn_finished(&turn)]).await?;
    let seen = sql("UPDATE lap_sessions SET last_seen_at = ?2 WHERE id = ?1");
    tx.run(seen.bind(session.to_string()).bind(tx.now.unix_millis()))
        .await?;
    let next = start_next(tx, session).await?;
    match &next {
        Some(_) => work::go_on(tx, &finish.hold).await?,
        None => work::complete(tx, &finish.hold).await?,
    }
    Ok(Finished::Done(turn, next))
}

async fn abort(tx: &mut Tx, session: SessionId, only: Option<TurnId>) -> Answer<Aborting> {
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
                let update = "UPDATE lap_turns SET abort_requested = 1 WHERE id = ?1";
                tx.run(sql(update).bind(turn.id.to_string())).await?;
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
