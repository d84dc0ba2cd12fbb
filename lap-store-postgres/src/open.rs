//! Opening a session: the hottest write of all, one statement and one commit.

use lap_core::blueprint::{BlueprintHash, PlatformHash};
use lap_core::event::NewEvent;
use lap_core::sandbox::{Place, Sandbox, SandboxState};
use lap_core::session::{Session, SessionState};
use lap_core::store::{Hold, IDEMPOTENCY_TTL, Open, Opened, OpenedSession, WorkItem, WorkKind};
use lap_core::turn::preview;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::{Answer, Failure};
use crate::link::{Link, Statement, sql};
use crate::row::{Columns as _, clean, json_text, millis, place_text, stored};
use crate::sessions;

/// Its parts depend on each other, and so does their order:
/// - `a` holds the agent against a deletion, which otherwise would miss this session. An update may go on.
/// - `prev` is a request that was remembered before. `idem` remembers this one; it waits for a concurrent one with the same
///   key and then gives no row. Everything below depends on it, so a repetition never claims a second sandbox.
/// - `near` and `far` are the claim: the oldest warm sandbox of the key. The index is walked from a hint on, because before
///   it lie only the remains of earlier claims, which a long snapshot keeps from being removed. `far` looks there
///   all the same when nothing else is warm. The key is compared with a scalar, not joined: a join sorts the whole pool.
/// - `drawn` draws the fence once.
pub(crate) const OPEN: &str = "\
WITH a AS MATERIALIZED (\
    SELECT version, blueprint_hash FROM lap.agents WHERE id = $2 AND deleted_at IS NULL FOR KEY SHARE), \
prev AS MATERIALIZED (\
    SELECT result, body_hash FROM lap.idempotency \
    WHERE principal = $3 AND operation = $4 AND parent = $5 AND key = $6 AND expires_at > lap.now_ms()), \
idem AS (\
    INSERT INTO lap.idempotency AS i (principal, operation, parent, key, body_hash, result, expires_at) \
    SELECT $3, $4, $5, $6, $7, $1, lap.now_ms() + $8 FROM a WHERE a.version = $9 AND NOT EXISTS (SELECT FROM prev) \
    ON CONFLICT (principal, operation, parent, key) DO UPDATE \
    SET body_hash = excluded.body_hash, result = excluded.result, expires_at = excluded.expires_at \
    WHERE i.expires_at <= lap.now_ms() RETURNING 1), \
go AS MATERIALIZED (SELECT blueprint_hash FROM a WHERE EXISTS (SELECT FROM idem)), \
near AS MATERIALIZED (\
    SELECT id, state_since FROM lap.sandboxes WHERE state = 'warm' \
    AND blueprint_hash = (SELECT blueprint_hash FROM go) AND platform_hash = $10 AND state_since >= $11 \
    ORDER BY state_since, id LIMIT 1 FOR UPDATE SKIP LOCKED), \
far AS MATERIALIZED (\
    SELECT id, state_since FROM lap.sandboxes WHERE NOT EXISTS (SELECT FROM near) AND state = 'warm' \
    AND blueprint_hash = (SELECT blueprint_hash FROM go) AND platform_hash = $10 AND state_since < $11 \
    ORDER BY state_since, id LIMIT 1 FOR UPDATE SKIP LOCKED), \
claim AS MATERIALIZED (SELECT * FROM near UNION ALL SELECT * FROM far), \
sess AS (\
    INSERT INTO lap.sessions (id, agent, agent_version, state, state_since, attempt, sandbox, title, preview, \
        created_at, created_by, last_seen_at) \
    SELECT $1, $2, $9, 'creating', lap.now_ms(), 1, coalesce((SELECT id FROM claim), $12), $13, $14, \
        lap.now_ms(), $15, lap.now_ms() FROM go), \
opening AS (INSERT INTO lap.openings (session, sealed) SELECT $1, $16 FROM go), \
warm AS (\
    UPDATE lap.sandboxes SET state = 'claimed', session = $1, state_since = lap.now_ms() \
    WHERE id = (SELECT id FROM claim) RETURNING id, place, address, created_at), \
cold AS (\
    INSERT INTO lap.sandboxes (id, blueprint_hash, platform_hash, state, state_since, session, place, created_at) \
    SELECT $12, blueprint_hash, $10, 'provisioning', lap.now_ms(), $1, $17, lap.now_ms() \
    FROM go WHERE NOT EXISTS (SELECT FROM claim)), \
head AS (INSERT INTO lap.heads (session, first_kept, last) SELECT $1, 1, cardinality($18::text[]) FROM go), \
logged AS (\
    INSERT INTO lap.events (session, id, kind, turn, body, at) \
    SELECT $1, e.id, e.kind, e.turn, e.body, lap.now_ms() \
    FROM go, unnest($18::text[], $19::uuid[], $20::text[]) WITH ORDINALITY AS e (kind, turn, body, id)), \
turn AS (\
    INSERT INTO lap.turns (id, session, number, state, parts, model, created_by, created_at) \
    SELECT $21, $1, 1, 'queued', $22, $23, $24, lap.now_ms() FROM go WHERE $21::uuid IS NOT NULL), \
at AS MATERIALIZED (SELECT coalesce((SELECT place FROM warm), $17) AS place FROM go), \
drawn AS MATERIALIZED (\
    SELECT place, nextval('lap.fence') AS fence FROM at WHERE place = 'cluster' OR place = $17), \
work AS (\
    INSERT INTO lap.work (kind, key, place, due, owner, fence, generation, attempts) \
    SELECT 'bring_up', $25, at.place, \
        CASE WHEN drawn.fence IS NULL THEN lap.now_ms() ELSE 9223372036854775807 END, \
        CASE WHEN drawn.fence IS NULL THEN NULL ELSE $26::uuid END, coalesce(drawn.fence, 0), 1, \
        CASE WHEN drawn.fence IS NULL THEN 0 ELSE 1 END \
    FROM at LEFT JOIN drawn ON true) \
SELECT lap.now_ms() AS now, (SELECT version FROM a) AS version, (SELECT result FROM prev) AS prev, \
    (SELECT body_hash FROM prev) AS prev_hash, (SELECT blueprint_hash FROM go) AS blueprint_hash, \
    warm.id AS warm, warm.place, warm.address, warm.created_at, \
    (SELECT state_since FROM claim) AS warm_since, (SELECT fence FROM drawn) AS fence \
FROM (SELECT) AS one LEFT JOIN warm ON true";

