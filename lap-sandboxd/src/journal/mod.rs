//! The event journal: everything the harness said, in order, kept until retention removes it.
//!
//! An event is written to its file before anybody sees it, so a sequence that left the process is never used
//! again, whatever kills the process. Nothing is synced to the medium: the sandbox does not outlive its machine.

mod disk;
mod wire;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use lap_harness::journal::{JournalEvent, PartDelta};
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use crate::locked;
use disk::Disk;

/// How much is kept. What exceeds it is removed oldest first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// The size at which a file is closed and the next begun.
    pub(crate) segment_bytes: u64,
    /// The size of all files together.
    pub(crate) disk_bytes: u64,
    /// The events kept in memory for readers who are nearly up to date.
    pub(crate) memory_events: usize,
    /// Their size.
    pub(crate) memory_bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 20,
            disk_bytes: 32 << 20,
            memory_events: 4096,
            memory_bytes: 2 << 20,
        }
    }
}

/// The most that one read gives.
const BATCH_BYTES: usize = 256 * 1024;

/// What a reader gets.
#[derive(Debug)]
pub(crate) enum Batch {
    /// Whole SSE frames, the last of them with sequence `last`.
    Frames { frames: Bytes, last: u64 },
    /// Nothing after the reader's place yet.
    Nothing,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Journal {
    inner: Mutex<Inner>,
    head: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    disk: Disk,
    recent: VecDeque<(u64, Bytes)>,
    recent_bytes: usize,
    retention: Retention,
    next: u64,
}

impl Journal {
    /// Reads where an earlier life stopped, or begins at 1.
    pub(crate) fn open(folder: &Path, retention: Retention) -> io::Result<Self> {
        let (disk, next) = Disk::open(folder, retention)?;
        let inner = Inner {
            disk,
            recent: VecDeque::new(),
            recent_bytes: 0,
            retention,
            next,
        };
        Ok(Self {
            inner: Mutex::new(inner),
            head: watch::Sender::new(next - 1),
        })
    }

    /// Appends an event; returns its sequence.
    pub(crate) fn append(&self, turn: Option<Uuid>, kind: &str, properties: Value) -> u64 {
        let mut inner = locked(&self.inner);
        let event = JournalEvent {
            seq: inner.next,
            turn,
            kind: kind.to_owned(),
            properties,
        };
        let json = wire::bounded_json(event);
        let seq = inner.push(&json, |disk| disk.write_event(&json));
        drop(inner);
        self.head.send_modify(|head| *head = seq.max(*head));
        seq
    }

    /// Appends a piece of streamed text; returns its sequence.
    pub(crate) fn append_delta(&self, turn: Uuid, delta: &PartDelta) -> u64 {
        let mut inner = locked(&self.inner);
        let json = wire::delta_json(inner.next, turn, delta);
        let seq = inner.push(&json, |disk| disk.write_delta(turn, delta, &json));
        drop(inner);
        self.head.send_modify(|head| *head = seq.max(*head));
        seq
    }

    /// The last sequence, 0 before the first event.
    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Changes whenever there is something new, or when [`Self::nudge`] is called.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Wakes all readers, because something besides the journal changed what they wait for.
    pub(crate) fn nudge(&self) {
        self.head.send_modify(|_| {});
    }

    /// What follows `after`, up to `until` where given. A reader whose place is unknown here (removed, or of
    /// another life) first gets a `journal.reset`.
    pub(crate) fn read(&self, after: u64, until: Option<u64>) -> Batch {
        let inner = locked(&self.inner);
        let until = until.unwrap_or(u64::MAX);
        if after > inner.next - 1 || after + 1 < inner.oldest() {
            let oldest = inner.oldest();
            return Batch::Frames {
                frames: wire::reset_frame(oldest),
                last: oldest - 1,
            };
        }
        if after + 1 == inner.next || after >= until {
            return Batch::Nothing;
        }
        if inner.recent.front().is_some_and(|(first, _)| *first <= after + 1) {
            return inner.read_recent(after, until);
        }
        inner.read_disk(after, until)
    }

    /// Events from `first` on, for a look back at start.
    pub(crate) fn look_back(&self, first: u64) -> Vec<JournalEvent> {
        let inner = locked(&self.inner);
        let mut events = Vec::new();
        let mut after = first.max(inner.oldest()) - 1;
        while let Ok(found) = inner.disk.read_after(after, usize::MAX) {
            let Some(last) = found.last() else { break };
            after = last.seq;
            events.extend(found);
        }
        events
    }
}

impl Inner {
    fn push(&mut self, json: &str, write: impl FnOnce(&mut Disk) -> io::Result<()>) -> u64 {
        let seq = self.next;
        if let Err(error) = self.disk.begin_event(seq).and_then(|()| write(&mut self.disk)) {
            // Live readers still get the event. The file misses it, which a later life repairs by going on
            // after the last sequence it finds.
            tracing::error!(%error, seq, "the journal cannot be written");
        }
        self.next += 1;
        let frame = wire::frame(seq, json);
        self.recent_bytes += frame.len();
        self.recent.push_back((seq, frame));
        while self.recent.len() > self.retention.memory_events
            || self.recent_bytes > self.retention.memory_bytes
        {
            let Some((_, frame)) = self.recent.pop_front() else {
                break;
            };
            self.recent_bytes -= frame.len();
        }
        seq
    }

    fn oldest(&self) -> u64 {
        let in_memory = self.recent.front().map_or(self.next, |(first, _)| *first);
        self.disk.oldest().unwrap_or(in_memory).min(in_memory)
    }

    fn read_recent(&self, after: u64, until: u64) -> Batch {
        let first = self.recent.front().map_or(0, |(first, _)| *first);
        let skip = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let mut frames = BytesMut::new();
        let mut last = after;
        for (seq, frame) in self.recent.iter().skip(skip) {
            if *seq > until || (!frames.is_empty() && frames.len() + frame.len() > BATCH_BYTES) {
                break;
            }
            frames.extend_from_slice(frame);
            last = *seq;
        }
        Batch::Frames {
            frames: frames.freeze(),
            last,
        }
    }

    fn read_disk(&self, after: u64, until: u64) -> Batch {
        match self.disk.read_after(after, BATCH_BYTES) {
            Ok(events) if !events.is_empty() => {
                let mut frames = BytesMut::new();
                let mut last = after;
                for event in events.into_iter().filter(|event| event.seq <= until) {
                    last = event.seq;
                    frames.extend_from_slice(&wire::frame(event.seq, &wire::bounded_json(event)));
                }
                Batch::Frames {
                    frames: frames.freeze(),
                    last,
                }
            }
            unreadable => {
                if let Err(error) = unreadable {
                    tracing::error!(%error, after, "the journal cannot be read");
                }
                let oldest = self.recent.front().map_or(self.next, |(first, _)| *first);
                Batch::Frames {
                    frames: wire::reset_frame(oldest),
                    last: oldest - 1,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
