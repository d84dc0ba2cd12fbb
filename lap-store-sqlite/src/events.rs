//! The log.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::Result;
use lap_core::event::{Event, NewEvent};
use lap_core::id::{SandboxId, SessionId, TurnId};
use lap_core::store::{Append, Appended, EventPage, Events, Ingest};
use sqlx::sqlite::SqliteRow;

use crate::error::Answer;
use crate::link::{Link, sql};
use crate::row::{Columns as _, json_text, stored};
use crate::store::SqliteStore;
use crate::work;
use crate::writer::Tx;

#[async_trait]
impl Events for SqliteStore {
    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.write("append events", move |tx| append_all(tx, appends).boxed())
            .await
    }

    async fn events(&self, session: SessionId, after: u64, limit: u32) -> Result<Option<EventPage>> {
        self.read("read events", move |link| {
            page(link, session, after, limit).boxed()
        })
        .await
    }

    async fn cursor(&self, session: SessionId, source: SandboxId) -> Result<u64> {
        self.read("read cursor", move |link| cursor(link, session, source).boxed())
            .await
    }
}

/// Appends to a session that exists.
pub(crate) async fn log(tx: &mut Tx, session: SessionId, new: Vec<NewEvent>) -> Answer<Vec<Event>> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let update = "UPDATE lap_event_heads SET last = last + ?2 WHERE session = ?1 RETURNING last";
    let count = new.len() as u64;
    let last = tx
        .one(sql(update).bind(session.to_string()).bind(stored(count)))
        .await?
        .number("last")?;
    insert(tx, session, last.saturating_sub(count), new).await
}

/// The log of a new session.
pub(crate) async fn begin_log(tx: &mut Tx, session: SessionId, new: Vec<NewEvent>) -> Answer<()> {
    let head = "INSERT INTO lap_event_heads (session, first_kept, last) VALUES (?1, 1, ?2)";
    tx.run(sql(head).bind(session.to_string()).bind(stored(new.len() as u64)))
        .await?;
    insert(tx, session, 0, new).await.map(drop)
}

async fn insert(tx: &mut Tx, session: SessionId, after: u64, new: Vec<NewEvent>) -> Answer<Vec<Event>> {
    let text = "INSERT INTO lap_events (session, id, kind, turn, body, origin, at) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut events = Vec::with_capacity(new.len());
    for (id, new) in (after + 1..).zip(new) {
        let NewEvent {
            kind,
            turn,
            body,
            origin,
        } = new;
        let insert = sql(text)
            .bind(session.to_string())
            .bind(stored(id))
            .bind(kind.clone())
            .bind(turn.map(|turn| turn.to_string()))
            .bind(json_text(&body)?)
            .bind(origin.map(stored))
            .bind(tx.now.unix_millis());
        tx.run(insert).await?;
        events.push(Event {
            session,
            id,
            kind,
            turn,
            body,
            origin,
            at: tx.now,
        });
    }
    Ok(events)
}

async fn append_all(tx: &mut Tx, appends: Vec<Append>) -> Answer<Vec<Appended>> {
    let mut answers = Vec::with_capacity(appends.len());
    for one in appends {
        answers.push(append(tx, one).await?);
    }
    Ok(answers)
}

pub(crate) async fn append(tx: &mut Tx, append: Append) -> Answer<Appended> {
    let session = append.session;
    let exists = sql("SELECT 1 FROM lap_event_heads WHERE session = ?1").bind(session.to_string());
    if tx.first(exists).await?.is_none() {
        return Ok(Appended::NoSession);
    }
    if let Some(hold) = &append.hold
        && !work::is_held(tx, hold).await?
    {
        return Ok(Appended::Stale);
    }
    if let Some(ingest) = append.ingest
        && let Some(at) = ingest_refused(tx, session, ingest).await?
    {
        return Ok(Appended::CursorAt(at));
    }
    let mut new = Vec::with_capacity(append.events.len() + 1);
    if let Some(turn) = append.running
        && run(tx, session, turn).await?
    {
        new.push(NewEvent::turn_running(turn));
    }
    new.extend(append.events);
    log(tx, session, new).await.map(Appended::Done)
}

/// Moves the cursor; `Some` with the stored one when that is not the expected one.
async fn ingest_refused(tx: &mut Tx, session: SessionId, ingest: Ingest) -> Answer<Option<u64>> {
    let at = cursor(tx, session, ingest.source).await?;
    if at != ingest.expected {
        return Ok(Some(at));
    }
    let upsert = "INSERT INTO lap_cursors (session, source, cursor) VALUES (?1, ?2, ?3) \
                  ON CONFLICT (session, source) DO UPDATE SET cursor = excluded.cursor";
    let upsert = sql(upsert)
        .bind(session.to_string())
        .bind(ingest.source.to_string())
        .bind(stored(ingest.cursor));
    tx.run(upsert).await?;
    Ok(None)
}

/// sending -> running; `false` when the turn is not sending.
async fn run(tx: &mut Tx, session: SessionId, turn: TurnId) -> Answer<bool> {
    let update =
        "UPDATE lap_turns SET state = 'running' WHERE id = ?1 AND session = ?2 AND state = 'sending'";
    Ok(tx
        .run(sql(update).bind(turn.to_string()).bind(session.to_string()))
        .await?
        > 0)
}

async fn cursor(link: &mut Link, session: SessionId, source: SandboxId) -> Answer<u64> {
    let select = "SELECT cursor FROM lap_cursors WHERE session = ?1 AND source = ?2";
    let row = link
        .first(sql(select).bind(session.to_string()).bind(source.to_string()))
        .await?;
    row.map_or(Ok(0), |row| row.number("cursor"))
}

/// One statement, so the head and the events are of one moment. A session without later events gives one row
/// without an event.
async fn page(link: &mut Link, session: SessionId, after: u64, limit: u32) -> Answer<Option<EventPage>> {
    let select = "SELECT h.first_kept, h.last, e.id, e.kind, e.turn, e.body, e.origin, e.at \
                  FROM lap_event_heads h LEFT JOIN lap_events e ON e.session = h.session AND e.id > ?2 \
                  WHERE h.session = ?1 ORDER BY e.id LIMIT ?3";
    // The head is wanted even when no event is.
    let select = sql(select)
        .bind(session.to_string())
        .bind(stored(after))
        .bind(i64::from(limit.max(1)));
    let rows = link.all(select).await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let (first_kept, head) = (first.number("first_kept")?, first.number("last")?);
    let mut events = Vec::with_capacity(rows.len());
    for row in rows.iter().take(limit as usize) {
        if row.maybe_integer("id")?.is_some() {
            events.push(event(session, row)?);
        }
    }
    Ok(Some(EventPage {
        events,
        first_kept,
        head,
    }))
}

fn event(session: SessionId, row: &SqliteRow) -> Answer<Event> {
    Ok(Event {
        session,
        id: row.number("id")?,
        kind: row.text("kind")?,
        turn: row.maybe_id("turn")?,
        body: row.json("body")?,
        origin: row
            .maybe_integer("origin")?
            .and_then(|origin| u64::try_from(origin).ok()),
        at: row.time("at")?,
    })
}
