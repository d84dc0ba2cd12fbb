//! Agents.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::agent::{Agent, AgentSummary};
use lap_core::blueprint::BlueprintHash;
use lap_core::error::Result;
use lap_core::id::{AgentId, SessionId};
use lap_core::session::{EndedBy, Session, SessionState};
use lap_core::store::{AgentOrder, AgentPage, AgentQuery, AgentUpdate, Agents, Created, NewAgent, Updated};
use lap_core::turn::TurnState;
use sqlx::postgres::PgRow;

use crate::ending::{Ending, end_session};
use crate::error::{Answer, Failure};
use crate::idempotency::{Seen, remember, seen};
use crate::link::{Link, Tx, sql};
use crate::row::{Columns as _, clean, json_text, stored};
use crate::sessions;
use crate::store::PostgresStore;

#[async_trait]
impl Agents for PostgresStore {
    async fn create_agent(&self, new: NewAgent) -> Result<Created> {
        self.core()
            .write("create agent", new, |tx, new| create(tx, new).boxed())
            .await
    }

    async fn agent(&self, id: AgentId) -> Result<Option<Agent>> {
        self.core()
            .ask("read agent", id, |link, id| find(link, id).boxed())
            .await
    }

    async fn list_agents(&self, query: AgentQuery) -> Result<AgentPage> {
        self.core()
            .ask("list agents", query, |link, query| list(link, query).boxed())
            .await
    }

    async fn update_agent(&self, update: AgentUpdate) -> Result<Updated> {
        self.core()
            .ask("update agent", update, |link, update| {
                update_agent(link, update).boxed()
            })
            .await
    }

    async fn delete_agent(&self, id: AgentId) -> Result<Option<Vec<SessionId>>> {
        self.core()
            .write("delete agent", id, |tx, id| delete(tx, id).boxed())
            .await
    }
}

fn agent(row: &PgRow) -> Answer<Agent> {
    Ok(Agent {
        id: row.id("id")?,
        version: row.number("version")?,
        spec: row.json("spec")?,
        blueprint_hash: BlueprintHash::from_text(row.text("blueprint_hash")?),
        created_at: row.time("created_at")?,
        created_by: row.text("created_by")?,
    })
}

async fn find(link: &mut Link, id: AgentId) -> Answer<Option<Agent>> {
    let select = sql("SELECT * FROM lap.agents WHERE id = $1 AND deleted_at IS NULL");
    link.first(select.bind(id.as_uuid()))
        .await?
        .as_ref()
        .map(agent)
        .transpose()
}

async fn create(tx: &mut Tx, new: NewAgent) -> Answer<Created> {
    let mut known = new.id;
    if let Some(request) = &new.idempotency {
        match seen(tx, request).await? {
            Seen::KeyReused => return Ok(Created::KeyReused),
            Seen::Before(id) => known = id,
            Seen::New => {}
        }
    }
    // The same id is the same request, also when the client gave no key and when the agent is deleted by now.
    let select = sql("SELECT * FROM lap.agents WHERE id = $1");
    if let Some(row) = tx.first(select.bind(known.as_uuid())).await? {
        return agent(&row).map(Created::Replayed);
    }
    if let Some(request) = &new.idempotency {
        remember(tx, request, new.id.as_uuid()).await?;
    }
    let insert = "INSERT INTO lap.agents \
                  (id, version, spec, name, harness, blueprint_hash, created_at, created_by) \
                  VALUES ($1, 1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING RETURNING *";
    let insert = sql(insert)
        .bind(new.id.as_uuid())
        .bind(json_text(&new.spec)?)
        .bind(new.spec.name.map(clean))
        .bind(clean(new.spec.harness))
        .bind(new.blueprint_hash.as_text().to_owned())
        .bind(tx.now.unix_millis())
        .bind(clean(new.created_by));
    match tx.first(insert).await? {
        Some(row) => agent(&row).map(Created::New),
        // It was created meanwhile. The next attempt finds it.
        None => Err(Failure::Race),
    }
}

async fn update_agent(link: &mut Link, update: AgentUpdate) -> Answer<Updated> {
    let text = "UPDATE lap.agents SET version = version + 1, spec = $3, name = $4, harness = $5, \
                blueprint_hash = $6 WHERE id = $1 AND version = $2 AND deleted_at IS NULL RETURNING *";
    let statement = sql(text)
        .bind(update.id.as_uuid())
        .bind(stored(update.expected_version))
        .bind(json_text(&update.spec)?)
        .bind(update.spec.name.map(clean))
        .bind(clean(update.spec.harness))
        .bind(update.blueprint_hash.as_text().to_owned());
    if let Some(row) = link.first(statement).await? {
        return agent(&row).map(Updated::Done);
    }
    Ok(if find(link, update.id).await?.is_some() {
        Updated::Changed
    } else {
        Updated::Missing
    })
}

