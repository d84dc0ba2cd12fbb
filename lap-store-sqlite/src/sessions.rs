//! Sessions.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::id::SessionId;
use lap_core::seal::Sealed;
use lap_core::session::{EndedBy, Phase, Session, SessionState};
use lap_core::store::{
    Advance, Advanced, BringUp, End, Ended, Open, Opened, Revive, Revived, SessionQuery, Sessions,
};
use lap_core::turn::TurnState;
use sqlx::sqlite::SqliteRow;

use crate::ending::{Ending, end_session};
use crate::error::Answer;
use crate::link::{Link, sql};
use crate::row::{Columns as _, json_list};
use crate::store::SqliteStore;
use crate::writer::Tx;
use crate::{advance, open, revive, sandboxes};

#[async_trait]
impl Sessions for SqliteStore {
    async fn open(&self, open: Open) -> Result<Opened> {
        let opened = self
            .write("open session", move |tx| open::open(tx, open).boxed())
            .await?;
        let in_use = || Error::new(ErrorKind::WrongState, "open session", "this session id is in use");
        opened.ok_or_else(in_use)
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>> {
        self.read("read session", move |link| find(link, id).boxed())
            .await
    }

    async fn bring_up(&self, id: SessionId) -> Result<Option<BringUp>> {
        self.read("read bring-up", move |link| bring_up(link, id).boxed())
            .await
    }

    async fn list_sessions(&self, query: SessionQuery) -> Result<Vec<Session>> {
        self.read("list sessions", move |link| list(link, query).boxed())
            .await
    }

    async fn advance(&self, advance: Advance) -> Result<Advanced> {
        self.write("advance session", move |tx| advance::advance(tx, advance).boxed())
            .await
    }

    async fn end(&self, end: End) -> Result<Ended> {
        self.write("end session", move |tx| end_if_asked(tx, end).boxed())
            .await
    }

    async fn revive(&self, revive: Revive) -> Result<Revived> {
        self.write("revive session", move |tx| revive::revive(tx, revive).boxed())
            .await
    }

    async fn touch(&self, sessions: &[SessionId]) -> Result<()> {
        let sessions = sessions.to_vec();
        self.write("touch sessions", move |tx| touch(tx, sessions).boxed())
            .await
    }
}

/// Sessions with the address of the sandbox that serves them; one that was let go answers nowhere.
macro_rules! select_sessions {
    ($rest:literal) => {
        concat!(
            "SELECT s.*, b.address FROM lap_sessions s \
             LEFT JOIN lap_sandboxes b ON b.id = s.sandbox AND b.state = 'claimed' ",
            $rest
        )
    };
}

fn session(row: &SqliteRow) -> Answer<Session> {
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

pub(crate) async fn find(link: &mut Link, id: SessionId) -> Answer<Option<Session>> {
    let row = link
        .first(sql(select_sessions!("WHERE s.id = ?1")).bind(id.to_string()))
        .await?;
    row.as_ref().map(session).transpose()
}

/// Three reads of one moment.
async fn bring_up(link: &mut Link, id: SessionId) -> Answer<Option<BringUp>> {
    link.run(sql("BEGIN")).await?;
    let found = read_bring_up(link, id).await;
    link.run(sql("COMMIT")).await?;
    found
}

async fn read_bring_up(link: &mut Link, id: SessionId) -> Answer<Option<BringUp>> {
    let Some(session) = find(link, id).await? else {
        return Ok(None);
    };
    let Some(sandbox) = session.sandbox else {
        return Ok(None);
    };
    let Some(sandbox) = sandboxes::find(link, sandbox).await? else {
        return Ok(None);
    };
    let opening = sql("SELECT sealed FROM lap_openings WHERE session = ?1").bind(id.to_string());
    let opening = Sealed::from_text(link.one(opening).await?.text("sealed")?);
    Ok(Some(BringUp {
        session,
        opening,
        sandbox,
    }))
}

async fn list(link: &mut Link, query: SessionQuery) -> Answer<Vec<Session>> {
    // Two texts, so that each walks its index from the newest on.
    let text = if query.agent.is_some() {
        select_sessions!(
            "WHERE s.agent = ?1 AND (?2 = '[]' OR s.state IN (SELECT value FROM json_each(?2))) \
             AND (?3 IS NULL OR s.id < ?3) ORDER BY s.id DESC LIMIT ?4"
        )
    } else {
        select_sessions!(
            "WHERE ?1 IS NULL AND (?2 = '[]' OR s.state IN (SELECT value FROM json_each(?2))) \
             AND (?3 IS NULL OR s.id < ?3) ORDER BY s.id DESC LIMIT ?4"
        )
    };
    let select = sql(text)
        .bind(query.agent.map(|agent| agent.to_string()))
        .bind(json_list(query.states.iter().map(|state| state.as_str()))?)
        .bind(query.before.map(|before| before.to_string()))
        .bind(i64::from(query.limit));
    link.all(select).await?.iter().map(session).collect()
}

async fn touch(tx: &mut Tx, sessions: Vec<SessionId>) -> Answer<()> {
    let update = "UPDATE lap_sessions SET last_seen_at = ?1 WHERE id IN (SELECT value FROM json_each(?2))";
    tx.run(sql(update).bind(tx.now.unix_millis()).bind(json_list(sessions)?))
        .await
        .map(drop)
}

async fn end_if_asked(tx: &mut Tx, end: End) -> Answer<Ended> {
    let Some(session) = find(tx, end.session).await? else {
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
        if idle < idle_for {
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
        "SELECT 1 FROM lap_turns WHERE session = ?1 AND state IN ('queued', 'sending', 'running') LIMIT 1";
    Ok(tx.first(sql(select).bind(session.to_string())).await?.is_some())
}
