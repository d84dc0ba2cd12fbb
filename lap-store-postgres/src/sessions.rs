//! Sessions.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::Result;
use lap_core::id::SessionId;
use lap_core::seal::Sealed;
use lap_core::session::{EndedBy, Phase, Session, SessionState};
use lap_core::store::{
    Advance, Advanced, BringUp, End, Ended, Open, Opened, Revive, Revived, SessionQuery, Sessions,
};
use lap_core::turn::TurnState;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::ending::{Ending, end_session};
use crate::error::Answer;
use crate::link::{Link, Tx, sql};
use crate::row::{Columns as _, millis};
use crate::store::PostgresStore;
use crate::{advance, open, revive, sandboxes};

#[async_trait]
impl Sessions for PostgresStore {
    async fn open(&self, open: Open) -> Result<Opened> {
        let warm_from = self.warm_from(&open.platform_hash);
        let platform = open.platform_hash.clone();
        let opening = open::Opening { open, warm_from };
        let (opened, since) = self
            .core()
            .ask("open session", opening, |link, opening| {
                open::open(link, opening).boxed()
            })
            .await?;
        if let Some(since) = since {
            self.claimed(platform, since);
        }
        Ok(opened)
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>> {
        self.core()
            .ask("read session", id, |link, id| find(link, id).boxed())
            .await
    }

    async fn bring_up(&self, id: SessionId) -> Result<Option<BringUp>> {
        self.core()
            .ask("read bring-up", id, |link, id| bring_up(link, id).boxed())
            .await
    }

    async fn list_sessions(&self, query: SessionQuery) -> Result<Vec<Session>> {
        self.core()
            .ask("list sessions", query, |link, query| list(link, query).boxed())
            .await
    }

    async fn advance(&self, advance: Advance) -> Result<Advanced> {
        self.core()
            .write("advance session", advance, |tx, advance| {
                advance::advance(tx, advance).boxed()
            })
            .await
    }

    async fn end(&self, end: End) -> Result<Ended> {
        self.core()
            .write("end session", end, |tx, end| end_if_asked(tx, end).boxed())
            .await
    }

    async fn revive(&self, revive: Revive) -> Result<Revived> {
        self.core()
            .write("revive session", revive, |tx, revive| {
                revive::revive(tx, revive).boxed()
            })
            .await
    }

    async fn touch(&self, sessions: &[SessionId]) -> Result<()> {
        let mut sessions: Vec<_> = sessions.iter().map(SessionId::as_uuid).collect();
        sessions.sort_unstable();
        self.core()
            .ask("touch sessions", sessions, |link, sessions| {
                touch(link, sessions).boxed()
            })
            .await
    }
}

/// Sessions with the address of the sandbox that serves them; one that was let go answers nowhere.
macro_rules! select_sessions {
    ($rest:literal) => {
        concat!(
            "SELECT s.*, b.address FROM lap.sessions s \
             LEFT JOIN lap.sandboxes b ON b.id = s.sandbox AND b.state = 'claimed' ",
            $rest
        )
    };
}

fn session(row: &PgRow) -> Answer<Session> {
    Ok(Session {
        id: row.id("id")?,
        agent: row.id("agent")?,
        agent_version: row.number("agent_version")?,
        state: row.named("state", SessionState::from_name)?,
        state_since: row.time("state_since")?,
        phase: row.maybe_named("phase", Phase::from_name)?,
        phase_detail: row.maybe_text("phase_detail")?,
        attempt: row.count("attempt")?,
        sandbox: row.maybe_id("sandbox")?,
        address: row.maybe_text("address")?,
        conversation: row.maybe_text("conversation")?,
        title: row.maybe_text("title")?,
        preview: row.maybe_text("preview")?,
        failure: row.maybe_text("failure")?,
        ended_by: row.maybe_named("ended_by", EndedBy::from_name)?,
        created_at: row.time("created_at")?,
        created_by: row.text("created_by")?,
        last_seen_at: row.time("last_seen_at")?,
    })
}

pub(crate) const FIND: &str = select_sessions!("WHERE s.id = $1");

pub(crate) async fn find(link: &mut Link, id: SessionId) -> Answer<Option<Session>> {
    let row = link.first(sql(FIND).bind(id.as_uuid())).await?;
    row.as_ref().map(session).transpose()
}

/// The session's work first, then the head of its log: that is the order in which every write locks. The count makes
/// the head wait for the work.
pub(crate) const LOCK: &str = "\
WITH work AS MATERIALIZED (\
    SELECT 1 FROM lap.work WHERE key = $2 AND kind IN ('bring_up', 'reap', 'turn') ORDER BY kind FOR NO KEY UPDATE) \
SELECT 1 FROM lap.heads WHERE session = $1 AND (SELECT count(*) FROM work) >= 0 FOR NO KEY UPDATE";

/// Whoever changes a session, its turns or its sandbox in several statements holds this lock first. So transitions of
/// a session follow one another, and each statement after this one sees all that was committed before. `false` when
/// there is no such session.
pub(crate) async fn lock(tx: &mut Tx, id: SessionId) -> Answer<bool> {
    let select = sql(LOCK).bind(id.as_uuid()).bind(id.to_string());
    Ok(tx.first(select).await?.is_some())
}

/// The sandbox is read after its session: it may be in a later state, and is never another's.
pub(crate) const BRING_UP: &str = "\
SELECT s.*, CASE b.state WHEN 'claimed' THEN b.address END AS address, o.sealed \
FROM lap.sessions s JOIN lap.openings o ON o.session = s.id JOIN lap.sandboxes b ON b.id = s.sandbox \
WHERE s.id = $1";

async fn bring_up(link: &mut Link, id: SessionId) -> Answer<Option<BringUp>> {
    let Some(row) = link.first(sql(BRING_UP).bind(id.as_uuid())).await? else {
        return Ok(None);
    };
    let session = session(&row)?;
    let Some(sandbox) = session.sandbox else {
        return Ok(None);
    };
    let Some(sandbox) = sandboxes::find(link, sandbox).await? else {
        return Ok(None);
    };
    Ok(Some(BringUp {
        session,
        opening: Sealed::from_text(row.text("sealed")?),
        sandbox,
    }))
}

pub(crate) const LIST_OF_AGENT: &str =
    select_sessions!("WHERE s.agent = $1 AND s.state = ANY($2) AND s.id < $3 ORDER BY s.id DESC LIMIT $4");
pub(crate) const LIST: &str = select_sessions!(
    "WHERE $1::uuid IS NULL AND s.state = ANY($2) AND s.id < $3 ORDER BY s.id DESC LIMIT $4"
);

async fn list(link: &mut Link, query: SessionQuery) -> Answer<Vec<Session>> {
    // Two texts, so that each walks its index from the newest on.
    let text = if query.agent.is_some() {
        LIST_OF_AGENT
    } else {
        LIST
    };
    let states = if query.states.is_empty() {
        SessionState::ALL.to_vec()
    } else {
        query.states
    };
    let states: Vec<_> = states.into_iter().map(SessionState::as_str).collect();
    let select = sql(text)
        .bind(query.agent.map(|agent| agent.as_uuid()))
        .bind(states)
        .bind(query.before.map_or(Uuid::max(), |before| before.as_uuid()))
        .bind(i64::from(query.limit));
    link.all(select).await?.iter().map(session).collect()
}

pub(crate) const TOUCH: &str = "\
UPDATE lap.sessions SET last_seen_at = lap.now_ms() WHERE id = ANY(ARRAY(\
    SELECT id FROM lap.sessions WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE))";

/// Locks in the order of ids, as everybody does who changes several sessions.
async fn touch(link: &mut Link, sessions: Vec<Uuid>) -> Answer<()> {
    link.run(sql(TOUCH).bind(sessions)).await.map(drop)
}

async fn end_if_asked(tx: &mut Tx, end: End) -> Answer<Ended> {
    lock(tx, end.session).await?;
    let Some(session) = find(&mut tx.link, end.session).await? else {
        return Ok(Ended::Missing);
    };
    if !session.state.is_active() {
        return Ok(Ended::Already(session));
    }
    if let Some(idle_for) = end.only_if_idle_for {
        if session.state != SessionState::Ready || has_unfinished(tx, end.session).await? {
            return Ok(Ended::InUse(idle_for));
        }
        let idle = tx.now.since(session.last_seen_at);
        if millis(idle) < millis(idle_for) {
            return Ok(Ended::InUse(idle_for.saturating_sub(idle)));
        }
    }
    let ending = Ending {
        state: SessionState::Dead,
        by: end.by,
        reason: end.reason,
        open: TurnState::Aborted,
        queued: TurnState::Aborted,
    };
    end_session(tx, end.session, &ending).await.map(Ended::Done)
}

async fn has_unfinished(tx: &mut Tx, session: SessionId) -> Answer<bool> {
    let select =
        "SELECT 1 FROM lap.turns WHERE session = $1 AND state IN ('queued', 'sending', 'running') LIMIT 1";
    Ok(tx.first(sql(select).bind(session.as_uuid())).await?.is_some())
}
