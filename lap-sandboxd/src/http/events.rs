//! The journal as a stream.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{HeaderValue, header};
use lap_harness::limits::KEEP_ALIVE;
use tokio::sync::watch;
use uuid::Uuid;

use crate::journal::Batch;
use crate::sandbox::Sandbox;

/// A comment, so that both sides notice a dead connection.
pub(super) const COMMENT: Bytes = Bytes::from_static(b": alive\n\n");

/// A reader's place.
struct Reader {
    sandbox: Arc<Sandbox>,
    head: watch::Receiver<u64>,
    after: u64,
    turn: Option<Uuid>,
    closing: bool,
}

/// Events after `after`, then live; with a turn the stream ends after that turn's last event.
pub(super) fn response(sandbox: Arc<Sandbox>, after: u64, turn: Option<Uuid>) -> Response {
    let head = sandbox.journal.watch();
    let reader = Reader {
        sandbox,
        head,
        after,
        turn,
        closing: false,
    };
    sse(stream::unfold(reader, |mut reader| async move {
        let frames = reader.next().await?;
        Some((Ok(frames), reader))
    }))
}

/// An event stream as an answer.
pub(super) fn sse(frames: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.head.mark_unchanged();
            let until = self.turn.and_then(|turn| self.sandbox.turns.ended_at(turn));
            match self.sandbox.journal.read(self.after, until) {
                Batch::Frames { frames, last } => {
                    self.after = last;
                    return Some(frames);
                }
                Batch::Nothing if until.is_some_and(|until| self.after >= until) => return None,
                Batch::Nothing if self.closing => return None,
                Batch::Nothing => {}
            }
            tokio::select! {
                changed = self.head.changed() => changed.ok()?,
                // One more look: the running turn's end may have come in the same moment.
                () = self.sandbox.close.cancelled() => self.closing = true,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(COMMENT),
            }
        }
    }
}
