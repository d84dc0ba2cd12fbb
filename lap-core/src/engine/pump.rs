//! Takes what a harness says about one turn: readers get it at once, the store gets it in batches.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::time::Instant;

use super::run_turn::{End, Run};
use super::runs::Signals;
use crate::error::{ErrorKind, Result};
use crate::event::NewEvent;
use crate::harness::{HarnessEvent, HarnessEvents};
use crate::store::{Append, Appended, Ingest};
use crate::turn::{Outcome, TurnState};

/// Events are stored this long after the first of a batch, or when a batch has this many bytes.
const FLUSH_AFTER: Duration = Duration::from_millis(50);
const FLUSH_BYTES: usize = 4096;
/// How long a harness may take to end a turn that it was told to stop.
pub(super) const ABORT_GRACE: Duration = Duration::from_secs(10);

pub(super) const UNCONFIRMED: &str = "the turn was stopped; the harness did not confirm it";

const DELTA: &str = "message.part.delta";

/// See the [module](self).
pub(super) struct Pump<'a> {
    run: &'a Run<'a>,
    signals: &'a Signals,
    /// What the store has.
    stored: u64,
    /// What was taken from the stream.
    taken: u64,
    /// The last of it that was for readers.
    said: u64,
    batch: Vec<NewEvent>,
    bytes: usize,
    flush_at: Option<Instant>,
    stop_at: Option<(Instant, Outcome)>,
    /// Reconnections since the last event.
    reconnects: u32,
}

impl<'a> Pump<'a> {
    pub(super) fn new(run: &'a Run<'a>, cursor: u64, signals: &'a Signals) -> Self {
        Self {
            run,
            signals,
            stored: cursor,
            taken: cursor,
            said: cursor,
            batch: Vec::new(),
            bytes: 0,
            flush_at: None,
            stop_at: None,
            reconnects: 0,
        }
    }

    /// Takes events until the turn has its outcome.
    pub(super) async fn run(mut self, mut events: HarnessEvents) -> Result<End> {
        loop {
            let flush_at = self.flush_at;
            let give_up = self.stop_at.as_ref().map_or(self.run.deadline, |(at, _)| *at);
            tokio::select! {
                biased;
                // The talk comes last, so that no harness can talk its way past a stop or a deadline.
                () = self.signals.stopped(self.run.turn.id), if self.stop_at.is_none() => {
                    self.stop(Outcome::aborted(UNCONFIRMED)).await;
                }
                () = tokio::time::sleep_until(give_up) => {
                    if let Some((_, outcome)) = self.stop_at.take() {
                        return Ok(End::Outcome(Box::new(outcome), self.last()));
                    }
                    self.stop(Outcome::failed("the turn took longer than the platform allows and was stopped")).await;
                }
                () = until(flush_at) => if !self.flush().await? {
                    return Ok(End::NotOurs);
                },
                event = events.next() => match event {
                    Some(Ok(event)) => if let Some(end) = self.take(event).await? {
                        return Ok(end);
                    },
                    Some(Err(error)) if error.kind() == ErrorKind::Stale => return Ok(End::NotOurs),
                    _ => match self.reconnect().await? {
                        Ok(again) => events = again,
                        Err(end) => return Ok(end),
                    },
                },
            }
        }
    }

    /// Tells the harness to stop; if it does not answer in time the turn gets `outcome`.
    async fn stop(&mut self, outcome: Outcome) {
        self.stop_at = Some((Instant::now() + ABORT_GRACE, outcome));
        self.run.abort().await;
    }

    async fn take(&mut self, event: HarnessEvent) -> Result<Option<End>> {
        if event.seq <= self.taken {
            return Ok(None);
        }
        self.reconnects = 0;
        if let Some(ended) = &event.outcome {
            if event.turn != Some(self.run.turn.id) {
                // The end of an earlier turn, before which the cursor was kept.
                self.taken = event.seq;
                return Ok(None);
            }
            // The cursor stays before the end until the outcome is stored: whoever takes over in between finds the
            // end again. Readers learn it from the stored outcome.
            let ended = self.settle(ended.clone());
            return Ok(Some(End::Outcome(Box::new(ended), self.last())));
        }
        self.taken = event.seq;
        let event = Arc::new(event);
        self.run.core.live.say(
            self.run.turn.session,
            &event,
            std::mem::replace(&mut self.said, event.seq),
        );
        self.gather(&event);
        if self.bytes >= FLUSH_BYTES && !self.flush().await? {
            return Ok(Some(End::NotOurs));
        }
        Ok(None)
    }

