//! The opencode dialect on the wire: what its clients send, and what they are told.

use std::collections::BTreeMap;

use lap_core::engine::StreamItem;
use lap_core::event::Event;
use lap_core::session::Session;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::frame::is_ours;
use crate::problem::Problem;

/// A prompt as opencode's clients send it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OpencodePrompt)]
pub(crate) struct PromptBody {
    /// Message parts.
    #[schema(value_type = Vec<Object>)]
    pub(crate) parts: Option<Vec<Map<String, Value>>>,
    model: Option<PromptModel>,
    /// Not passed on; `true` is refused.
    #[serde(rename = "noReply")]
    no_reply: Option<bool>,
    /// Refused: instructions belong to the agent.
    system: Option<String>,
    /// Refused: tools belong to the agent.
    #[schema(value_type = Option<Object>)]
    tools: Option<Value>,
}

/// A model as opencode names it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OpencodeModel)]
pub(crate) struct PromptModel {
    #[serde(rename = "providerID")]
    provider: String,
    #[serde(rename = "modelID")]
    model: String,
}

impl PromptBody {
    /// The model as the gateway calls it.
    pub(crate) fn model(&self) -> Option<String> {
        let PromptModel { provider, model } = self.model.as_ref()?;
        Some(match provider.as_str() {
            "litellm" | "" => model.clone(),
            provider => format!("{provider}/{model}"),
        })
    }

    /// Nothing in it asks for what would be ignored.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let unsupported = [
            ("noReply", self.no_reply == Some(true)),
            ("system", self.system.is_some()),
            ("tools", self.tools.is_some()),
        ];
        match unsupported.iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(Problem::invalid(
                *field,
                "this is not passed on to the harness; leave it out",
            )),
            None => Ok(()),
        }
    }
}

/// A reply to a permission request, as older clients send it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OpencodePermissionResponse)]
pub(crate) struct ResponseBody {
    /// `once`, `always` or `reject`.
    pub(crate) response: String,
}

/// A reply to a permission request.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OpencodePermissionReply)]
pub(crate) struct ReplyBody {
    /// `once`, `always` or `reject`.
    pub(crate) reply: String,
    /// For the model, when it is rejected.
    pub(crate) message: Option<String>,
}

impl ReplyBody {
    /// As harnesses take it.
    pub(crate) fn checked(self) -> Result<Value, Problem> {
        if !["once", "always", "reject"].contains(&self.reply.as_str()) {
            return Err(Problem::invalid("reply", "expected once, always or reject"));
        }
        Ok(match self.message {
            Some(message) => json!({ "reply": self.reply, "message": message }),
            None => json!({ "reply": self.reply }),
        })
    }
}

/// Answers to a question.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OpencodeQuestionReply)]
pub(crate) struct AnswersBody {
    /// The chosen labels of each part of the question.
    pub(crate) answers: Vec<Vec<String>>,
}

/// A conversation as opencode shows it.
pub(crate) fn conversation(session: &Session) -> Value {
    let updated = session.last_seen_at.unix_millis();
    json!({
        "id": session.conversation,
        "version": env!("CARGO_PKG_VERSION"),
        "projectID": "global",
        "directory": "",
        "title": session.title.as_deref().or(session.preview.as_deref()).unwrap_or_default(),
        "time": { "created": session.created_at.unix_millis(), "updated": updated },
    })
}

/// What a harness says, as opencode's bus tells it; nothing for what only the platform says.
pub(crate) fn on_the_bus(item: StreamItem) -> Option<Value> {
    let (kind, properties) = match item {
        StreamItem::Event(event) if !is_ours(&event) => (event.kind, event.body),
        StreamItem::Live { kind, properties, .. } => (kind, properties),
        _ => return None,
    };
    // These two are of the protocol between the platform and its sandboxes.
    let internal = matches!(kind.as_str(), "turn.finished" | "journal.reset");
    (!internal).then(|| json!({ "type": kind, "properties": properties }))
}

/// What was asked (`permission.asked`, `question.asked`) and not answered, oldest first.
pub(crate) fn open_requests(events: &[Event], noun: &str) -> Vec<Value> {
    let asked = format!("{noun}.asked");
    let answers = [format!("{noun}.replied"), format!("{noun}.rejected")];
    let mut open: BTreeMap<u64, &Event> = BTreeMap::new();
    for event in events {
        if is_ours(event) {
            match event.kind.as_str() {
                // Whoever asked is gone.
                "turn.finished" => open.retain(|_, asked| asked.turn != event.turn),
                "session.ended" | "session.failed" | "session.restarted" => open.clear(),
                _ => {}
            }
        } else if event.kind == asked {
            open.insert(event.id, event);
        } else if answers.contains(&event.kind) {
            let id = ["requestID", "permissionID", "id"]
                .iter()
                .find_map(|name| event.body.get(*name));
            open.retain(|_, asked| asked.body.get("id") != id);
        }
    }
    open.into_values().map(|event| event.body.clone()).collect()
}

#[cfg(test)]
mod tests {
    use lap_core::id::{SessionId, TurnId};
    use lap_core::time::Timestamp;

    use super::*;

    fn event(id: u64, kind: &str, origin: Option<u64>, body: Value) -> Event {
        Event {
            session: SessionId::from_uuid(uuid::Uuid::nil()),
            id,
            kind: kind.to_owned(),
            turn: Some(TurnId::from_uuid(uuid::Uuid::nil())),
            body,
            origin,
            at: Timestamp::from_unix_millis(0),
        }
    }

    #[test]
    fn requests_are_open_until_they_are_answered_or_their_turn_is_over() {
        let mut events = vec![
            event(1, "permission.asked", Some(1), json!({ "id": "p1" })),
            event(2, "permission.asked", Some(2), json!({ "id": "p2" })),
            event(3, "question.asked", Some(3), json!({ "id": "q1" })),
            event(4, "permission.replied", Some(4), json!({ "requestID": "p1" })),
            event(5, "turn.finished", Some(5), json!({})),
        ];
        assert_eq!(open_requests(&events, "permission"), [json!({ "id": "p2" })]);
        assert_eq!(open_requests(&events, "question"), [json!({ "id": "q1" })]);
        events.push(event(6, "turn.finished", None, json!({})));
        assert!(open_requests(&events, "permission").is_empty());
    }

    #[test]
    fn the_bus_tells_what_harnesses_say_and_nothing_of_the_platform() {
        let told =
            |kind: &str, origin| on_the_bus(StreamItem::Event(event(1, kind, origin, json!({ "a": 1 }))));
        let idle = json!({ "type": "session.idle", "properties": { "a": 1 } });
        assert_eq!(told("session.idle", Some(1)), Some(idle));
        for (kind, origin) in [
            ("session.ready", None),
            ("turn.finished", None),
            ("turn.finished", Some(1)),
        ] {
            assert_eq!(told(kind, origin), None, "{kind}");
        }
        assert_eq!(on_the_bus(StreamItem::Passed { id: 1 }), None);
    }

    #[test]
    fn models_are_named_as_the_gateway_names_them() {
        let model = |text: &str| serde_json::from_str::<PromptBody>(text).unwrap().model();
        let named = |provider: &str| {
            model(&format!(
                r#"{{"model":{{"providerID":"{provider}","modelID":"a/b"}}}}"#
            ))
        };
        assert_eq!(named("litellm").as_deref(), Some("a/b"));
        assert_eq!(named("x").as_deref(), Some("x/a/b"));
        assert_eq!(model("{}"), None);
    }
}
