//! Frames of event streams.
//!
//! The original's frames (`ready`, `harness_event`, `done`, `error`) keep their shape, so its clients go on
//! working; they ignore types they do not know. What the platform itself has to say comes as frames of their own
//! type, e.g. `session.phase` or `turn.finished`. Frames of stored events carry an SSE `id`; what a harness says this
//! moment does not, and a frame with nothing but an id follows once it is stored.

use axum::response::sse;
use lap_core::engine::StreamItem;
use lap_core::event::Event;
use serde_json::{Value, json};

/// One frame; without data it only moves the client's `Last-Event-ID`.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame {
    id: Option<u64>,
    data: Option<Value>,
}

impl Frame {
    /// A frame that is not a stored event.
    pub(crate) fn of(data: Value) -> Self {
        Self {
            id: None,
            data: Some(data),
        }
    }

    pub(crate) fn ready() -> Self {
        Self::of(json!({ "type": "ready" }))
    }

    pub(crate) fn done() -> Self {
        Self::of(json!({ "type": "done" }))
    }

    pub(crate) fn error(message: &str, code: &str) -> Self {
        Self::of(json!({ "type": "error", "message": message, "code": code }))
    }

    /// A harness event that is not a stored one.
    pub(crate) fn harness_event(kind: &str, properties: Value) -> Self {
        Self::of(json!({ "type": "harness_event", "event": { "type": kind, "properties": properties } }))
    }

    /// As the original's `/events` and `/message_stream` send it.
    pub(crate) fn wrapped(item: StreamItem) -> Self {
        match item {
            StreamItem::Event(event) => Self {
                id: Some(event.id),
                data: Some(wrapped(event)),
            },
            StreamItem::Live {
                turn,
                kind,
                properties,
            } => {
                let mut data =
                    json!({ "type": "harness_event", "event": { "type": kind, "properties": properties } });
                if let Some(turn) = turn {
                    data["turn_id"] = turn.to_string().into();
                }
                Self::of(data)
            }
            other => Self::about_the_stream(other),
        }
    }

    /// As the original's `/stream` sends it: what the harness said, without a wrapping.
    pub(crate) fn raw(item: StreamItem) -> Self {
        match item {
            StreamItem::Event(event) if is_ours(&event) => Self {
                id: Some(event.id),
                data: Some(wrapped(event)),
            },
            StreamItem::Event(event) => {
                let data = json!({ "type": event.kind, "properties": event.body });
                Self {
                    id: Some(event.id),
                    data: Some(data),
                }
            }
            StreamItem::Live { kind, properties, .. } => {
                Self::of(json!({ "type": kind, "properties": properties }))
            }
            other => Self::about_the_stream(other),
        }
    }

    fn about_the_stream(item: StreamItem) -> Self {
        match item {
            StreamItem::Reset { first_kept } => {
                Self::of(json!({ "type": "reset", "first_kept": first_kept }))
            }
            StreamItem::Draining { resume_after } => {
                Self::of(json!({ "type": "draining", "resume_after": resume_after }))
            }
            StreamItem::Passed { id } => Self {
                id: Some(id),
                data: None,
            },
            StreamItem::Event(_) | StreamItem::Live { .. } => Self { id: None, data: None },
        }
    }

    /// The bytes' source.
    pub(crate) fn into_sse(self) -> sse::Event {
        let mut event = sse::Event::default();
        if let Some(id) = self.id {
            event = event.id(id.to_string());
        }
        match self.data {
            Some(data) => event.data(data.to_string()),
            None => event,
        }
    }
}

/// Whether the platform itself says this. Harnesses are not trusted, so the kind alone proves nothing; what they
/// say has a number of their journal.
pub(crate) const fn is_ours(event: &Event) -> bool {
    event.origin.is_none()
}

fn wrapped(event: Event) -> Value {
    let mut data = if is_ours(&event) {
        json!({ "type": event.kind, "properties": event.body })
    } else {
        json!({ "type": "harness_event", "event": { "type": event.kind, "properties": event.body } })
    };
    data["id"] = event.id.into();
    data["at"] = event.at.to_iso8601().into();
    if let Some(turn) = event.turn {
        data["turn_id"] = turn.to_string().into();
    }
    data
}

#[cfg(test)]
mod tests {
    use lap_core::id::SessionId;
    use lap_core::time::Timestamp;

    use super::*;

    fn event(kind: &str, origin: Option<u64>) -> Event {
        Event {
            session: SessionId::from_uuid(uuid::Uuid::nil()),
            id: 7,
            kind: kind.to_owned(),
            turn: None,
            body: json!({ "outcome": "completed" }),
            at: Timestamp::from_unix_millis(0),
            origin,
        }
    }

    #[test]
    fn a_harness_cannot_speak_for_the_platform() {
        for dialect in [Frame::wrapped, Frame::raw] {
            let ours = dialect(StreamItem::Event(event("turn.finished", None)));
            let theirs = dialect(StreamItem::Event(event("turn.finished", Some(3))));
            assert_ne!(ours, theirs);
            assert_eq!(ours.data.unwrap()["at"], "1970-01-01T00:00:00.000Z");
        }
        let theirs = Frame::wrapped(StreamItem::Event(event("session.ended", Some(3))));
        assert_eq!(theirs.data.unwrap()["type"], "harness_event");
    }

    #[test]
    fn a_frame_without_data_is_an_id_alone() {
        let passed = Frame::wrapped(StreamItem::Passed { id: 9 });
        assert_eq!(
            passed,
            Frame {
                id: Some(9),
                data: None
            }
        );
        let reset = Frame::raw(StreamItem::Reset { first_kept: 5 });
        assert_eq!(reset.data.unwrap(), json!({ "type": "reset", "first_kept": 5 }));
    }
}