    /// A turn that was stopped for its deadline has failed, even if the harness calls it aborted.
    fn settle(&mut self, ended: Outcome) -> Outcome {
        match self.stop_at.take() {
            Some((_, ours)) if ours.state == TurnState::Failed && ended.state == TurnState::Aborted => {
                Outcome {
                    reply: ended.reply,
                    usage: ended.usage,
                    ..ours
                }
            }
            _ => ended,
        }
    }

    /// Adds the event to the batch. Deltas that continue the last one are joined with it.
    fn gather(&mut self, event: &HarnessEvent) {
        self.flush_at.get_or_insert_with(|| Instant::now() + FLUSH_AFTER);
        if event.kind == DELTA
            && let Some(last) = self.batch.last_mut()
            && let Some(bytes) = join(last, event)
        {
            self.bytes += bytes;
            return;
        }
        self.bytes += 128;
        self.batch.push(NewEvent {
            kind: event.kind.clone(),
            turn: Some(self.run.turn.id),
            body: event.properties.clone(),
            origin: Some(event.seq),
        });
    }

    /// What was taken and is not stored yet.
    fn last(&mut self) -> Option<Append> {
        self.flush_at = None;
        self.bytes = 0;
        (self.taken > self.stored).then(|| Append {
            session: self.run.turn.session,
            hold: Some(self.run.item.hold.clone()),
            ingest: Some(Ingest {
                source: self.run.sandbox,
                expected: self.stored,
                cursor: self.taken,
            }),
            running: Some(self.run.turn.id),
            events: std::mem::take(&mut self.batch),
        })
    }

    /// `false` when the hold is lost.
    async fn flush(&mut self) -> Result<bool> {
        let session = self.run.turn.session;
        let Some(append) = self.last() else {
            return Ok(true);
        };
        let mut pause = Duration::from_millis(50);
        loop {
            match self.run.core.flusher.append(append.clone()).await {
                Ok(Appended::Done(events)) => {
                    self.stored = self.taken;
                    self.run.core.live.stored(session, events);
                    self.run.core.tell_others(session);
                    return Ok(true);
                }
                // The reply to an earlier attempt was lost.
                Ok(Appended::CursorAt(at)) if at == self.taken => {
                    self.stored = at;
                    self.run.core.changed(session);
                    return Ok(true);
                }
                Ok(Appended::Stale | Appended::CursorAt(_) | Appended::NoSession) => return Ok(false),
                Err(error) if error.is_retryable() && Instant::now() < self.run.deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The stream broke off. The turn goes on in the sandbox, so the journal is read on.
    async fn reconnect(&mut self) -> Result<Result<HarnessEvents, End>> {
        let mut pause = Duration::from_millis(20);
        self.reconnects += 1;
        if self.reconnects > 1 {
            // The last connection brought nothing.
            tokio::time::sleep((pause * self.reconnects).min(Duration::from_secs(1))).await;
        }
        loop {
            match self.run.attach(self.taken).await {
                Ok(events) => return Ok(Ok(events)),
                Err(error) if error.kind() == ErrorKind::Stale => return Ok(Err(End::NotOurs)),
                Err(error) => {
                    if let Some(end) = self.run.unreachable(&error).await? {
                        return Ok(Err(end));
                    }
                }
            }
            if self.stop_at.is_none() && self.signals.is_stopped(self.run.turn.id) {
                self.stop(Outcome::aborted(UNCONFIRMED)).await;
            }
            if let Some((at, outcome)) = &self.stop_at
                && Instant::now() >= *at
            {
                return Ok(Err(End::Outcome(Box::new(outcome.clone()), self.last())));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Joins a delta with the one before it when it continues the same text; returns the bytes added.
fn join(last: &mut NewEvent, delta: &HarnessEvent) -> Option<usize> {
    let same = |name: &str| last.body.get(name) == delta.properties.get(name);
    if last.kind != DELTA || !same("messageID") || !same("partID") || !same("field") {
        return None;
    }
    let added = delta.properties.get("delta")?.as_str()?.to_owned();
    let Some(Value::String(text)) = last.body.get_mut("delta") else {
        return None;
    };
    text.push_str(&added);
    last.origin = Some(delta.seq);
    Some(added.len())
}