/// What an open needs, and from where on to look for warm sandboxes.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) open: Open,
    pub(crate) warm_from: i64,
}

/// The answer, and since when the claimed sandbox was warm.
pub(crate) type Outcome = (Opened, Option<i64>);

pub(crate) async fn open(link: &mut Link, opening: Opening) -> Answer<Outcome> {
    let open = &opening.open;
    let row = match link.one(statement(&opening)?).await {
        Err(failure) if failure.is_duplicate_in(&OF_A_SESSION) => return Err(in_use()),
        row => row?,
    };
    if let Some(before) = row.maybe_id("prev")? {
        if row.text("prev_hash")? != open.idempotency.body_hash {
            return Ok((Opened::KeyReused, None));
        }
        let session = sessions::find(link, before)
            .await?
            .ok_or(sqlx::Error::RowNotFound)?;
        return Ok((Opened::Replayed(session), None));
    }
    let Some(version) = row.maybe_integer("version")? else {
        return Ok((Opened::NoAgent, None));
    };
    if version != stored(open.agent_version) {
        return Ok((Opened::AgentChanged, None));
    }
    match row.maybe_text("blueprint_hash")? {
        Some(blueprint) => opened(&row, open, BlueprintHash::from_text(blueprint)),
        // A request with the same key was committed after this statement began. The next attempt sees it.
        None => Err(Failure::Race),
    }
}

/// The indexes that refuse a session's id that is in use. Which of them does is not determined.
const OF_A_SESSION: [&str; 7] = [
    "sessions_pkey",
    "openings_pkey",
    "heads_pkey",
    "events_pkey",
    "work_pkey",
    "turns_number",
    "sandboxes_live",
];

fn in_use() -> Failure {
    let kind = lap_core::error::ErrorKind::WrongState;
    Failure::Refused(lap_core::Error::new(
        kind,
        "open session",
        "this session id is in use",
    ))
}

