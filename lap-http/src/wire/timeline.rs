//! The timeline of a session on the wire: its log as a person reads it.

use std::collections::{BTreeMap, HashSet};

use lap_core::event::Event;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::frame::is_ours;

const DETAIL: usize = 600;
const TOOL_DETAIL: usize = 200;

/// One thing that happened.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TimelineEntry {
    id: String,
    /// `created`, `user`, `thinking`, `tool`, `assistant`, `response`, `recovered` or `ended`.
    kind: String,
    /// ISO 8601, UTC.
    at: String,
    title: String,
    /// At most 600 characters; 200 for a tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Value>,
    /// How it went, where that can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
}

/// The timeline of events in the order of their ids.
pub(crate) fn timeline(events: &[Event]) -> Vec<TimelineEntry> {
    let mut writing = Writing::default();
    for event in events {
        if is_ours(event) {
            writing.platform(event);
        } else {
            writing.harness(event);
        }
    }
    writing.entries
}

#[derive(Default)]
struct Writing {
    entries: Vec<TimelineEntry>,
    /// Where the entry of each message part stands: parts are told again when they change.
    parts: BTreeMap<String, usize>,
    /// What people said is told by the platform already.
    of_users: HashSet<String>,
}

impl Writing {
    fn platform(&mut self, event: &Event) {
        let text = |name: &str| event.body.get(name).and_then(Value::as_str).unwrap_or_default();
        let (kind, title, detail) = match event.kind.as_str() {
            "session.created" => ("created", "Session created", ""),
            "session.restarted" => ("recovered", "Session restarted", text("by")),
            "memory.degraded" => ("recovered", "Some of the conversation was lost", text("reason")),
            "session.failed" => ("ended", "Session failed", text("reason")),
            "session.ended" => ("ended", "Session ended", text("reason")),
            "turn.accepted" => return self.accepted(event),
            "turn.finished" => ("response", "Turn finished", text("failure")),
            _ => return,
        };
        let status = match event.kind.as_str() {
            "session.failed" => Some("failed"),
            "session.ended" => Some(text("ended_by")),
            "turn.finished" => Some(text("outcome")),
            _ => None,
        };
        let mut entry = entry(event, kind, title);
        entry.detail = shortened(detail, DETAIL);
        entry.status = status.map(str::to_owned);
        if let (Some(turn), Some(usage)) = (event.turn, event.body.get("usage")) {
            entry.meta = Some(json!({ "turn_id": turn.to_string(), "usage": usage }));
        }
        self.entries.push(entry);
    }

    fn accepted(&mut self, event: &Event) {
        let parts = event.body.get("parts").and_then(Value::as_array);
        let texts = parts
            .into_iter()
            .flatten()
            .filter_map(|part| part.get("text").and_then(Value::as_str));
        let said = texts.collect::<Vec<_>>().join("\n");
        let mut entry = entry(event, "user", "User message");
        entry.detail = shortened(&said, DETAIL);
        entry.meta = event.turn.map(|turn| json!({ "turn_id": turn.to_string() }));
        self.entries.push(entry);
    }

    fn harness(&mut self, event: &Event) {
        match event.kind.as_str() {
            "message.updated" => {
                let info = event.body.get("info");
                let text = |name: &str| info.and_then(|info| info.get(name)).and_then(Value::as_str);
                if let (Some("user"), Some(id)) = (text("role"), text("id")) {
                    self.of_users.insert(id.to_owned());
                }
            }
            "message.part.updated" => {
                if let Some(part) = event.body.get("part").and_then(Value::as_object) {
                    self.part(event, part);
                }
            }
            "permission.asked" | "question.asked" => {
                let mut entry = entry(event, "tool", "The agent asks");
                let asked = event
                    .body
                    .get("permission")
                    .and_then(Value::as_str)
                    .unwrap_or("question");
                entry.detail = shortened(asked, TOOL_DETAIL);
                entry.status = Some("asked".to_owned());
                self.entries.push(entry);
            }
            _ => {}
        }
    }

