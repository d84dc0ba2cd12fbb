//! Agents.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use lap_core::agent::{Agent, AgentSummary};
use lap_core::blueprint::BlueprintHash;
use lap_core::error::Result;
use lap_core::id::{AgentId, SessionId};
use lap_core::session::{EndedBy, SessionState};
use lap_core::store::{AgentOrder, AgentPage, AgentQuery, AgentUpdate, Agents, Created, NewAgent, Updated};
use lap_core::turn::TurnState;
use sqlx::sqlite::SqliteRow;

use crate::ending::{Ending, end_session};
use crate::error::Answer;
use crate::idempotency::{Seen, remember, seen};
use crate::link::{Link, sql};
use crate::row::{Columns as _, json_text, stored};
use crate::store::SqliteStore;
use crate::writer::Tx;

#[async_trait]
impl Agents for SqliteStore {
    async fn create_agent(&self, new: NewAgent) -> Result<Created> {
        self.write("create agent", move |tx| create(tx, new).boxed())
            .await
    }

    async fn agent(&self, id: AgentId) -> Result<Option<Agent>> {
        self.read("read agent", move |link| find(link, id).boxed()).await
    }

    async fn list_agents(&self, query: AgentQuery) -> Result<AgentPage> {
        self.read("list agents", move |link| list(link, query).boxed())
            .await
    }

    async fn update_agent(&self, update: AgentUpdate) -> Result<Updated> {
        self.write("update agent", move |tx| update_agent(tx, update).boxed())
            .await
    }

    async fn delete_agent(&self, id: AgentId) -> Result<Option<Vec<SessionId>>> {
        self.write("delete agent", move |tx| delete(tx, id).boxed()).await
    }
}

fn agent(row: &SqliteRow) -> Answer<Agent> {
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
    let select = sql("SELECT * FROM lap_agents WHERE id = ?1 AND deleted_at IS NULL");
    link.first(select.bind(id.to_string()))
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
    let select = sql("SELECT * FROM lap_agents WHERE id = ?1");
    if let Some(row) = tx.first(select.bind(known.to_string())).await? {
        return agent(&row).map(Created::Replayed);
    }
    if let Some(request) = &new.idempotency {
        remember(tx, request, new.id).await?;
    }
    let insert = "INSERT INTO lap_agents \
                  (id, version, spec, name, harness, blueprint_hash, created_at, created_by) \
                  VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING *";
    let insert = sql(insert)
        .bind(new.id.to_string())
        .bind(json_text(&new.spec)?)
        .bind(new.spec.name)
        .bind(new.spec.harness)
        .bind(new.blueprint_hash.as_text().to_owned())
        .bind(tx.now.unix_millis())
        .bind(new.created_by);
    agent(&tx.one(insert).await?).map(Created::New)
}

async fn update_agent(tx: &mut Tx, update: AgentUpdate) -> Answer<Updated> {
    let text = "UPDATE lap_agents SET version = version + 1, spec = ?3, name = ?4, harness = ?5, \
                blueprint_hash = ?6 WHERE id = ?1 AND version = ?2 AND deleted_at IS NULL RETURNING *";
    let statement = sql(text)
        .bind(update.id.to_string())
        .bind(stored(update.expected_version))
        .bind(json_text(&update.spec)?)
        .bind(update.spec.name)
        .bind(update.spec.harness)
        .bind(update.blueprint_hash.as_text().to_owned());
    if let Some(row) = tx.first(statement).await? {
        return agent(&row).map(Updated::Done);
    }
    Ok(if find(tx, update.id).await?.is_some() {
        Updated::Changed
    } else {
        Updated::Missing
    })
}

async fn delete(tx: &mut Tx, id: AgentId) -> Answer<Option<Vec<SessionId>>> {
    let update = sql("UPDATE lap_agents SET deleted_at = ?2 WHERE id = ?1 AND deleted_at IS NULL");
    if tx
        .run(update.bind(id.to_string()).bind(tx.now.unix_millis()))
        .await?
        == 0
    {
        return Ok(None);
    }
    let select =
        "SELECT id FROM lap_sessions WHERE agent = ?1 AND state IN ('creating', 'ready') ORDER BY id";
    let rows = tx.all(sql(select).bind(id.to_string())).await?;
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
        end_session(tx, session, &ending).await?;
        ended.push(session);
    }
    Ok(Some(ended))
}

/// The part of a name, id or harness that is searched for, without regard to ASCII case.
macro_rules! matching {
    () => {
        "FROM lap_agents a WHERE a.deleted_at IS NULL AND (instr(lower(ifnull(a.name, '')), ?1) > 0 \
         OR instr(a.id, ?1) > 0 OR instr(lower(a.harness), ?1) > 0) "
    };
}

/// A page in one direction. `?2` names the order; nameless agents are last in both directions.
macro_rules! page {
    ($direction:literal) => {
        concat!(
            "SELECT a.*, (SELECT count(*) FROM lap_sessions s WHERE s.agent = a.id) AS session_count, \
             EXISTS (SELECT 1 FROM lap_sessions s WHERE s.agent = a.id AND s.state IN ('creating', 'ready')) \
             AS has_active_session ",
            matching!(),
            "ORDER BY ?2 = 'name' AND a.name IS NULL, \
             CASE ?2 WHEN 'name' THEN lower(a.name) WHEN 'harness' THEN a.harness \
             WHEN 'sessions' THEN session_count ELSE a.created_at END ",
            $direction,
            ", a.id ",
            $direction,
            " LIMIT ?3 OFFSET ?4"
        )
    };
}

/// Two reads of one moment.
async fn list(link: &mut Link, query: AgentQuery) -> Answer<AgentPage> {
    link.run(sql("BEGIN")).await?;
    let page = read_page(link, query).await;
    link.run(sql("COMMIT")).await?;
    page
}

async fn read_page(link: &mut Link, query: AgentQuery) -> Answer<AgentPage> {
    let needle = query.search.unwrap_or_default().to_ascii_lowercase();
    let total = sql(concat!("SELECT count(*) AS total ", matching!())).bind(needle.clone());
    let total = link.one(total).await?.number("total")?;
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
    Ok(AgentPage {
        agents: rows.iter().map(summary).collect::<Answer<_>>()?,
        total,
    })
}

fn summary(row: &SqliteRow) -> Answer<AgentSummary> {
    Ok(AgentSummary {
        agent: agent(row)?,
        session_count: row.number("session_count")?,
        has_active_session: row.flag("has_active_session")?,
    })
}
