//! Agents: what to run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::blueprint::BlueprintHash;
use crate::id::AgentId;
use crate::seal::Sealed;
use crate::time::Timestamp;

/// What a person defines. Field names are the stored form (ADR 2): a new field needs a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentSpec {
    /// Display name.
    pub name: Option<String>,
    /// The model, as the gateway calls it, e.g. `anthropic/claude-sonnet-4-5`.
    pub model: String,
    /// The agent's own instructions.
    pub prompt: Option<String>,
    /// Opaque tool descriptions, kept for clients of the original system.
    pub tools: Vec<Value>,
    /// Which harness runs it: `opencode`, `builtin`, ...
    pub harness: String,
    /// The container image, resolved when the agent was created and kept since.
    pub image: String,
    /// The repository to clone; the platform's default when absent.
    pub repo_url: Option<String>,
    /// The branch to clone.
    pub branch: String,
    /// Avatar.
    pub pfp_url: Option<String>,
    /// Names of MCP servers at the gateway.
    pub mcp_servers: Vec<String>,
    /// What the agent may do without asking: `allow`, `ask` or `deny` for everything, or an object with one of them per tool,
    /// or per pattern of a tool's input. Null: everything is allowed.
    pub permission: Value,
    /// Secret environment: the sandbox sees stubs. Sealed for the context [`AgentSpec::env_context`].
    #[serde(with = "sealed_map")]
    pub env_vars: BTreeMap<String, Sealed>,
    /// Hosts to which each secret may go.
    pub env_var_hosts: BTreeMap<String, Vec<String>>,
    /// Python requirements to install.
    pub requirements: Option<String>,
    /// Library skills attached to the agent.
    pub skill_ids: Vec<String>,
    /// Egress allow list.
    pub allow_out: Vec<String>,
    /// Egress deny list.
    pub deny_out: Vec<String>,
    /// Sandbox projects, kept for clients of the original system.
    pub projects: Vec<Value>,
    /// How many memories are preloaded.
    pub preload_memory_limit: u32,
    /// The template the agent was made from.
    pub template_id: Option<String>,
}

impl Default for AgentSpec {
    fn default() -> Self {
        Self {
            name: None,
            model: String::new(),
            prompt: None,
            tools: Vec::new(),
            harness: "opencode".to_owned(),
            image: String::new(),
            repo_url: None,
            branch: "main".to_owned(),
            pfp_url: None,
            mcp_servers: Vec::new(),
            permission: Value::Null,
            env_vars: BTreeMap::new(),
            env_var_hosts: BTreeMap::new(),
            requirements: None,
            skill_ids: Vec::new(),
            allow_out: Vec::new(),
            deny_out: Vec::new(),
            projects: Vec::new(),
            preload_memory_limit: 10,
            template_id: None,
        }
    }
}

impl AgentSpec {
    /// The context for which the secret `name` of this agent is sealed.
    pub fn env_context(agent: AgentId, name: &str) -> String {
        format!("agent/{agent}/env/{name}")
    }
}

/// A stored agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Grows by one with each update.
    pub version: u64,
    /// What was defined.
    pub spec: AgentSpec,
    /// The agent's half of the pool key.
    pub blueprint_hash: BlueprintHash,
    /// When it was created.
    pub created_at: Timestamp,
    /// Who created it.
    pub created_by: String,
}

/// An agent in a list, with what a list shows about its sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSummary {
    /// The agent.
    pub agent: Agent,
    /// How many sessions it ever had.
    pub session_count: u64,
    /// Whether one of them is creating or ready.
    pub has_active_session: bool,
}

mod sealed_map {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::seal::Sealed;

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<String, Sealed>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(map.iter().map(|(name, sealed)| (name, sealed.as_text())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<String, Sealed>, D::Error> {
        let texts = BTreeMap::<String, String>::deserialize(from)?;
        Ok(texts
            .into_iter()
            .map(|(name, text)| (name, Sealed::from_text(text)))
            .collect())
    }
}