    fn part(&mut self, event: &Event, part: &Map<String, Value>) {
        let text = |name: &str| part.get(name).and_then(Value::as_str).unwrap_or_default();
        if self.of_users.contains(text("messageID")) {
            return;
        }
        let mut told = match text("type") {
            "reasoning" | "thinking" => entry(event, "thinking", "Thinking"),
            "text" => entry(event, "assistant", "Assistant"),
            "tool" => entry(event, "tool", text("tool")),
            _ => return,
        };
        if told.kind == "tool" {
            let state = part.get("state");
            let input = state.and_then(|state| state.get("input")).map(Value::to_string);
            told.detail = shortened(&input.unwrap_or_default(), TOOL_DETAIL);
            told.status = state
                .and_then(|state| state.get("status"))
                .and_then(Value::as_str)
                .map(str::to_owned);
        } else {
            told.detail = shortened(text("text"), DETAIL);
        }
        let id = text("id");
        if let Some(known) = self.parts.get(id).and_then(|at| self.entries.get_mut(*at)) {
            told.at.clone_from(&known.at);
            told.id.clone_from(&known.id);
            *known = told;
        } else if told.detail.is_some() || told.kind == "tool" {
            self.parts.insert(id.to_owned(), self.entries.len());
            self.entries.push(told);
        }
    }
}

fn entry(event: &Event, kind: &str, title: &str) -> TimelineEntry {
    TimelineEntry {
        id: event.id.to_string(),
        kind: kind.to_owned(),
        at: event.at.to_iso8601(),
        title: shortened(title, TOOL_DETAIL).unwrap_or_default(),
        detail: None,
        meta: None,
        status: None,
    }
}

/// At most this many characters; nothing for no text.
fn shortened(text: &str, most: usize) -> Option<String> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let mut characters = text.chars();
    let mut short: String = characters.by_ref().take(most).collect();
    if characters.next().is_some() {
        short.pop();
        short.push('…');
    }
    Some(short)
}

#[cfg(test)]
mod tests {
    use lap_core::id::SessionId;
    use lap_core::time::Timestamp;

    use super::*;

    fn event(id: u64, kind: &str, origin: Option<u64>, body: Value) -> Event {
        let session = SessionId::from_uuid(uuid::Uuid::nil());
        let at = Timestamp::from_unix_millis(i64::try_from(id).unwrap());
        Event {
            session,
            id,
            kind: kind.to_owned(),
            turn: None,
            body,
            origin,
            at,
        }
    }

    #[test]
    fn parts_are_told_once_and_people_are_not_told_twice() {
        let part = |text: &str, message: &str, id: &str| json!({ "part": { "type": "text", "id": id, "messageID": message, "text": text } });
        let tool = |status: &str| {
            let state = json!({ "status": status, "input": { "command": "x".repeat(300) } });
            json!({ "part": { "type": "tool", "id": "t", "messageID": "a", "tool": "bash", "state": state } })
        };
        let events = [
            event(1, "session.created", None, json!({ "created_by": "ui" })),
            event(
                2,
                "turn.accepted",
                None,
                json!({ "parts": [{ "type": "text", "text": "hi" }] }),
            ),
            event(
                3,
                "message.updated",
                Some(1),
                json!({ "info": { "id": "u", "role": "user" } }),
            ),
            event(4, "message.part.updated", Some(2), part("hi", "u", "p1")),
            event(5, "message.part.updated", Some(3), part("", "a", "p2")),
            event(6, "message.part.updated", Some(4), tool("running")),
            event(7, "message.part.updated", Some(5), tool("completed")),
            event(8, "message.part.updated", Some(6), part("done", "a", "p2")),
            event(9, "session.ended", Some(7), json!({ "ended_by": "user" })),
            event(
                10,
                "turn.finished",
                None,
                json!({ "outcome": "completed", "failure": null }),
            ),
        ];
        let told = timeline(&events);
        let kinds: Vec<_> = told
            .iter()
            .map(|entry| (entry.kind.as_str(), entry.id.as_str()))
            .collect();
        let expected = [
            ("created", "1"),
            ("user", "2"),
            ("tool", "6"),
            ("assistant", "8"),
            ("response", "10"),
        ];
        assert_eq!(kinds, expected, "and a harness cannot end the session");
        assert_eq!(told[2].status.as_deref(), Some("completed"));
        assert_eq!(told[2].detail.as_ref().unwrap().chars().count(), TOOL_DETAIL);
        assert!(told[2].detail.as_ref().unwrap().ends_with('…'));
        assert_eq!(told[4].status.as_deref(), Some("completed"));
    }
}
