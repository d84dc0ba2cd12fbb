//! Accepting a turn: one statement and one commit.

use lap_core::event::NewEvent;
use lap_core::sandbox::Place;
use lap_core::session::SessionState;
use lap_core::store::{Accept, Accepted, Hold, WorkItem, WorkKind};
use lap_core::turn::preview;
use serde_json::Value;
use sqlx::postgres::PgRow;

use crate::error::{Answer, Failure};
use crate::link::{Link, Statement, sql};
use crate::row::{Columns as _, clean, json_text, millis, place_text};
use crate::turns;

/// Every transition of a session and its turns appends an event, so the last event's id is a version of all of them:
/// - `before` reads it with everything that decides, and `head` moves it only if it is still the same. Otherwise
///   somebody was faster, and nothing may stay: the division by zero at the end undoes what `idem` and `work` wrote. The
///   next attempt sees what the other did.
/// - `same` is the turn that the same request made before: its key's, else its id's.
/// - `work` holds the item for this process if it reaches the sandbox; whoever holds it already keeps it. It comes
///   before `head`, which is the order in which all writes lock.
pub(crate) const ACCEPT: &str = "\
WITH prev AS MATERIALIZED (\
    SELECT result, body_hash FROM lap.idempotency \
    WHERE principal = $3 AND operation = $4 AND parent = $5 AND key = $6 AND expires_at > lap.now_ms()), \
same AS MATERIALIZED (\
    SELECT * FROM lap.turns WHERE id = coalesce((SELECT result FROM prev), $2) \
    AND NOT EXISTS (SELECT FROM prev WHERE body_hash <> $7)), \
before AS MATERIALIZED (\
    SELECT s.state, b.place, h.last, \
        coalesce((SELECT max(number) FROM lap.turns WHERE session = $1), 0) + 1 AS number, \
        EXISTS (SELECT FROM lap.turns WHERE session = $1 AND state IN ('sending', 'running')) AS is_open, \
        (SELECT count(*) FROM lap.turns WHERE session = $1 AND state = 'queued') AS queued \
    FROM lap.sessions s JOIN lap.heads h ON h.session = s.id LEFT JOIN lap.sandboxes b ON b.id = s.sandbox \
    WHERE s.id = $1), \
plan AS MATERIALIZED (\
    SELECT b.*, b.state = 'ready' AND NOT b.is_open AND b.queued = 0 AS starts FROM before b \
    WHERE b.state IN ('creating', 'ready') AND NOT EXISTS (SELECT FROM same) \
    AND NOT EXISTS (SELECT FROM prev WHERE body_hash <> $7)), \
go AS MATERIALIZED (SELECT * FROM plan WHERE starts OR queued < $8), \
idem AS (\
    INSERT INTO lap.idempotency AS i (principal, operation, parent, key, body_hash, result, expires_at) \
    SELECT $3, $4, $5, $6, $7, $2, lap.now_ms() + $9 FROM go WHERE $6::text IS NOT NULL \
    ON CONFLICT (principal, operation, parent, key) DO UPDATE \
    SET body_hash = excluded.body_hash, result = excluded.result, expires_at = excluded.expires_at \
    WHERE i.expires_at <= lap.now_ms() RETURNING 1), \
drawn AS MATERIALIZED (\
    SELECT nextval('lap.fence') AS fence FROM go WHERE starts AND (coalesce(place, $10) IN ('cluster', $10))), \
work AS (\
    INSERT INTO lap.work AS w (kind, key, place, due, owner, fence, generation, attempts) \
    SELECT 'turn', $11, coalesce(go.place, $10), \
        CASE WHEN drawn.fence IS NULL THEN lap.now_ms() ELSE 9223372036854775807 END, \
        CASE WHEN drawn.fence IS NULL THEN NULL ELSE $12::uuid END, coalesce(drawn.fence, 0), 1, \
        CASE WHEN drawn.fence IS NULL THEN 0 ELSE 1 END \
    FROM go LEFT JOIN drawn ON true WHERE go.starts \
    ON CONFLICT (kind, key) DO UPDATE SET place = excluded.place, generation = w.generation + 1, \
        due = CASE WHEN w.owner IS NULL AND excluded.owner IS NOT NULL THEN excluded.due \
            ELSE least(w.due, lap.now_ms()) END, \
        fence = CASE WHEN w.owner IS NULL AND excluded.owner IS NOT NULL THEN excluded.fence ELSE w.fence END, \
        attempts = CASE WHEN w.owner IS NULL AND excluded.owner IS NOT NULL THEN w.attempts + 1 ELSE w.attempts END, \
        owner = coalesce(w.owner, excluded.owner) \
    RETURNING place, owner, fence, generation, attempts), \
head AS (\
    UPDATE lap.heads h SET last = h.last + 1 FROM go WHERE h.session = $1 AND h.last = go.last \
    AND (SELECT count(*) FROM work) >= 0 RETURNING h.last), \
turn AS (\
    INSERT INTO lap.turns (id, session, number, state, parts, model, created_by, created_at, started_at) \
    SELECT $2, $1, number, CASE WHEN starts THEN 'sending' ELSE 'queued' END, $13, $14, $15, lap.now_ms(), \
        CASE WHEN starts THEN lap.now_ms() END FROM go WHERE EXISTS (SELECT FROM head) RETURNING *), \
seen AS (\
    UPDATE lap.sessions SET last_seen_at = lap.now_ms(), preview = coalesce(preview, $16) \
    WHERE id = $1 AND EXISTS (SELECT FROM head)), \
logged AS (\
    INSERT INTO lap.events (session, id, kind, turn, body, at) \
    SELECT $1, head.last, $17, $2, '{\"number\":' || go.number || ',' || substr($18, 2), lap.now_ms() \
    FROM head, go) \
SELECT EXISTS (SELECT FROM prev WHERE body_hash <> $7) AS is_reused, (SELECT state FROM before) AS session_state, \
    EXISTS (SELECT FROM same) AS is_same, EXISTS (SELECT FROM plan) AS is_plan, EXISTS (SELECT FROM go) AS goes, \
    work.owner, work.fence, work.generation, work.attempts, work.place, (SELECT fence FROM drawn) AS drawn, \
    CASE WHEN EXISTS (SELECT FROM go WHERE starts OR $6::text IS NOT NULL) \
        THEN 1 / (SELECT count(*) FROM head) END AS undo, \
    CASE WHEN EXISTS (SELECT FROM go) AND $6::text IS NOT NULL THEN 1 / (SELECT count(*) FROM idem) END AS undo_too, \
    t.* \
FROM (SELECT) AS one LEFT JOIN (SELECT * FROM turn UNION ALL SELECT * FROM same) t ON true \
LEFT JOIN work ON true";

