use std::cmp::Ordering;

use async_trait::async_trait;

use super::MemoryStore;
use super::tables::{AgentRow, Request, Tables};
use super::transitions::Ending;
use crate::agent::{Agent, AgentSummary};
use crate::error::Result;
use crate::id::{AgentId, SessionId};
use crate::session::{EndedBy, SessionState};
use crate::store::{AgentOrder, AgentPage, AgentQuery, AgentUpdate, Agents, Created, NewAgent, Updated};
use crate::time::Timestamp;
use crate::turn::TurnState;

#[async_trait]
impl Agents for MemoryStore {
    async fn create_agent(&self, new: NewAgent) -> Result<Created> {
        Ok(self.commit(|tables, now| create(tables, new, now)))
    }

    async fn agent(&self, id: AgentId) -> Result<Option<Agent>> {
        Ok(self.commit(|tables, _| tables.agent(id).cloned()))
    }

    async fn list_agents(&self, query: AgentQuery) -> Result<AgentPage> {
        Ok(self.commit(|tables, _| list(tables, &query)))
    }

    async fn update_agent(&self, update: AgentUpdate) -> Result<Updated> {
        Ok(self.commit(|tables, _| update_agent(tables, update)))
    }

    async fn delete_agent(&self, id: AgentId) -> Result<Option<Vec<SessionId>>> {
        Ok(self.commit(|tables, now| delete(tables, id, now)))
    }
}

impl Tables {
    /// The agent, unless it is deleted.
    pub(super) fn agent(&self, id: AgentId) -> Option<&Agent> {
        self.agents
            .get(&id)
            .filter(|row| !row.is_deleted)
            .map(|row| &row.agent)
    }
}

fn create(tables: &mut Tables, new: NewAgent, now: Timestamp) -> Created {
    let known = match tables.request(new.idempotency.as_ref(), now) {
        Request::KeyReused => return Created::KeyReused,
        Request::Repeated(id) => AgentId::from_uuid(id),
        // The same id is the same request, also when the client gave no key.
        Request::New => new.id,
    };
    if let Some(row) = tables.agents.get(&known) {
        return Created::Replayed(row.agent.clone());
    }
    tables.remember(new.idempotency.as_ref(), new.id.as_uuid(), now);
    let agent = Agent {
        id: new.id,
        version: 1,
        spec: new.spec,
        blueprint_hash: new.blueprint_hash,
        created_at: now,
        created_by: new.created_by,
    };
    tables.agents.insert(
        new.id,
        AgentRow {
            agent: agent.clone(),
            is_deleted: false,
        },
    );
    Created::New(agent)
}

fn update_agent(tables: &mut Tables, update: AgentUpdate) -> Updated {
    let Some(row) = tables.agents.get_mut(&update.id).filter(|row| !row.is_deleted) else {
        return Updated::Missing;
    };
    if row.agent.version != update.expected_version {
        return Updated::Changed;
    }
    row.agent.version += 1;
    row.agent.spec = update.spec;
    row.agent.blueprint_hash = update.blueprint_hash;
    Updated::Done(row.agent.clone())
}

fn delete(tables: &mut Tables, id: AgentId, now: Timestamp) -> Option<Vec<SessionId>> {
    let row = tables.agents.get_mut(&id).filter(|row| !row.is_deleted)?;
    row.is_deleted = true;
    let active: Vec<_> = tables
        .sessions
        .values()
        .filter(|row| row.session.agent == id && row.session.state.is_active())
        .map(|row| row.session.id)
        .collect();
    let ending = Ending {
        state: SessionState::Dead,
        by: EndedBy::AgentDeleted,
        reason: Some("the agent was deleted"),
        open: TurnState::Aborted,
        queued: TurnState::Aborted,
    };
    for session in &active {
        tables.end_session(*session, &ending, now);
    }
    Some(active)
}

fn list(tables: &Tables, query: &AgentQuery) -> AgentPage {
    let needle = query.search.as_deref().unwrap_or_default().to_ascii_lowercase();
    let mut found: Vec<_> = tables
        .agents
        .values()
        .filter(|row| !row.is_deleted && matches_search(&row.agent, &needle))
        .map(|row| summary(tables, &row.agent))
        .collect();
    found.sort_by(|a, b| compare(a, b, query));
    let total = found.len() as u64;
    let agents = found
        .into_iter()
        .skip(query.offset as usize)
        .take(query.limit as usize)
        .collect();
    AgentPage { agents, total }
}

fn matches_search(agent: &Agent, needle: &str) -> bool {
    let contains = |text: &str| text.to_ascii_lowercase().contains(needle);
    agent.spec.name.as_deref().is_some_and(contains)
        || contains(&agent.id.to_string())
        || contains(&agent.spec.harness)
}

fn summary(tables: &Tables, agent: &Agent) -> AgentSummary {
    let states = || {
        tables
            .sessions
            .values()
            .filter(|row| row.session.agent == agent.id)
            .map(|row| row.session.state)
    };
    AgentSummary {
        agent: agent.clone(),
        session_count: states().count() as u64,
        has_active_session: states().any(SessionState::is_active),
    }
}

fn compare(a: &AgentSummary, b: &AgentSummary, query: &AgentQuery) -> Ordering {
    let turned = |ordering: Ordering| {
        if query.descending {
            ordering.reverse()
        } else {
            ordering
        }
    };
    let name = |summary: &AgentSummary| {
        summary
            .agent
            .spec
            .name
            .as_ref()
            .map(|name| name.to_ascii_lowercase())
    };
    let by_key = match query.order {
        AgentOrder::CreatedAt => turned(a.agent.created_at.cmp(&b.agent.created_at)),
        // Nameless ones are last in both directions.
        AgentOrder::Name => match (name(a), name(b)) {
            (Some(a), Some(b)) => turned(a.cmp(&b)),
            (a, b) => a.is_none().cmp(&b.is_none()),
        },
        AgentOrder::Harness => turned(a.agent.spec.harness.cmp(&b.agent.spec.harness)),
        AgentOrder::Sessions => turned(a.session_count.cmp(&b.session_count)),
    };
    by_key.then_with(|| turned(a.agent.id.cmp(&b.agent.id)))
}
