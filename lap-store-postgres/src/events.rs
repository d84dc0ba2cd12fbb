//! The log.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::Result;
use lap_core::event::{Event, NewEvent};
use lap_core::id::{SandboxId, SessionId};
use lap_core::store::{Append, Appended, EventPage, Events};
use lap_core::time::Timestamp;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::append;
use crate::error::Answer;
use crate::link::{Link, Tx, sql};
use crate::row::{Columns as _, clean, json_text, stored};
use crate::store::PostgresStore;

#[async_trait]
impl Events for PostgresStore {
    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        append::append(self.core(), appends).await
    }

    async fn events(&self, session: SessionId, after: u64, limit: u32) -> Result<Option<EventPage>> {
        let asked = (session, after, limit);
        self.core()
            .ask("read events", asked, |link, asked| page(link, asked).boxed())
            .await
    }

    async fn cursor(&self, session: SessionId, source: SandboxId) -> Result<u64> {
        self.core()
            .ask("read cursor", (session, source), |link, of| {
                cursor(link, of).boxed()
            })
            .await
    }
}

pub(crate) const LOG: &str = "\
WITH head AS (UPDATE lap.heads SET last = last + cardinality($2::text[]) WHERE session = $1 RETURNING last), \
logged AS (\
    INSERT INTO lap.events (session, id, kind, turn, body, origin, at) \
    SELECT $1, head.last - cardinality($2::text[]) + e.number, e.kind, e.turn, e.body, e.origin, lap.now_ms() \
    FROM head, unnest($2::text[], $3::uuid[], $4::text[], $5::bigint[]) WITH ORDINALITY \
        AS e (kind, turn, body, origin, number)) \
SELECT last FROM head";

/// Appends to a session that exists.
pub(crate) async fn log(tx: &mut Tx, session: SessionId, new: Vec<NewEvent>) -> Answer<Vec<Event>> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let columns = EventColumns::of(&new)?;
    let statement = sql(LOG)
        .bind(session.as_uuid())
        .bind(columns.kinds)
        .bind(columns.turns)
        .bind(columns.bodies)
        .bind(columns.origins);
    let last = tx.one(statement).await?.number("last")?;
    let first = last.saturating_sub(new.len() as u64) + 1;
    Ok(stored_events(session, first, tx.now, new))
}

/// New events as the arrays that a statement takes.
#[derive(Default)]
pub(crate) struct EventColumns {
    pub(crate) kinds: Vec<String>,
    pub(crate) turns: Vec<Option<Uuid>>,
    pub(crate) bodies: Vec<String>,
    pub(crate) origins: Vec<Option<i64>>,
}

impl EventColumns {
    fn of(events: &[NewEvent]) -> Answer<Self> {
        let mut columns = Self::default();
        for event in events {
            columns.push(event)?;
        }
        Ok(columns)
    }

    pub(crate) fn push(&mut self, event: &NewEvent) -> Answer<()> {
        self.kinds.push(clean(&event.kind));
        self.turns.push(event.turn.map(|turn| turn.as_uuid()));
        self.bodies.push(json_text(&event.body)?);
        self.origins.push(event.origin.map(stored));
        Ok(())
    }
}

/// The events as they are stored now, the first of them with this id.
pub(crate) fn stored_events(session: SessionId, first: u64, at: Timestamp, new: Vec<NewEvent>) -> Vec<Event> {
    let stored = (first..).zip(new).map(|(id, new)| Event {
        session,
        id,
        kind: clean(new.kind),
        turn: new.turn,
        body: new.body,
        origin: new.origin,
        at,
    });
    stored.collect()
}

pub(crate) async fn cursor(link: &mut Link, of: (SessionId, SandboxId)) -> Answer<u64> {
    let select = sql("SELECT cursor FROM lap.cursors WHERE session = $1 AND source = $2");
    let row = link
        .first(select.bind(of.0.as_uuid()).bind(of.1.as_uuid()))
        .await?;
    row.map_or(Ok(0), |row| row.number("cursor"))
}

/// One statement, so the head and the events are of one moment. A session without later events gives one row
/// without an event.
pub(crate) const PAGE: &str = "\
SELECT h.first_kept, h.last, e.id, e.kind, e.turn, e.body, e.origin, e.at \
FROM lap.heads h LEFT JOIN LATERAL (\
    SELECT * FROM lap.events WHERE session = $1 AND id > $2 ORDER BY id LIMIT $3) e ON true \
WHERE h.session = $1 ORDER BY e.id";

async fn page(link: &mut Link, (session, after, limit): (SessionId, u64, u32)) -> Answer<Option<EventPage>> {
    let select = sql(PAGE)
        .bind(session.as_uuid())
        .bind(stored(after))
        .bind(i64::from(limit));
    let rows = link.all(select).await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let (first_kept, head) = (first.number("first_kept")?, first.number("last")?);
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
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

fn event(session: SessionId, row: &PgRow) -> Answer<Event> {
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