pub(crate) async fn accept(link: &mut Link, accept: Accept) -> Answer<Accepted> {
    let row = match link.one(statement(&accept)?).await {
        // Undone, see above; or the same turn was accepted meanwhile, for another session.
        Err(failure) if failure.is_division_by_zero() || failure.is_duplicate_in(&["turns_pkey"]) => {
            return Err(Failure::Race);
        }
        row => row?,
    };
    if row.flag("is_reused")? {
        return Ok(Accepted::KeyReused);
    }
    if row.flag("is_same")? {
        return turns::turn(&row).map(Accepted::Replayed);
    }
    if row.flag("goes")? && row.maybe_uuid("id")?.is_none() {
        return Err(Failure::Race);
    }
    if row.flag("goes")? {
        return accepted(&row, &accept);
    }
    if row.flag("is_plan")? {
        return Ok(Accepted::Full);
    }
    Ok(match row.maybe_named("session_state", SessionState::from_name)? {
        Some(state) => Accepted::Ended(state),
        None => Accepted::NoSession,
    })
}

fn accepted(row: &PgRow, accept: &Accept) -> Answer<Accepted> {
    let turn = turns::turn(row)?;
    if !turn.state.is_open() {
        return Ok(Accepted::Queued(turn));
    }
    let drawn = row.maybe_integer("drawn")?;
    let is_held = drawn.is_some() && row.maybe_integer("fence")? == drawn;
    if !is_held {
        return Ok(Accepted::Started(turn, None));
    }
    let place: Option<Place> = row.maybe_place("place")?;
    let item = WorkItem {
        hold: Hold {
            kind: WorkKind::Turn,
            key: accept.session.to_string(),
            worker: row.id("owner")?,
            fence: row.number("fence")?,
        },
        generation: row.number("generation")?,
        attempts: row.count("attempts")?,
        place,
    };
    Ok(Accepted::Started(turn, Some(item)))
}

fn statement(accept: &Accept) -> Answer<Statement> {
    let turn = &accept.turn;
    let event = NewEvent::turn_accepted(turn.id, 0, &turn.parts, &turn.created_by);
    let request = accept.idempotency.as_ref();
    Ok(sql(ACCEPT)
        .bind(accept.session.as_uuid())
        .bind(turn.id.as_uuid())
        .bind(request.map(|request| clean(&request.principal)))
        .bind(request.map(|request| request.operation))
        .bind(request.map(|request| clean(&request.parent)))
        .bind(request.map(|request| clean(&request.key)))
        .bind(request.map(|request| clean(&request.body_hash)))
        .bind(i64::from(accept.queue_limit))
        .bind(millis(lap_core::store::IDEMPOTENCY_TTL))
        .bind(place_text(accept.place))
        .bind(accept.session.to_string())
        .bind(accept.worker.as_uuid())
        .bind(json_text(&turn.parts)?)
        .bind(turn.model.as_deref().map(clean))
        .bind(clean(&turn.created_by))
        .bind(preview(&turn.parts).map(clean))
        .bind(event.kind)
        .bind(body_without_number(event.body)?))
}

/// The body of an event about a turn whose number only the database knows: it is put in front.
pub(crate) fn body_without_number(body: Value) -> Answer<String> {
    let Value::Object(mut fields) = body else {
        return Err(sqlx::Error::Encode("an event's body is an object".into()).into());
    };
    fields.remove("number");
    json_text(&fields)
}
