//! A live view of a sandbox's journal.

use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use lap_core::error::{Error, ErrorKind, Result};

use super::answer::invalid;
use crate::journal::{JOURNAL_RESET, JournalEvent};
use crate::limits::{KEEP_ALIVE, MAX_LINE_BYTES};
use crate::sse::SseParser;

const OPERATION: &str = "read the sandbox's events";

/// Journal events as they arrive, in order.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    parser: SseParser,
    last: u64,
    ended: bool,
}

impl EventStream {
    pub(super) fn new(answer: Response<Incoming>) -> Self {
        Self {
            body: answer.into_body(),
            parser: SseParser::new(MAX_LINE_BYTES),
            last: 0,
            ended: false,
        }
    }

    /// The next event, or `None` when the sandbox ended the stream.
    ///
    /// # Cancel safety
    /// If dropped, no event is lost.
    ///
    /// # Errors
    /// `Unavailable` when the connection breaks, falls silent or carries something else than a journal. Attach
    /// again after the last sequence that was seen.
    pub async fn next(&mut self) -> Result<Option<JournalEvent>> {
        while !self.ended {
            match self.parser.next_event() {
                Ok(Some(event)) => return self.check(&event.data).map(Some),
                Ok(None) => self.read().await?,
                Err(error) => {
                    self.ended = true;
                    return Err(invalid(OPERATION, &error.to_string()));
                }
            }
        }
        Ok(None)
    }

    fn check(&mut self, data: &str) -> Result<JournalEvent> {
        let expected = |event: &JournalEvent| {
            let follows = self.last == 0 || event.seq.checked_sub(1) == Some(self.last);
            event.seq > self.last && (follows || event.kind == JOURNAL_RESET)
        };
        let event = serde_json::from_str::<JournalEvent>(data).ok().filter(expected);
        let Some(event) = event else {
            self.ended = true;
            return Err(invalid(OPERATION, "an event is malformed or out of order"));
        };
        self.last = event.seq;
        Ok(event)
    }

    async fn read(&mut self) -> Result<()> {
        // Comments arrive every KEEP_ALIVE, so a longer silence means that nobody is there any more.
        let broken = match tokio::time::timeout(KEEP_ALIVE * 3, self.body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref() {
                    self.parser.push(bytes);
                }
                return Ok(());
            }
            Ok(None) => {
                self.ended = true;
                return Ok(());
            }
            Ok(Some(Err(error))) => {
                Error::new(ErrorKind::Unavailable, OPERATION, "the stream broke off").with_source(error)
            }
            Err(_) => Error::new(ErrorKind::Unavailable, OPERATION, "the stream fell silent"),
        };
        self.ended = true;
        Err(broken)
    }
}