async fn delete(tx: &mut Tx, id: AgentId) -> Answer<Option<Vec<SessionId>>> {
    // Waits for every open of the agent that has begun, so that the sessions listed below are all there are.
    let lock = sql("SELECT 1 FROM lap.agents WHERE id = $1 FOR UPDATE");
    tx.run(lock.bind(id.as_uuid())).await?;
    let update = sql("UPDATE lap.agents SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL");
    if tx
        .run(update.bind(id.as_uuid()).bind(tx.now.unix_millis()))
        .await?
        == 0
    {
        return Ok(None);
    }
    let select =
        "SELECT id FROM lap.sessions WHERE agent = $1 AND state IN ('creating', 'ready') ORDER BY id";
    let rows = tx.all(sql(select).bind(id.as_uuid())).await?;
    let ending = Ending {
        state: SessionState::Dead,
        by: EndedBy::AgentDeleted,
        reason: Some("the agent was deleted".to_owned()),
        open: TurnState::Aborted,
        queued: TurnState::Aborted,
    };
    let mut ended = Vec::with_capacity(rows.len());
    for row in rows {
        let session = row.id("id")?;
        sessions::lock(tx, session).await?;
        // It may have ended just before the lock.
        let is_active = |session: Session| session.state.is_active();
        if sessions::find(&mut tx.link, session)
            .await?
            .is_some_and(is_active)
        {
            end_session(tx, session, &ending).await?;
            ended.push(session);
        }
    }
    Ok(Some(ended))
}

/// A page in one direction, with the number of all that match. `$2` names the order; nameless agents are last in both
/// directions. Sessions are counted for the page alone, unless they are the order.
macro_rules! page {
    ($direction:literal) => {
        concat!(
            "WITH match AS (SELECT a.*, CASE $2 WHEN 'sessions' THEN (SELECT count(*) FROM lap.sessions s \
             WHERE s.agent = a.id) WHEN 'created_at' THEN a.created_at END AS by_number, \
             CASE $2 WHEN 'name' THEN lower(a.name) WHEN 'harness' THEN a.harness END AS by_text \
             FROM lap.agents a WHERE a.deleted_at IS NULL AND (strpos(lower(coalesce(a.name, '')), $1) > 0 \
             OR strpos(a.id::text, $1) > 0 OR strpos(lower(a.harness), $1) > 0)), \
             page AS (SELECT * FROM match ORDER BY $2 = 'name' AND name IS NULL, by_text ",
            $direction,
            ", by_number ",
            $direction,
            ", id ",
            $direction,
            " LIMIT $3 OFFSET $4) \
             SELECT t.total, p.*, (SELECT count(*) FROM lap.sessions s WHERE s.agent = p.id) AS session_count, \
             EXISTS (SELECT 1 FROM lap.sessions s WHERE s.agent = p.id AND s.state IN ('creating', 'ready')) \
             AS has_active_session \
             FROM (SELECT count(*) AS total FROM match) t LEFT JOIN page p ON true \
             ORDER BY $2 = 'name' AND p.name IS NULL, p.by_text ",
            $direction,
            ", p.by_number ",
            $direction,
            ", p.id ",
            $direction
        )
    };
}

async fn list(link: &mut Link, query: AgentQuery) -> Answer<AgentPage> {
    let needle = clean(query.search.unwrap_or_default().to_ascii_lowercase());
    let order = match query.order {
        AgentOrder::CreatedAt => "created_at",
        AgentOrder::Name => "name",
        AgentOrder::Harness => "harness",
        AgentOrder::Sessions => "sessions",
    };
    let select = sql(if query.descending {
        page!("DESC")
    } else {
        page!("ASC")
    })
    .bind(needle)
    .bind(order)
    .bind(i64::from(query.limit))
    .bind(i64::from(query.offset));
    let rows = link.all(select).await?;
    let mut page = AgentPage {
        agents: Vec::with_capacity(rows.len()),
        total: 0,
    };
    for row in &rows {
        page.total = row.number("total")?;
        // A page after the last agent is one row without an agent.
        if row.maybe_uuid("id")?.is_some() {
            page.agents.push(summary(row)?);
        }
    }
    Ok(page)
}

fn summary(row: &PgRow) -> Answer<AgentSummary> {
    Ok(AgentSummary {
        agent: agent(row)?,
        session_count: row.number("session_count")?,
        has_active_session: row.flag("has_active_session")?,
    })
}
