//! The built-in harness: a small agent loop over an OpenAI-compatible gateway. It boots in milliseconds and needs
//! nothing installed.

mod conversation;
mod input;
mod message;
mod model;
mod prompt;
mod speech;
mod tools;
mod turn;

use std::io;

use async_trait::async_trait;
use lap_core::id::fresh_uuid;
use lap_harness::OpenRequest;
use serde_json::Value;

use crate::adapter::{Adapter, Assignment, Ending, Refused, Tools, TurnEnd, TurnJournal};
use conversation::Conversation;
use message::Message;
use model::Gateway;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Builtin {
    tools: Tools,
    gateway: Result<Gateway, String>,
    conversation: Conversation,
}

impl Builtin {
    pub(crate) fn start(tools: Tools) -> io::Result<Self> {
        let conversation = Conversation::open(&tools.layout.state().join("conversation.jsonl"))?;
        let gateway = Gateway::new(&tools.gateway);
        Ok(Self {
            gateway,
            conversation,
            tools,
        })
    }

    /// A new id in opencode's manner: a prefix that says what it is, then letters that sort by time.
    fn fresh_id(&self, prefix: &str) -> String {
        format!(
            "{prefix}_{}",
            fresh_uuid(&*self.tools.entropy, self.tools.clock.now()).simple()
        )
    }

    fn now(&self) -> i64 {
        self.tools.clock.now().unix_millis()
    }
}

fn conversation_id(opening: &OpenRequest) -> String {
    format!("ses_{}", opening.session.simple())
}

/// Whether a policy has anything but `allow` in it.
fn restricts(policy: &Value) -> bool {
    match policy {
        Value::Null => false,
        Value::Object(rules) => rules.values().any(restricts),
        other => other != "allow",
    }
}

#[async_trait]
impl Adapter for Builtin {
    async fn open(&self, opening: &OpenRequest) -> Result<String, Refused> {
        if !opening.mcp_servers.is_empty() {
            let message = "the built-in harness cannot use MCP servers; remove them from the agent or choose another harness";
            return Err(Refused::Unsupported(message.to_owned()));
        }
        if restricts(&opening.permission) {
            let message = "the built-in harness cannot ask and allows everything; remove the agent's permission policy or \
                           choose another harness";
            return Err(Refused::Unsupported(message.to_owned()));
        }
        let conversation = conversation_id(opening);
        if let Some(history) = &opening.history {
            self.conversation.import(history, &conversation);
        }
        Ok(conversation)
    }

    async fn turn(&self, assignment: Assignment, journal: TurnJournal) -> TurnEnd {
        let failed = |message: String| TurnEnd {
            ending: Ending::Failed(lap_harness::TurnFailure {
                message,
                status: None,
            }),
            reply: None,
            usage: None,
        };
        let contents = match input::contents(&assignment.parts) {
            Ok(contents) => contents,
            Err(reason) => return failed(reason),
        };
        let gateway = match &self.gateway {
            Ok(gateway) => gateway,
            Err(reason) => return failed(reason.clone()),
        };
        match turn::Turn::new(self, gateway, assignment, journal) {
            Ok(turn) => turn.run(contents).await,
            Err(error) => failed(format!("the workspace cannot be opened: {error}")),
        }
    }

    async fn messages(&self) -> Vec<Value> {
        self.conversation
            .read(|messages| messages.iter().map(Message::to_value).collect())
    }

    async fn answer(&self, _request: &str, _reply: &Value) -> Result<(), Refused> {
        Err(Refused::NotFound("the built-in harness asks nothing".to_owned()))
    }
}
