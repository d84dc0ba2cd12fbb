//! Appending to many sessions: one statement and one commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt as _;
use lap_core::error::Result;
use lap_core::event::NewEvent;
use lap_core::store::{Append, Appended};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::Answer;
use crate::events::{EventColumns, cursor, stored_events};
use crate::link::{Core, Link, Statement, Tx, sql};
use crate::row::{Columns as _, clean, json_text, stored};

/// Each part that decides locks the row it decides on, and so sees its newest state: `held` the work row (before
/// everything else, which is the order of all writes), `moved` the cursor, `ran` the turn, `head` the log's head.
/// A cursor that is not the expected one, and a hold that is lost, stop their own entry only.
pub(crate) const APPEND: &str = "\
WITH entry AS MATERIALIZED (\
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::bigint[], $6::uuid[], $7::bigint[], \
        $8::bigint[], $9::uuid[], $10::text[], $11::bigint[]) WITH ORDINALITY \
        AS e (session, kind, key, owner, fence, source, expected, cursor, running, running_body, size, number)), \
held AS MATERIALIZED (\
    SELECT w.kind, w.key FROM entry e JOIN lap.work w \
        ON w.kind = e.kind AND w.key = e.key AND w.owner = e.owner AND w.fence = e.fence \
    FOR NO KEY UPDATE OF w), \
known AS MATERIALIZED (SELECT e.number FROM entry e JOIN lap.heads h ON h.session = e.session), \
allowed AS MATERIALIZED (\
    SELECT e.* FROM entry e WHERE e.number IN (SELECT number FROM known) \
    AND (e.kind IS NULL OR EXISTS (SELECT FROM held WHERE held.kind = e.kind AND held.key = e.key))), \
moved AS (\
    INSERT INTO lap.cursors AS c (session, source, cursor) \
    SELECT session, source, cursor FROM allowed a WHERE source IS NOT NULL AND (expected = 0 OR EXISTS (\
        SELECT FROM lap.cursors k WHERE k.session = a.session AND k.source = a.source)) \
    ON CONFLICT (session, source) DO UPDATE SET cursor = excluded.cursor \
    WHERE c.cursor = (SELECT a.expected FROM allowed a WHERE a.session = c.session AND a.source = c.source) \
    RETURNING session), \
going AS MATERIALIZED (\
    SELECT a.* FROM allowed a WHERE a.source IS NULL OR a.session IN (SELECT session FROM moved)), \
ran AS (\
    UPDATE lap.turns t SET state = 'running' FROM going g \
    WHERE t.id = g.running AND t.session = g.session AND t.state = 'sending' RETURNING t.id), \
sized AS MATERIALIZED (\
    SELECT g.*, (g.running IS NOT NULL AND g.running IN (SELECT id FROM ran))::int AS ran FROM going g), \
head AS (\
    UPDATE lap.heads h SET last = h.last + s.size + s.ran FROM sized s WHERE h.session = s.session \
    RETURNING h.session, h.last, s.size, s.ran, s.running, s.running_body, s.number), \
logged AS (\
    INSERT INTO lap.events (session, id, kind, turn, body, origin, at) \
    SELECT h.session, h.last - h.size + v.place, v.kind, v.turn, v.body, v.origin, lap.now_ms() \
    FROM unnest($12::bigint[], $13::bigint[], $14::text[], $15::uuid[], $16::text[], $17::bigint[]) \
        AS v (number, place, kind, turn, body, origin) JOIN head h ON h.number = v.number \
    UNION ALL \
    SELECT session, last - size, 'turn.running', running, running_body, NULL, lap.now_ms() \
    FROM head WHERE ran = 1) \
SELECT lap.now_ms() AS now, e.number IN (SELECT number FROM known) AS known, \
    e.number IN (SELECT number FROM allowed) AS allowed, h.last, h.ran = 1 AS ran \
FROM entry e LEFT JOIN head h ON h.number = e.number ORDER BY e.number";

/// A session occurs once in a statement. Entries that repeat one go into a further statement of the same transaction.
pub(crate) async fn append(core: &Arc<Core>, appends: Vec<Append>) -> Result<Vec<Appended>> {
    const OPERATION: &str = "append events";
    if appends.is_empty() {
        return Ok(Vec::new());
    }
    let mut waves = waves(appends);
    if waves.len() == 1 {
        let wave = waves.remove(0);
        return core
            .ask(OPERATION, wave, |link, wave| one_wave(link, wave).boxed())
            .await;
    }
    core.write(OPERATION, waves, |tx, waves| all_waves(tx, waves).boxed())
        .await
}

