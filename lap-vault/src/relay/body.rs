use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::exchange::{Exchange, Meter};
use crate::redeem::{Reason, Scrubber};

/// A body that was ended early, and why.
#[derive(Debug)]
pub(super) struct Cut(pub(super) Reason);

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.code())
    }
}

impl std::error::Error for Cut {}

/// Measures silence while somebody waits for data. Time in which nobody asks does not count.
#[derive(Debug)]
struct Silence {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Silence {
    const fn new(limit: Duration) -> Self {
        Self {
            limit,
            sleep: None,
            waiting: false,
        }
    }

    const fn broken(&mut self) {
        self.waiting = false;
    }

    fn is_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(self.limit)));
        if !self.waiting {
            sleep.as_mut().reset(Instant::now() + self.limit);
            self.waiting = true;
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}

/// The request body on its way to the gateway: counted, bounded, never collected.
#[derive(Debug)]
pub(super) struct UploadBody {
    inner: Incoming,
    meter: Arc<Meter>,
    limit: u64,
    silence: Silence,
}

impl UploadBody {
    pub(super) const fn new(inner: Incoming, meter: Arc<Meter>, limit: u64, silence: Duration) -> Self {
        Self {
            inner,
            meter,
            limit,
            silence: Silence::new(silence),
        }
    }

    fn fail(&self, reason: Reason) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        Poll::Ready(Some(Err(Cut(*self.meter.fault.get_or_init(|| reason)))))
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
                if self.silence.is_too_long(cx) {
                    return self.fail(Reason::ClientTimeout);
                }
                return Poll::Pending;
            };
            self.silence.broken();
            match frame {
                None => return Poll::Ready(None),
                // The connection to the client broke; the upstream must not take the rest for complete.
                Some(Err(_)) => return Poll::Ready(Some(Err(Cut(Reason::ClientTimeout)))),
                Some(Ok(frame)) => {
                    // Trailers could carry what the header rules removed, and no model call has any.
                    let Ok(data) = frame.into_data() else { continue };
                    let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    let total = self
                        .meter
                        .bytes_in
                        .fetch_add(size, Ordering::Relaxed)
                        .saturating_add(size);
                    if total > self.limit {
                        return self.fail(Reason::BodyTooLarge);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The gateway's answer on its way to the client: scrubbed as it streams, ended when the sandbox ends.
#[derive(Debug)]
pub(super) struct AnswerBody {
    inner: Incoming,
    scrubber: Scrubber,
    exchange: Exchange,
    silence: Silence,
    ended: bool,
}

impl AnswerBody {
    pub(super) const fn new(
        inner: Incoming,
        scrubber: Scrubber,
        exchange: Exchange,
        silence: Duration,
    ) -> Self {
        Self {
            inner,
            scrubber,
            exchange,
            silence: Silence::new(silence),
            ended: false,
        }
    }

    fn fail(&mut self, reason: Reason) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.ended = true;
        Poll::Ready(Some(Err(Cut(*self.exchange.meter.fault.get_or_init(|| reason)))))
    }

    fn pass(&self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.exchange.meter.bytes_out.fetch_add(size, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Reason>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            return if self.silence.is_too_long(cx) {
                Poll::Ready(Err(Reason::UpstreamTimeout))
            } else {
                Poll::Pending
            };
        };
        self.silence.broken();
        Poll::Ready(frame.transpose().map_err(|_| Reason::UpstreamFailed))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            if this.exchange.is_detached() {
                return this.fail(Reason::Detached);
            }
            match ready!(this.poll_inner(cx)) {
                Err(reason) => return this.fail(reason),
                Ok(Some(frame)) => {
                    // Trailers are dropped: they are not scrubbed and no model answer has any.
                    let Ok(data) = frame.into_data() else { continue };
                    let data = this.scrubber.push(data);
                    if !data.is_empty() {
                        return this.pass(data);
                    }
                }
                Ok(None) => {
                    this.ended = true;
                    this.exchange.finish();
                    let rest = this.scrubber.finish();
                    if !rest.is_empty() {
                        return this.pass(rest);
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.inner.is_end_stream() && self.scrubber.held() == 0)
    }

    fn size_hint(&self) -> SizeHint {
        let held = u64::try_from(self.scrubber.held()).unwrap_or(u64::MAX);
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(held));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // hyper does not ask for the end of a body whose announced length has passed.
        if self.inner.is_end_stream() && self.scrubber.held() == 0 {
            self.exchange.finish();
        }
    }
}
