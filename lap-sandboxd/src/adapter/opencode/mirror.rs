//! Copies what opencode says about one conversation into the journal.

use std::collections::{HashMap, HashSet};

use lap_harness::journal::PartDelta;
use serde_json::{Value, json};

use crate::adapter::TurnJournal;

/// What one event means for the turn.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning {
    /// Nothing beyond what was copied.
    Nothing,
    /// The conversation may have come to rest: look at it.
    Idle,
    /// The model failed and opencode asks it again.
    Retry { attempt: u64, message: String },
    /// Somebody must answer this request before the agent goes on.
    Asked(String),
    /// Somebody answered it.
    Answered(String),
    /// Something went wrong in the conversation.
    Error(Value),
}

/// See the [module](self).
pub(super) struct Mirror {
    journal: TurnJournal,
    conversation: String,
    /// The conversations of sub-agents, whose requests need answers too.
    below: HashSet<String>,
    /// What was copied last of each message and part, so that a look at the state adds only what is missing.
    infos: HashMap<String, Value>,
    parts: HashMap<String, Value>,
    /// How much of a part's text was told. Absent: unknown, since events were missed.
    told: HashMap<String, u64>,
    /// Whether opencode was seen at work. A rest before that is the rest after an earlier turn.
    worked: bool,
}

impl Mirror {
    pub(super) fn new(journal: TurnJournal, conversation: String) -> Self {
        Self {
            journal,
            conversation,
            below: HashSet::new(),
            infos: HashMap::new(),
            parts: HashMap::new(),
            told: HashMap::new(),
            worked: false,
        }
    }

    /// How many messages of this turn have been seen.
    pub(super) fn messages(&self) -> usize {
        self.infos.len()
    }

    /// Whether opencode was seen at work on this turn.
    pub(super) const fn worked(&self) -> bool {
        self.worked
    }

    /// Copies an event.
    pub(super) fn take(&mut self, event: &Value) -> Meaning {
        let (kind, properties) = (event["type"].as_str().unwrap_or_default(), &event["properties"]);
        if kind == "session.created" {
            self.learn_child(&properties["info"]);
            return Meaning::Nothing;
        }
        let session = properties["sessionID"].as_str().unwrap_or_default();
        let own = session == self.conversation;
        if !own && !self.below.contains(session) {
            return Meaning::Nothing;
        }
        match kind {
            "permission.asked" | "question.asked" => {
                self.journal.emit(kind, properties.clone());
                Meaning::Asked(text(properties, "id"))
            }
            "permission.replied" | "question.replied" | "question.rejected" => {
                self.journal.emit(kind, properties.clone());
                Meaning::Answered(text(properties, "requestID"))
            }
            // What sub-agents say is summed up in the part of the tool that started them.
            _ if !own => Meaning::Nothing,
            "message.updated" => {
                self.info(&properties["info"]);
                Meaning::Nothing
            }
            "message.part.updated" => {
                self.part(&properties["part"]);
                Meaning::Nothing
            }
            "message.part.delta" => {
                self.delta(properties);
                Meaning::Nothing
            }
            "session.status" => self.status(properties),
            "session.idle" => Meaning::Idle,
            "session.error" => {
                self.journal.emit(kind, properties.clone());
                Meaning::Error(properties["error"].clone())
            }
            "message.removed" | "message.part.removed" | "session.compacted" | "todo.updated" => {
                self.journal.emit(kind, properties.clone());
                Meaning::Nothing
            }
            _ => Meaning::Nothing,
        }
    }

    /// Copies what is new in messages that were read as a whole.
    pub(super) fn reconcile(&mut self, messages: &[Value]) {
        for message in messages {
            self.info(&message["info"]);
            for part in message["parts"].as_array().into_iter().flatten() {
                self.part(part);
                // Deltas of a growing part are not stored, so how much of it was told is unknown here.
                if part["text"].is_string() && part["time"]["end"].is_null() {
                    self.told.remove(part["id"].as_str().unwrap_or_default());
                }
            }
        }
    }

    /// Events were missed: deltas of parts that are under way have no known offset any more.
    pub(super) fn missed(&mut self) {
        self.told.clear();
    }

    /// Tells that the conversation rests. opencode says so more than once per turn, so this is said here.
    pub(super) fn rest(&self) {
        self.journal.emit(
            "session.status",
            json!({"sessionID": self.conversation, "status": {"type": "idle"}}),
        );
        self.journal
            .emit("session.idle", json!({"sessionID": self.conversation}));
    }

    /// Tells something of the adapter's own.
    pub(super) fn tell(&self, kind: &str, mut properties: Value) {
        properties["sessionID"] = Value::from(self.conversation.as_str());
        self.journal.emit(kind, properties);
    }

    fn learn_child(&mut self, info: &Value) {
        let parent = info["parentID"].as_str().unwrap_or_default();
        if parent == self.conversation || self.below.contains(parent) {
            self.below.insert(text(info, "id"));
        }
    }

    fn status(&mut self, properties: &Value) -> Meaning {
        let status = &properties["status"];
        self.worked |= status["type"] != "idle";
        match status["type"].as_str() {
            Some("idle") => Meaning::Idle,
            Some("retry") => {
                self.journal.emit("session.status", properties.clone());
                Meaning::Retry {
                    attempt: status["attempt"].as_u64().unwrap_or(0),
                    message: text(status, "message"),
                }
            }
            _ => {
                self.journal.emit("session.status", properties.clone());
                Meaning::Nothing
            }
        }
    }

    fn info(&mut self, info: &Value) {
        self.worked |= info["role"] == "assistant";
        let id = text(info, "id");
        if self.infos.get(&id) != Some(info) {
            self.journal.emit(
                "message.updated",
                json!({"sessionID": self.conversation, "info": info}),
            );
            self.infos.insert(id, info.clone());
        }
    }

    fn part(&mut self, part: &Value) {
        let id = text(part, "id");
        if self.parts.get(&id) == Some(part) {
            return;
        }
        if let Some(text) = part["text"].as_str() {
            // While a text grows, its part is told with what was there at the beginning, which is nothing.
            let told = self.told.get(&id).copied().unwrap_or(0);
            self.told.insert(id.clone(), told.max(text.len() as u64));
        }
        self.journal.emit(
            "message.part.updated",
            json!({"sessionID": self.conversation, "part": part}),
        );
        self.parts.insert(id, part.clone());
    }

    fn delta(&mut self, properties: &Value) {
        let part_id = text(properties, "partID");
        let (field, delta) = (text(properties, "field"), text(properties, "delta"));
        let Some(told) = self.told.get_mut(&part_id).filter(|_| field == "text") else {
            return;
        };
        let offset = *told;
        *told += delta.len() as u64;
        self.journal.delta(&PartDelta {
            session_id: self.conversation.clone(),
            message_id: text(properties, "messageID"),
            part_id,
            field,
            delta,
            offset,
        });
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}
