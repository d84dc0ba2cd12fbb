use async_trait::async_trait;

use super::Idempotency;
use crate::agent::{Agent, AgentSpec, AgentSummary};
use crate::blueprint::BlueprintHash;
use crate::error::Result;
use crate::id::{AgentId, SessionId};

/// An agent to create.
#[derive(Debug, Clone)]
pub struct NewAgent {
    /// Its id, minted by the engine.
    pub id: AgentId,
    /// What was defined.
    pub spec: AgentSpec,
    /// Its half of the pool key.
    pub blueprint_hash: BlueprintHash,
    /// Who creates it.
    pub created_by: String,
    /// Recognises a repetition.
    pub idempotency: Option<Idempotency>,
}

/// The answer to a creation.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    /// It was created.
    New(Agent),
    /// The same request created this one before.
    Replayed(Agent),
    /// The key was used with another body.
    KeyReused,
}

/// An update that loses to a newer one.
#[derive(Debug, Clone)]
pub struct AgentUpdate {
    /// Which.
    pub id: AgentId,
    /// The version the update is based on.
    pub expected_version: u64,
    /// The whole new definition.
    pub spec: AgentSpec,
    /// Its half of the pool key.
    pub blueprint_hash: BlueprintHash,
}

/// The answer to an update.
#[derive(Debug, Clone, PartialEq)]
pub enum Updated {
    /// Done; the version has grown by one.
    Done(Agent),
    /// Somebody else was first. Read again.
    Changed,
    /// There is no such agent.
    Missing,
}

/// In which order agents are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentOrder {
    /// By creation.
    #[default]
    CreatedAt,
    /// By name without regard to ASCII case, nameless ones last in both directions.
    Name,
    /// By harness.
    Harness,
    /// By number of sessions.
    Sessions,
}

/// Which agents to list.
#[derive(Debug, Clone)]
pub struct AgentQuery {
    /// Part of name, id or harness, without regard to ASCII case. No wildcards.
    pub search: Option<String>,
    /// Order; ties are broken by id in the same direction.
    pub order: AgentOrder,
    /// Largest first.
    pub descending: bool,
    /// At most this many.
    pub limit: u32,
    /// Skip this many.
    pub offset: u32,
}

impl Default for AgentQuery {
    fn default() -> Self {
        Self {
            search: None,
            order: AgentOrder::CreatedAt,
            descending: true,
            limit: 50,
            offset: 0,
        }
    }
}

/// Some agents of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentPage {
    /// In the asked order.
    pub agents: Vec<AgentSummary>,
    /// How many match in all.
    pub total: u64,
}

/// Keeps agents.
#[async_trait]
pub trait Agents {
    /// The agent exists with version 1, or existed already under the same request. The same id is the same request,
    /// also without a key.
    async fn create_agent(&self, new: NewAgent) -> Result<Created>;

    /// The agent, unless it is unknown or deleted.
    async fn agent(&self, id: AgentId) -> Result<Option<Agent>>;

    /// Agents that are not deleted.
    async fn list_agents(&self, query: AgentQuery) -> Result<AgentPage>;

    /// The agent has the new definition, if its version was the expected one.
    async fn update_agent(&self, update: AgentUpdate) -> Result<Updated>;

    /// The agent is deleted, and every active session of it is ended as
    /// [`EndedBy::AgentDeleted`](crate::session::EndedBy), in one commit. Returns those sessions; `None` when there is no
    /// such agent, also after an earlier deletion.
    async fn delete_agent(&self, id: AgentId) -> Result<Option<Vec<SessionId>>>;
}
