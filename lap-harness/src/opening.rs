//! What is bound to a sandbox when a session takes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// A text the agent can follow when a task calls for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skill {
    /// Short kebab-case name.
    pub slug: String,
    /// Markdown.
    pub content: String,
}

/// The body of `POST /lap/open`. Opening the same session again is allowed and renews what can change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The session that takes the sandbox.
    pub session: Uuid,
    /// The caller's fence: sandboxd refuses a smaller one than it has seen.
    pub fence: u64,
    /// A title for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The agent's instructions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The model, passed to the gateway as it is.
    pub model: String,
    /// The agent's skills.
    #[serde(default)]
    pub skills: Vec<Skill>,
    /// MCP servers, in the platform's shape `{name, url, transport}`.
    #[serde(default)]
    pub mcp_servers: Vec<Value>,
    /// Variables the agent and its tools see.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What the agent may do without asking: `allow`, `ask` or `deny` for everything, or an object with one of them per
    /// tool, or per pattern of a tool's input. Null: everything is allowed.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub permission: Value,
    /// How long a permission request or a question waits for an answer before it counts as refused. Absent: ten
    /// minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_timeout_ms: Option<u64>,
    /// Earlier messages `{info, parts}`; taken only when the sandbox has no conversation of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<Value>>,
}

/// The answer of `POST /lap/open`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAnswer {
    /// The harness's id of the conversation.
    pub conversation: String,
}
