use std::collections::BTreeMap;

use lap_core::engine::StreamItem;
use serde_json::Value;

use crate::crash::Broken;

/// What one reader of a session's stream has got, and what it may get next.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The last durable event. `None`: the first one decides.
    pub(super) last: Option<u64>,
    /// The end of the text that was got of each part. A reader that begins in the middle knows no beginning.
    texts: BTreeMap<String, u64>,
    /// It read from the first event on, so it must know every text from its beginning.
    from_start: bool,
}

impl Reader {
    pub(super) fn from(after: Option<u64>) -> Self {
        Self {
            last: after,
            texts: BTreeMap::new(),
            from_start: after == Some(0),
        }
    }

    /// The next item of the stream.
    pub(super) fn take(&mut self, item: &StreamItem) -> Result<(), Broken> {
        match item {
            StreamItem::Event(event) => {
                self.step(event.id)?;
                if event.kind == "message.part.delta" {
                    self.delta(&event.body, true)?;
                }
            }
            StreamItem::Passed { id } => self.step(*id)?,
            StreamItem::Live { kind, properties, .. } if kind == "message.part.delta" => {
                self.delta(properties, false)?;
            }
            StreamItem::Live { .. } => {}
            StreamItem::Reset { .. } => return Err("nothing was removed, and a stream says so".to_owned()),
            StreamItem::Draining { resume_after } => {
                if self.last.is_some_and(|last| last != *resume_after) {
                    return Err(format!(
                        "a reader at {:?} shall resume after {resume_after}",
                        self.last
                    ));
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, id: u64) -> Result<(), Broken> {
        match self.last {
            Some(last) if id != last + 1 => Err(format!("a stream tells event {id} after {last}")),
            _ => {
                self.last = Some(id);
                Ok(())
            }
        }
    }

    /// What is told live may leave a hole, which the stored events fill. Stored ones leave none.
    fn delta(&mut self, body: &Value, is_stored: bool) -> Result<(), Broken> {
        let part = body["partID"].as_str().unwrap_or_default();
        let text = body["delta"].as_str().unwrap_or_default();
        let offset = body["offset"].as_u64().unwrap_or(0);
        let unknown = if self.from_start { 0 } else { offset };
        let known = self.texts.entry(part.to_owned()).or_insert(unknown);
        if offset <= *known {
            *known = (*known).max(offset + text.len() as u64);
            Ok(())
        } else if is_stored {
            Err(format!(
                "a stream leaves out text before {offset}, only {known} bytes are known: {body}"
            ))
        } else {
            Ok(())
        }
    }

    /// How much of a part's text was got.
    pub(super) fn known(&self, part: &str) -> Option<u64> {
        self.texts.get(part).copied()
    }
}