fn statement(opening: &Opening) -> Answer<Statement> {
    let open = &opening.open;
    let mut log = vec![NewEvent::session_created(&open.created_by)];
    let turn = open.first_turn.as_ref();
    log.extend(turn.map(|turn| NewEvent::turn_accepted(turn.id, 1, &turn.parts, &turn.created_by)));
    let bodies: Vec<String> = log
        .iter()
        .map(|event| json_text(&event.body))
        .collect::<Answer<_>>()?;
    let turns: Vec<Option<Uuid>> = log
        .iter()
        .map(|event| event.turn.map(|turn| turn.as_uuid()))
        .collect();
    let kinds: Vec<String> = log.into_iter().map(|event| event.kind).collect();
    let request = &open.idempotency;
    Ok(sql(OPEN)
        .bind(open.session.as_uuid())
        .bind(open.agent.as_uuid())
        .bind(clean(&request.principal))
        .bind(request.operation)
        .bind(clean(&request.parent))
        .bind(clean(&request.key))
        .bind(clean(&request.body_hash))
        .bind(millis(IDEMPOTENCY_TTL))
        .bind(stored(open.agent_version))
        .bind(open.platform_hash.as_text().to_owned())
        .bind(opening.warm_from)
        .bind(open.cold_sandbox.as_uuid())
        .bind(open.title.as_deref().map(clean))
        .bind(turn.and_then(|turn| preview(&turn.parts)).map(clean))
        .bind(clean(&open.created_by))
        .bind(open.opening.as_text().to_owned())
        .bind(place_text(open.place))
        .bind(kinds)
        .bind(turns)
        .bind(bodies)
        .bind(turn.map(|turn| turn.id.as_uuid()))
        .bind(turn.map(|turn| json_text(&turn.parts)).transpose()?)
        .bind(turn.and_then(|turn| turn.model.as_deref()).map(clean))
        .bind(turn.map(|turn| clean(&turn.created_by)))
        .bind(open.session.to_string())
        .bind(open.worker.as_uuid()))
}

fn opened(row: &PgRow, open: &Open, blueprint_hash: BlueprintHash) -> Answer<Outcome> {
    let warm = row.maybe_id("warm")?;
    let sandbox = sandbox(row, open, blueprint_hash)?;
    let work = row
        .maybe_integer("fence")?
        .map(|fence| bring_up(open, sandbox.place, fence.unsigned_abs()));
    let session = session(open, &sandbox);
    let opened = OpenedSession {
        session,
        sandbox,
        work,
    };
    let since = row.maybe_integer("warm_since")?;
    Ok(
        if warm.is_some_and(|id: lap_core::id::SandboxId| id == opened.sandbox.id) {
            (Opened::Warm(opened), since)
        } else {
            (Opened::Cold(opened), None)
        },
    )
}

fn sandbox(row: &PgRow, open: &Open, blueprint_hash: BlueprintHash) -> Answer<Sandbox> {
    let now = row.time("now")?;
    let planned = Sandbox {
        id: open.cold_sandbox,
        blueprint_hash,
        platform_hash: PlatformHash::from_text(open.platform_hash.as_text()),
        state: SandboxState::Provisioning,
        state_since: now,
        session: Some(open.session),
        place: open.place,
        address: None,
        reason: None,
        created_at: now,
    };
    let Some(id) = row.maybe_id("warm")? else {
        return Ok(planned);
    };
    Ok(Sandbox {
        id,
        state: SandboxState::Claimed,
        place: row.place("place")?,
        address: row.maybe_text("address")?,
        created_at: row.time("created_at")?,
        ..planned
    })
}

fn bring_up(open: &Open, place: Place, fence: u64) -> WorkItem {
    WorkItem {
        hold: Hold {
            kind: WorkKind::BringUp,
            key: open.session.to_string(),
            worker: open.worker,
            fence,
        },
        generation: 1,
        attempts: 1,
        place: Some(place),
    }
}

fn session(open: &Open, sandbox: &Sandbox) -> Session {
    let now = sandbox.state_since;
    Session {
        id: open.session,
        agent: open.agent,
        agent_version: open.agent_version,
        state: SessionState::Creating,
        state_since: now,
        phase: None,
        phase_detail: None,
        attempt: 1,
        sandbox: Some(sandbox.id),
        address: sandbox.address.clone(),
        conversation: None,
        title: open.title.as_deref().map(clean),
        preview: open
            .first_turn
            .as_ref()
            .and_then(|turn| preview(&turn.parts))
            .map(clean),
        failure: None,
        ended_by: None,
        created_at: now,
        created_by: clean(&open.created_by),
        last_seen_at: now,
    }
}
