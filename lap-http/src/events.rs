//! Streams of a session's events (SSE).
//!
//! A plain request behaves like the original's: from now on, until the turn that runs or comes next is over. With
//! `follow=1`, `after` or `Last-Event-ID` the stream is a view of the session's log that stays open until the
//! session ends, and begins where the client left off.

use std::convert::Infallible;
use std::pin::Pin;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, StatusCode, header};
use lap_core::engine::StreamItem;
use lap_core::id::SessionId;
use serde_json::json;

use crate::app::App;
use crate::path::SessionPath;
use crate::problem::Problem;
use crate::query::Parameters;
use crate::request::{RECONNECT, log_stream_error};
use crate::wire::frame::{Frame, is_ours};

/// Streams events as `{type: "harness_event", event}`, and the platform's own as `{type, properties}`. Stored events carry
/// an SSE `id`; what a harness says this moment does not. After `Last-Event-ID` (or `after`) the stream goes on without gap or repetition.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/events", tag = "events",
    params(("session_id" = String, Path),
        ("after" = Option<u64>, Query, description = "After the event with this id; 0 for all there are"),
        ("follow" = Option<String>, Query, description = "`1`: stay open until the session ends"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Like `after`, and goes before it")),
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = 204, description = "The session has ended and there is nothing after that id")))]
pub(crate) async fn wrapped(
    State(app): State<App>,
    SessionPath(session): SessionPath,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    open(
        &app,
        session,
        &parameters,
        &headers,
        Frame::ready(),
        Frame::wrapped,
    )
    .await
}

/// Streams events as harnesses say them, `{type, properties}`, after `{type: "stream.opened"}`.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/stream", tag = "events",
    params(("session_id" = String, Path),
        ("after" = Option<u64>, Query, description = "After the event with this id; 0 for all there are"),
        ("follow" = Option<String>, Query, description = "`1`: stay open until the session ends"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Like `after`, and goes before it")),
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = 204, description = "The session has ended and there is nothing after that id")))]
pub(crate) async fn raw(
    State(app): State<App>,
    SessionPath(session): SessionPath,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let first = Frame::of(json!({ "type": "stream.opened" }));
    open(&app, session, &parameters, &headers, first, Frame::raw).await
}

async fn open(
    app: &App,
    id: SessionId,
    parameters: &Parameters,
    headers: &HeaderMap,
    first: Frame,
    dialect: fn(StreamItem) -> Frame,
) -> Result<Response, Problem> {
    let after = resume_point(parameters, headers)?;
    let session = app.in_time(app.engine.session(id)).await?;
    let over = !session.state.is_active();
    if over && after.is_none() {
        let detail = format!(
            "the session is {}; `?after=0` shows its events",
            session.state.as_str()
        );
        return Err(Problem::new(StatusCode::GONE, "gone", detail));
    }
    let mut items = app.in_time(app.engine.stream(id, after)).await?.peekable();
    // The stream of a session that is over ends, so looking ahead does not block.
    if over && Pin::new(&mut items).peek().await.is_none() {
        // EventSource stops connecting again when it gets this status.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let last = if after.is_some() || parameters.flag("follow") {
        |_: &StreamItem| None
    } else {
        end_of_turn
    };
    let frames = stream::iter([first]).chain(frames_until(items, dialect, last));
    Ok(sse_response(app, frames))
}

fn resume_point(parameters: &Parameters, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) else {
        return parameters.strict("after", "the id of an event");
    };
    let id = id.to_str().ok().and_then(|id| id.parse().ok());
    id.map(Some)
        .ok_or_else(|| Problem::invalid("Last-Event-ID", "expected the id of an event"))
}

fn end_of_session(item: &StreamItem) -> Option<Frame> {
    let StreamItem::Event(event) = item else {
        return None;
    };
    let over = is_ours(event) && matches!(event.kind.as_str(), "session.ended" | "session.failed");
    over.then(Frame::done)
}

fn end_of_turn(item: &StreamItem) -> Option<Frame> {
    match item {
        StreamItem::Event(event) if is_ours(event) && event.kind == "turn.finished" => Some(Frame::done()),
        other => end_of_session(other),
    }
}

/// Frames of `items`, until one of them calls for a last frame, the process shuts down, or the log cannot be read.
pub(crate) fn frames_until(
    items: impl Stream<Item = lap_core::Result<StreamItem>> + Send + 'static,
    dialect: fn(StreamItem) -> Frame,
    last: fn(&StreamItem) -> Option<Frame>,
) -> impl Stream<Item = Frame> + Send {
    let items = Some(Box::pin(items));
    let steps = stream::unfold(items, move |items| async move {
        let mut items = items?;
        let (frames, over) = match items.next().await {
            // The engine ends a stream when the session is over for now. An end in the log alone may be followed by a
            // restart.
            None => ([None, Some(Frame::done())], true),
            Some(Ok(item)) => {
                let last = last(&item);
                let over = last.is_some() || matches!(item, StreamItem::Draining { .. });
                ([Some(dialect(item)), last], over)
            }
            Some(Err(error)) => {
                log_stream_error(&error);
                let problem = Problem::from(error);
                ([None, Some(Frame::error(problem.detail(), problem.code()))], true)
            }
        };
        Some((
            stream::iter(frames.into_iter().flatten()),
            (!over).then_some(items),
        ))
    });
    steps.flatten()
}

/// The answer that streams `frames`.
pub(crate) fn sse_response(app: &App, frames: impl Stream<Item = Frame> + Send + 'static) -> Response {
    let hint = stream::iter([sse::Event::default().retry(RECONNECT)]);
    let events = hint.chain(frames.map(Frame::into_sse)).map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(app.options.keep_alive);
    let headers = [
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Sse::new(events).keep_alive(keep_alive)).into_response()
}

#[cfg(test)]
mod tests {
    use lap_core::event::Event;
    use lap_core::time::Timestamp;

    use super::*;

    #[test]
    fn only_the_platform_ends_a_stream() {
        let said = |kind: &str, origin| {
            StreamItem::Event(Event {
                session: SessionId::from_uuid(uuid::Uuid::nil()),
                id: 1,
                kind: kind.to_owned(),
                turn: None,
                body: json!({}),
                at: Timestamp::from_unix_millis(0),
                origin,
            })
        };
        for kind in ["session.ended", "session.failed", "turn.finished"] {
            assert!(end_of_turn(&said(kind, None)).is_some());
            assert!(end_of_turn(&said(kind, Some(1))).is_none());
            assert_eq!(
                end_of_session(&said(kind, None)).is_some(),
                kind != "turn.finished"
            );
        }
    }
}
