//! Streams of a session: the durable log from any point, and what the harness says now.
//!
//! A durable event has an id and is the thing to resume from. What a harness says is delivered at once, without
//! an id, to readers in the process that runs the turn. When it has been stored, such a reader gets only the id.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::stream::{BoxStream, unfold};
use serde_json::Value;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::Engine;
use super::core::Core;
use super::live::Live;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::harness::HarnessEvent;
use crate::id::{SessionId, TurnId};

/// Events read from the store at once.
const PAGE: u32 = 256;

/// One thing a reader gets.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamItem {
    /// A stored event.
    Event(Event),
    /// A harness says this now. It has no id yet.
    Live {
        /// The turn it belongs to.
        turn: Option<TurnId>,
        /// opencode's event name.
        kind: String,
        /// The event's properties.
        properties: Value,
    },
    /// What this reader saw live is stored now under this id.
    Passed {
        /// The id to resume after.
        id: u64,
    },
    /// The asked point is no longer kept; the events from here on follow.
    Reset {
        /// The oldest id that is kept.
        first_kept: u64,
    },
    /// The process is shutting down. Connect again after this id.
    Draining {
        /// The id to resume after.
        resume_after: u64,
    },
}

/// A stream of [`StreamItem`]s. It ends after the end of the session, after [`StreamItem::Draining`], and after an error.
pub struct SessionStream {
    inner: BoxStream<'static, Result<StreamItem>>,
}

impl std::fmt::Debug for SessionStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionStream")
    }
}

impl Stream for SessionStream {
    type Item = Result<StreamItem>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(context)
    }
}

impl Engine {
    /// The session's events after this id and everything that follows; `None`: from now on.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn stream(&self, session: SessionId, after: Option<u64>) -> Result<SessionStream> {
        // The subscription comes before the first read, so that nothing falls between them.
        let live = self.core.live.subscribe(session);
        let head = self.core.parts.store.events(session, u64::MAX, 1).await?;
        let head = head
            .ok_or_else(|| Error::not_found("stream events", "session", session))?
            .head;
        let last = after.unwrap_or(head).min(head);
        let stored_to = self.core.journal_of(session, last).await?;
        let reader = Reader {
            core: Arc::clone(&self.core),
            session,
            live,
            last,
            stored_to,
            live_since: 0,
            seen_live: 0,
            behind: true,
            ready: VecDeque::new(),
            ended: false,
        };
        let inner = Box::pin(unfold(reader, |mut reader| async {
            reader.next().await.map(|item| (item, reader))
        }));
        Ok(SessionStream { inner })
    }
}

impl Core {
    /// The journal number of the last event up to this id that came from a harness; 0 when none of the last few did.
    /// Then the reader gets some events a second time, which does no harm.
    async fn journal_of(&self, session: SessionId, last: u64) -> Result<u64> {
        const FEW: u32 = 16;
        if last == 0 {
            return Ok(0);
        }
        let before = last.saturating_sub(FEW.into());
        let page = self.parts.store.events(session, before, FEW).await?;
        let events = page.map(|page| page.events).unwrap_or_default();
        let of_this_sandbox = events
            .iter()
            .rev()
            .take_while(|event| event.origin.is_some() || event.kind != "session.ready");
        Ok(of_this_sandbox
            .filter_map(|event| event.origin)
            .next()
            .unwrap_or(0))
    }
}

struct Reader {
    core: Arc<Core>,
    session: SessionId,
    live: Receiver<Live>,
    /// The last stored event this reader got.
    last: u64,
    /// The journal number of the last stored event this reader got; 0 when there is none or it is not known.
    stored_to: u64,
    /// The reader got live everything after this journal number, up to `seen_live`.
    live_since: u64,
    /// The last journal number this reader got live.
    seen_live: u64,
    /// The store may have more.
    behind: bool,
    ready: VecDeque<StreamItem>,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<StreamItem>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            if self.ended {
                return None;
            }
            if self.behind {
                if let Err(error) = self.read().await {
                    self.ended = true;
                    return Some(Err(error));
                }
                continue;
            }
            self.listen().await;
        }
    }

    async fn read(&mut self) -> Result<()> {
        let page = self
            .core
            .parts
            .store
            .events(self.session, self.last, PAGE)
            .await?;
        let page = page.ok_or_else(|| Error::not_found("stream events", "session", self.session))?;
        if page.first_kept > self.last + 1 {
            self.ready.push_back(StreamItem::Reset {
                first_kept: page.first_kept,
            });
            self.last = page.first_kept - 1;
        }
        self.behind = page.events.len() == PAGE as usize;
        for event in page.events {
            self.pass(event);
        }
        if !self.behind && self.ready.is_empty() {
            let session = self.core.session(self.session).await?;
            self.ended = !session.state.is_active();
        }
        Ok(())
    }

    async fn listen(&mut self) {
        let core = Arc::clone(&self.core);
        let heard = tokio::select! {
            biased;
            () = core.draining.cancelled() => {
                self.ready.push_back(StreamItem::Draining { resume_after: self.last });
                self.ended = true;
                return;
            }
            heard = self.live.recv() => heard,
        };
        match heard {
            Ok(Live::Said { event, since }) => self.say(&event, since),
            Ok(Live::Stored(event)) if event.id == self.last + 1 => self.pass((*event).clone()),
            Ok(Live::Stored(event)) => self.behind |= event.id > self.last,
            Ok(Live::Look) | Err(RecvError::Lagged(_)) => self.behind = true,
            Err(RecvError::Closed) => {
                self.live = self.core.live.subscribe(self.session);
                self.behind = true;
            }
        }
    }

    fn say(&mut self, event: &HarnessEvent, since: u64) {
        if event.seq <= self.seen_live.max(self.stored_to) {
            return;
        }
        if since > self.seen_live {
            // Something was said before this reader listened, or while it was too slow.
            self.live_since = since;
        }
        self.seen_live = event.seq;
        self.ready.push_back(StreamItem::Live {
            turn: event.turn,
            kind: event.kind.clone(),
            properties: event.properties.clone(),
        });
    }

    fn pass(&mut self, event: Event) {
        if event.id <= self.last {
            return;
        }
        self.last = event.id;
        if event.origin.is_none() && matches!(event.kind.as_str(), "session.ended" | "session.failed") {
            // Nothing may follow that would make this reader look whether the session is over.
            self.behind = true;
        }
        if event.origin.is_none() && event.kind == "session.ready" {
            // Another sandbox has a journal of its own. A harness cannot say this: its events have an origin.
            (self.stored_to, self.live_since, self.seen_live) = (0, 0, 0);
        }
        // A stored event may hold several of the journal: all after the one stored before, up to its origin.
        let before = self.stored_to;
        let seen = event.origin.is_some_and(|origin| {
            self.stored_to = origin;
            self.live_since <= before && origin <= self.seen_live
        });
        self.ready.push_back(if seen {
            StreamItem::Passed { id: event.id }
        } else {
            StreamItem::Event(event)
        });
    }
}