fn waves(appends: Vec<Append>) -> Vec<Vec<Append>> {
    let mut waves = Vec::new();
    let (mut wave, mut sessions) = (Vec::new(), BTreeSet::new());
    for append in appends {
        if !sessions.insert(append.session) {
            waves.push(std::mem::take(&mut wave));
            sessions = BTreeSet::from([append.session]);
        }
        wave.push(append);
    }
    waves.push(wave);
    waves
}

async fn all_waves(tx: &mut Tx, waves: Vec<Vec<Append>>) -> Answer<Vec<Appended>> {
    let mut answers = Vec::new();
    for wave in waves {
        answers.extend(one_wave(&mut tx.link, wave).await?);
    }
    Ok(answers)
}

pub(crate) async fn one_wave(link: &mut Link, wave: Vec<Append>) -> Answer<Vec<Appended>> {
    let rows = link.all(statement(&wave)?).await?;
    let mut answers = Vec::with_capacity(wave.len());
    for (row, append) in rows.iter().zip(wave) {
        answers.push(answer(link, row, append).await?);
    }
    Ok(answers)
}

async fn answer(link: &mut Link, row: &PgRow, append: Append) -> Answer<Appended> {
    if !row.flag("known")? {
        return Ok(Appended::NoSession);
    }
    if !row.flag("allowed")? {
        return Ok(Appended::Stale);
    }
    let Some(last) = row.maybe_integer("last")? else {
        let Some(ingest) = append.ingest else {
            return Err(sqlx::Error::RowNotFound.into());
        };
        // The cursor may have moved after this statement began, so it is read anew.
        let at = cursor(link, (append.session, ingest.source)).await?;
        return Ok(Appended::CursorAt(at));
    };
    let mut new = Vec::with_capacity(append.events.len() + 1);
    new.extend(
        append
            .running
            .filter(|_| row.flag("ran").unwrap_or(false))
            .map(NewEvent::turn_running),
    );
    new.extend(append.events);
    let first = last.unsigned_abs().saturating_sub(new.len() as u64) + 1;
    Ok(Appended::Done(stored_events(
        append.session,
        first,
        row.time("now")?,
        new,
    )))
}

#[derive(Default)]
struct EntryColumns {
    sessions: Vec<Uuid>,
    kinds: Vec<Option<&'static str>>,
    keys: Vec<Option<String>>,
    owners: Vec<Option<Uuid>>,
    fences: Vec<Option<i64>>,
    sources: Vec<Option<Uuid>>,
    expected: Vec<Option<i64>>,
    cursors: Vec<Option<i64>>,
    running: Vec<Option<Uuid>>,
    running_bodies: Vec<Option<String>>,
    sizes: Vec<i64>,
}

impl EntryColumns {
    fn push(&mut self, append: &Append) -> Answer<()> {
        let (hold, ingest) = (append.hold.as_ref(), append.ingest.as_ref());
        self.sessions.push(append.session.as_uuid());
        self.kinds.push(hold.map(|hold| hold.kind.as_str()));
        self.keys.push(hold.map(|hold| clean(&hold.key)));
        self.owners.push(hold.map(|hold| hold.worker.as_uuid()));
        self.fences.push(hold.map(|hold| stored(hold.fence)));
        self.sources.push(ingest.map(|ingest| ingest.source.as_uuid()));
        self.expected.push(ingest.map(|ingest| stored(ingest.expected)));
        self.cursors.push(ingest.map(|ingest| stored(ingest.cursor)));
        self.running.push(append.running.map(|turn| turn.as_uuid()));
        let body = append
            .running
            .map(|turn| json_text(&NewEvent::turn_running(turn).body));
        self.running_bodies.push(body.transpose()?);
        self.sizes.push(stored(append.events.len() as u64));
        Ok(())
    }
}

fn statement(wave: &[Append]) -> Answer<Statement> {
    let (mut entries, mut events) = (EntryColumns::default(), EventColumns::default());
    let (mut numbers, mut places) = (Vec::new(), Vec::new());
    for (number, append) in (1_i64..).zip(wave) {
        entries.push(append)?;
        for (place, event) in (1_i64..).zip(&append.events) {
            numbers.push(number);
            places.push(place);
            events.push(event)?;
        }
    }
    Ok(sql(APPEND)
        .bind(entries.sessions)
        .bind(entries.kinds)
        .bind(entries.keys)
        .bind(entries.owners)
        .bind(entries.fences)
        .bind(entries.sources)
        .bind(entries.expected)
        .bind(entries.cursors)
        .bind(entries.running)
        .bind(entries.running_bodies)
        .bind(entries.sizes)
        .bind(numbers)
        .bind(places)
        .bind(events.kinds)
        .bind(events.turns)
        .bind(events.bodies)
        .bind(events.origins))
}
