//! Messages in opencode's shape: `{info, parts}`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    User,
    Assistant,
}

/// When a message began and was whole, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct MessageTime {
    pub(super) created: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) completed: Option<i64>,
}

/// When a part began and ended.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct PartTime {
    pub(super) start: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<i64>,
}

/// Tokens as opencode counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Tokens {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) reasoning: u64,
    pub(super) cache: CacheTokens,
}

/// Tokens a provider's cache saved or took. Chat completions do not tell, but opencode's clients read the field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CacheTokens {
    pub(super) read: u64,
    pub(super) write: u64,
}

/// All but the content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Info {
    pub(super) id: String,
    #[serde(rename = "sessionID", default)]
    pub(super) session_id: String,
    pub(super) role: Role,
    #[serde(default)]
    pub(super) time: MessageTime,
    #[serde(rename = "parentID", default, skip_serializing_if = "Option::is_none")]
    pub(super) parent_id: Option<String>,
    #[serde(rename = "providerID", default, skip_serializing_if = "Option::is_none")]
    pub(super) provider_id: Option<String>,
    #[serde(rename = "modelID", default, skip_serializing_if = "Option::is_none")]
    pub(super) model_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cost: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tokens: Option<Tokens>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) finish: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Value>,
}

/// One piece of content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) id: String,
    #[serde(rename = "sessionID", default)]
    pub(super) session_id: String,
    #[serde(rename = "messageID", default)]
    pub(super) message_id: String,
    #[serde(flatten)]
    pub(super) content: Content,
}

/// What a part holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum Content {
    Text {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        time: Option<PartTime>,
    },
    Reasoning {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        time: Option<PartTime>,
    },
    File {
        mime: String,
        url: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
    },
    Tool {
        #[serde(rename = "callID")]
        call_id: String,
        tool: String,
        state: ToolState,
    },
    StepStart {},
    StepFinish {
        reason: String,
        #[serde(default)]
        cost: f64,
        #[serde(default)]
        tokens: Tokens,
    },
}

/// How far a tool call is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub(super) enum ToolState {
    Pending {
        input: Value,
    },
    Running {
        input: Value,
        title: String,
        #[serde(default)]
        metadata: Value,
        time: PartTime,
    },
    Completed {
        input: Value,
        output: String,
        #[serde(default)]
        title: String,
        #[serde(default)]
        metadata: Value,
        #[serde(default)]
        time: PartTime,
    },
    Error {
        input: Value,
        error: String,
        #[serde(default)]
        time: PartTime,
    },
}

/// One message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) info: Info,
    pub(super) parts: Vec<Part>,
}

impl Message {
    /// Reads a message of another origin. Parts this harness does not know are left out.
    pub(super) fn lenient(value: &Value) -> Option<Self> {
        let info = serde_json::from_value(value.get("info")?.clone()).ok()?;
        let parts = value.get("parts")?.as_array()?;
        let parts = parts
            .iter()
            .filter_map(|part| serde_json::from_value(part.clone()).ok())
            .collect();
        Some(Self { info, parts })
    }

    /// Closes a message whose turn was cut off: nothing in it runs any more.
    pub(super) fn close_interrupted(&mut self, reason: &str) {
        for part in &mut self.parts {
            if let Content::Tool { state, .. } = &mut part.content {
                let (ToolState::Pending { input } | ToolState::Running { input, .. }) = &*state else {
                    continue;
                };
                *state = ToolState::Error {
                    input: input.clone(),
                    error: reason.to_owned(),
                    time: PartTime::default(),
                };
            }
        }
        if self.info.role == Role::Assistant && self.info.time.completed.is_none() {
            self.info.time.completed = Some(self.info.time.created);
            self.info.error = Some(aborted_error(reason));
        }
    }

    pub(super) fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// opencode's mark of a message that was stopped.
pub(super) fn aborted_error(reason: &str) -> Value {
    json!({"name": "MessageAbortedError", "data": {"message": reason}})
}
