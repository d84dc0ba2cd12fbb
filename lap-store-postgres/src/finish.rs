//! Giving a turn its outcome: one statement and one commit.

use lap_core::event::NewEvent;
use lap_core::id::{SessionId, TurnId};
use lap_core::store::{Append, Appended, Finish, Finished, WorkKind};
use lap_core::time::Timestamp;
use lap_core::turn::{Outcome, Turn};

use crate::accept::body_without_number;
use crate::append;
use crate::error::{Answer, Failure};
use crate::link::{Link, Statement, Tx, sql};
use crate::row::{Columns as _, clean, json_text, stored};
use crate::turns;

/// `held` locks the work row, which everybody locks first. As in an accept, `head` moves the log only if nothing
/// happened to the session since this statement looked; everything else depends on it. So a turn that is accepted at the
/// same moment is never left behind: either it is seen here, or this attempt changes nothing.
pub(crate) const FINISH: &str = "\
WITH open AS MATERIALIZED (\
    SELECT session, number FROM lap.turns WHERE id = $1 AND state IN ('sending', 'running')), \
held AS MATERIALIZED (\
    SELECT 1 FROM lap.work WHERE kind = 'turn' AND key = $2 AND owner = $3 AND fence = $4 \
    AND EXISTS (SELECT FROM open WHERE session = $5) FOR NO KEY UPDATE), \
go AS MATERIALIZED (\
    SELECT o.session, o.number, h.last FROM open o JOIN lap.heads h ON h.session = o.session \
    WHERE EXISTS (SELECT FROM held)), \
next AS MATERIALIZED (\
    SELECT t.id FROM lap.turns t WHERE t.session = $5 AND t.state = 'queued' AND EXISTS (SELECT FROM go) \
    AND EXISTS (SELECT FROM lap.sessions s WHERE s.id = $5 AND s.state = 'ready') ORDER BY t.number LIMIT 1), \
head AS (\
    UPDATE lap.heads h SET last = h.last + 1 FROM go WHERE h.session = go.session AND h.last = go.last \
    RETURNING h.last), \
ended AS (\
    UPDATE lap.turns SET state = $6, failure = $7, reply = $8, input_tokens = $9, output_tokens = $10, cost = $11, \
        finished_at = lap.now_ms() WHERE id = $1 AND EXISTS (SELECT FROM head) RETURNING *), \
started AS (\
    UPDATE lap.turns SET state = 'sending', started_at = lap.now_ms() \
    WHERE id = (SELECT id FROM next) AND EXISTS (SELECT FROM ended) RETURNING *), \
gone AS (\
    DELETE FROM lap.work WHERE kind = 'turn' AND key = $2 AND owner = $3 AND fence = $4 \
    AND EXISTS (SELECT FROM head) AND NOT EXISTS (SELECT FROM next)), \
kept AS (\
    UPDATE lap.work SET attempts = 1 WHERE kind = 'turn' AND key = $2 AND owner = $3 AND fence = $4 \
    AND EXISTS (SELECT FROM head) AND EXISTS (SELECT FROM next)), \
seen AS (UPDATE lap.sessions SET last_seen_at = lap.now_ms() WHERE id = $5 AND EXISTS (SELECT FROM head)), \
logged AS (\
    INSERT INTO lap.events (session, id, kind, turn, body, at) \
    SELECT go.session, head.last, $12, $1, '{\"number\":' || go.number || ',' || substr($13, 2), lap.now_ms() \
    FROM head, go) \
SELECT t.part, t.*, EXISTS (SELECT FROM go) AS goes \
FROM (SELECT) AS one LEFT JOIN (\
    SELECT 1 AS part, * FROM ended UNION ALL SELECT 2 AS part, * FROM started) t ON true ORDER BY t.part";

pub(crate) async fn finish(link: &mut Link, finish: Finish) -> Answer<Finished> {
    let Ok(session) = finish.hold.key.parse() else {
        return Ok(Finished::Stale);
    };
    if finish.hold.kind != WorkKind::Turn {
        return Ok(Finished::Stale);
    }
    let rows = link.all(statement(session, finish)?).await?;
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    if !first.flag("goes")? {
        return Ok(Finished::Stale);
    }
    if first.maybe_uuid("id")?.is_none() {
        return Err(Failure::Race);
    }
    let next = rows.get(1).map(turns::turn).transpose()?;
    Ok(Finished::Done(turns::turn(first)?, next))
}

/// Two statements of one transaction. The append locks everything that the end needs, so the end cannot lose a race.
pub(crate) async fn conclude(tx: &mut Tx, (last, end): (Append, Finish)) -> Answer<Finished> {
    match append::one_wave(&mut tx.link, vec![last]).await?.as_slice() {
        [Appended::Done(_)] => {}
        _ => return Ok(Finished::Stale),
    }
    match finish(&mut tx.link, end).await? {
        // The append must not stay without its end.
        Finished::Stale => Err(Failure::Stale),
        done => Ok(done),
    }
}

fn statement(session: SessionId, finish: Finish) -> Answer<Statement> {
    let Finish { turn, hold, outcome } = finish;
    // A number that is not one breaks every sum; such a cost came from outside and says nothing.
    let mut usage = outcome.usage;
    if !usage.cost.is_finite() {
        usage.cost = 0.0;
    }
    let outcome = Outcome {
        failure: outcome.failure.map(clean),
        usage,
        ..outcome
    };
    let event = event(session, turn, &outcome);
    Ok(sql(FINISH)
        .bind(turn.as_uuid())
        .bind(hold.key)
        .bind(hold.worker.as_uuid())
        .bind(stored(hold.fence))
        .bind(session.as_uuid())
        .bind(outcome.state.as_str())
        .bind(outcome.failure)
        .bind(outcome.reply.as_ref().map(json_text).transpose()?)
        .bind(stored(usage.input_tokens))
        .bind(stored(usage.output_tokens))
        .bind(usage.cost)
        .bind(event.kind)
        .bind(body_without_number(event.body)?))
}

/// The event of the end. The turn's number is the database's to add.
fn event(session: SessionId, id: TurnId, outcome: &Outcome) -> NewEvent {
    let never = Timestamp::default();
    NewEvent::turn_finished(&Turn {
        id,
        session,
        number: 0,
        state: outcome.state,
        parts: Vec::new(),
        model: None,
        abort_requested: false,
        failure: outcome.failure.clone(),
        reply: None,
        usage: outcome.usage,
        created_by: String::new(),
        created_at: never,
        started_at: None,
        finished_at: None,
    })
}
