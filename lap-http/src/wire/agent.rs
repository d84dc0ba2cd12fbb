//! Agents on the wire: the original's `ApiAgent`, and what creates and changes one.

use std::collections::BTreeMap;

use lap_core::agent::{Agent, AgentSummary};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{present, without_credentials};

/// Harnesses with a terminal interface of their own.
const TERMINAL_HARNESSES: [&str; 4] = ["claude-code", "codex", "hermes", "gemini"];

/// An agent. Secrets are write-only: `env_vars` shows masks, and writing a mask back changes nothing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Agent)]
pub(crate) struct ApiAgent {
    /// UUID.
    id: String,
    name: Option<String>,
    /// As the gateway calls it.
    model: String,
    prompt: Option<String>,
    harness_id: String,
    /// Whether the harness has a terminal interface.
    supports_tui: bool,
    repo_url: Option<String>,
    branch: String,
    pfp_url: Option<String>,
    mcp_servers: Vec<String>,
    /// What it may do without asking; null: everything.
    #[schema(value_type = Object)]
    permission: Value,
    /// Masked values by name.
    env_vars: BTreeMap<String, String>,
    /// Hosts to which each secret may go.
    env_var_hosts: BTreeMap<String, Vec<String>>,
    attached_skill_ids: Vec<String>,
    allow_out: Vec<String>,
    deny_out: Vec<String>,
    projects: Vec<Value>,
    preload_memory_limit: u32,
    template_id: Option<String>,
    template_version: Option<u32>,
    template_latest_version: Option<u32>,
    template_in_sync: bool,
    template_prompt: Option<String>,
    template_latest_prompt: Option<String>,
    /// ISO 8601, UTC.
    created_at: String,
    /// The image chosen when the agent was created.
    harness_image: String,
    requirements: Option<String>,
    /// Grows by one with each change.
    version: u64,
    created_by: String,
}

impl ApiAgent {
    /// `masked` is the agent's environment with masks for values.
    pub(crate) fn new(agent: Agent, masked: BTreeMap<String, String>) -> Self {
        let spec = agent.spec;
        Self {
            id: agent.id.to_string(),
            name: spec.name,
            model: spec.model,
            prompt: spec.prompt,
            supports_tui: TERMINAL_HARNESSES.contains(&spec.harness.as_str()),
            harness_id: spec.harness,
            repo_url: spec.repo_url.as_deref().map(without_credentials),
            branch: spec.branch,
            pfp_url: spec.pfp_url,
            mcp_servers: spec.mcp_servers,
            permission: spec.permission,
            env_vars: masked,
            env_var_hosts: spec.env_var_hosts,
            attached_skill_ids: spec.skill_ids,
            allow_out: spec.allow_out,
            deny_out: spec.deny_out,
            projects: spec.projects,
            preload_memory_limit: spec.preload_memory_limit,
            template_id: spec.template_id,
            template_version: None,
            template_latest_version: None,
            template_in_sync: true,
            template_prompt: None,
            template_latest_prompt: None,
            created_at: agent.created_at.to_iso8601(),
            harness_image: spec.image,
            requirements: spec.requirements,
            version: agent.version,
            created_by: agent.created_by,
        }
    }
}

/// An agent in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AgentInList)]
pub(crate) struct ApiAgentInList {
    #[serde(flatten)]
    agent: ApiAgent,
    /// How many sessions it ever had.
    session_count: u64,
    /// Whether one of them is creating or ready.
    has_active_session: bool,
}

impl ApiAgentInList {
    pub(crate) fn new(summary: AgentSummary, masked: BTreeMap<String, String>) -> Self {
        Self {
            agent: ApiAgent::new(summary.agent, masked),
            session_count: summary.session_count,
            has_active_session: summary.has_active_session,
        }
    }
}

/// Some agents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentList {
    pub(crate) data: Vec<ApiAgentInList>,
    /// How many match in all.
    pub(crate) total: u64,
    pub(crate) limit: u32,
    pub(crate) offset: u32,
}

/// What to create.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CreateAgentBody {
    pub(crate) name: Option<String>,
    /// As the gateway calls it, e.g. `anthropic/claude-sonnet-4-5`.
    #[schema(min_length = 1)]
    pub(crate) model: String,
    /// The agent's instructions.
    pub(crate) prompt: Option<String>,
    /// Stored and not used, as in the original.
    pub(crate) tools: Option<Vec<Value>>,
    /// Which harness runs it; the server's default when absent.
    pub(crate) harness_id: Option<String>,
    /// Python requirements to install.
    pub(crate) requirements: Option<String>,
    /// The repository to clone; the server's default when absent.
    pub(crate) repo_url: Option<String>,
    /// `main` when absent.
    pub(crate) branch: Option<String>,
    pub(crate) pfp_url: Option<String>,
    /// Names of MCP servers at the gateway.
    pub(crate) mcp_servers: Option<Vec<String>>,
    /// What it may do without asking: `allow`, `ask` or `deny`, or an object with one of them per tool or per pattern of a
    /// tool's input. Everything is allowed when absent.
    #[schema(value_type = Option<Object>)]
    pub(crate) permission: Option<Value>,
    /// Hosts, wildcards and networks that may be reached.
    pub(crate) allow_out: Option<Vec<String>>,
    /// Hosts, wildcards and networks that may not be reached.
    pub(crate) deny_out: Option<Vec<String>>,
    pub(crate) projects: Option<Vec<Project>>,
    pub(crate) skill_ids: Option<Vec<String>>,
    pub(crate) template_id: Option<String>,
    /// Secrets. At most 50, at most 16384 bytes as JSON.
    pub(crate) env_vars: Option<BTreeMap<String, String>>,
    /// Hosts to which each secret may go.
    pub(crate) env_var_hosts: Option<BTreeMap<String, Vec<String>>>,
}

/// What to change. Absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ChangeAgentBody {
    /// `null` removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub(crate) name: Option<Option<String>>,
    /// `null` removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub(crate) pfp_url: Option<Option<String>>,
    /// `null` removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub(crate) prompt: Option<Option<String>>,
    pub(crate) mcp_servers: Option<Vec<String>>,
    /// What it may do without asking: `allow`, `ask` or `deny`, or an object with one of them per tool or per pattern of a
    /// tool's input.
    #[schema(value_type = Option<Object>)]
    pub(crate) permission: Option<Value>,
    /// Takes the place of the image chosen at creation.
    pub(crate) harness_image: Option<String>,
    #[schema(min_length = 1)]
    pub(crate) model: Option<String>,
    pub(crate) branch: Option<String>,
    /// 0 to 50.
    pub(crate) preload_memory_limit: Option<u32>,
    pub(crate) projects: Option<Vec<Project>>,
    /// Takes the place of all secrets. A mask keeps the value it stands for.
    pub(crate) env_vars: Option<BTreeMap<String, String>>,
    pub(crate) allow_out: Option<Vec<String>>,
    pub(crate) deny_out: Option<Vec<String>>,
    pub(crate) env_var_hosts: Option<BTreeMap<String, Vec<String>>>,
}

/// A project of an agent, kept for clients of the original system.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Project {
    id: String,
    name: String,
    #[serde(default)]
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    repo_url: Option<String>,
    #[serde(default = "main_branch")]
    branch: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    setup_cmd: Option<String>,
}

fn main_branch() -> String {
    "main".to_owned()
}

/// Projects as the engine stores them.
pub(crate) fn projects(projects: Vec<Project>) -> Vec<Value> {
    projects
        .into_iter()
        .map(|project| serde_json::to_value(project).unwrap_or_default())
        .collect()
}
