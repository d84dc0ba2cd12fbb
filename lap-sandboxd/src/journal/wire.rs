//! Events as readers see them.

use bytes::Bytes;
use lap_harness::journal::{JOURNAL_RESET, JournalEvent, PART_DELTA, PartDelta, TURN_FINISHED};
use lap_harness::limits::MAX_EVENT_BYTES;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Serialize)]
struct DeltaEvent<'a> {
    seq: u64,
    turn: Uuid,
    #[serde(rename = "type")]
    kind: &'a str,
    properties: &'a PartDelta,
}

/// The event as JSON of at most [`MAX_EVENT_BYTES`]. An event above it loses what makes it large, never its place.
pub(super) fn bounded_json(mut event: JournalEvent) -> String {
    let json = to_json(&event);
    if json.len() <= MAX_EVENT_BYTES {
        return json;
    }
    tracing::warn!(
        kind = event.kind,
        bytes = json.len(),
        "an event is too large and is cut"
    );
    if event.kind == TURN_FINISHED
        && event
            .properties
            .get("reply")
            .is_some_and(|reply| !reply.is_null())
    {
        // The outcome must arrive; the reply's text is in the journal already.
        event.properties["reply"] = Value::Null;
        return bounded_json(event);
    }
    event.properties = json!({"truncated": true});
    to_json(&event)
}

pub(super) fn delta_json(seq: u64, turn: Uuid, delta: &PartDelta) -> String {
    to_json(&DeltaEvent {
        seq,
        turn,
        kind: PART_DELTA,
        properties: delta,
    })
}

/// One SSE frame.
pub(super) fn frame(seq: u64, json: &str) -> Bytes {
    Bytes::from(format!("id: {seq}\ndata: {json}\n\n"))
}

/// Tells a reader where the journal begins now.
pub(super) fn reset_frame(oldest: u64) -> Bytes {
    let event = JournalEvent {
        seq: oldest - 1,
        turn: None,
        kind: JOURNAL_RESET.to_owned(),
        properties: json!({"oldest": oldest}),
    };
    frame(event.seq, &to_json(&event))
}

fn to_json(event: &impl Serialize) -> String {
    // Maps with text keys and numbers always have a JSON form, so the fallback is never seen.
    serde_json::to_string(event).unwrap_or_default()
}
