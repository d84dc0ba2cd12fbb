use std::collections::{BTreeMap, BTreeSet};

use lap_core::event::Event;
use lap_core::turn::{Turn, TurnState};
use serde_json::Value;

use super::invariants::Broken;
use super::stage::GATEWAY_SECRET;

/// What the log of one session has told so far.
#[derive(Debug, Default)]
pub(super) struct Log {
    head: u64,
    /// The newest journal number that was taken from the session's present sandbox.
    origin: u64,
    finished: BTreeSet<String>,
    /// The text of each part, put together from its deltas.
    texts: BTreeMap<String, String>,
}

impl Log {
    pub(super) const fn head(&self) -> u64 {
        self.head
    }

    /// The next event.
    pub(super) fn take(&mut self, event: &Event) -> Result<(), Broken> {
        if event.id != self.head + 1 {
            return Err(format!(
                "event {} of {} follows {}",
                event.id, event.session, self.head
            ));
        }
        self.head = event.id;
        if event.body.to_string().contains(GATEWAY_SECRET) {
            return Err(format!("an event shows a secret: {event:?}"));
        }
        match event.origin {
            Some(origin) => self.ingest(event, origin),
            None => self.transition(event),
        }
    }

    /// An event of the platform's own.
    fn transition(&mut self, event: &Event) -> Result<(), Broken> {
        match event.kind.as_str() {
            // Another sandbox has a journal of its own.
            "session.ready" => self.origin = 0,
            "turn.finished" => {
                let turn = text(&event.body, "turn").to_owned();
                if !self.finished.insert(turn) {
                    return Err(format!("a second end of a turn is told: {event:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// An event from the journal of a sandbox.
    fn ingest(&mut self, event: &Event, origin: u64) -> Result<(), Broken> {
        if origin <= self.origin {
            let before = self.origin;
            return Err(format!(
                "journal entry {origin} was taken after {before}: {event:?}"
            ));
        }
        self.origin = origin;
        if event.kind == "message.part.delta" {
            let known = self
                .texts
                .entry(text(&event.body, "partID").to_owned())
                .or_default();
            if event.body["offset"].as_u64() != Some(known.len() as u64) {
                return Err(format!("text is lost or doubled after {known:?}: {event:?}"));
            }
            known.push_str(text(&event.body, "delta"));
        }
        Ok(())
    }

    /// The log and the turn tell the same.
    pub(super) fn check_turn(&self, turn: &Turn) -> Result<(), Broken> {
        let told = self.finished.contains(&turn.id.to_string());
        if told != turn.state.is_terminal() {
            return Err(format!("the end of a turn is told: {told}, but it is {turn:?}"));
        }
        if turn.state != TurnState::Completed {
            return Ok(());
        }
        let part = turn.reply.as_ref().map(|reply| &reply["parts"][0]);
        let part = part.ok_or_else(|| format!("a completed turn has no reply: {turn:?}"))?;
        let told = self.texts.get(text(part, "id")).map_or("", String::as_str);
        if told == text(part, "text") {
            Ok(())
        } else {
            Err(format!("the log tells {told:?} of the reply {part}"))
        }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
