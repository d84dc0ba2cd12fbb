use std::future::pending;
use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::body::{AnswerBody, UploadBody};
use super::exchange::Exchange;
use super::listen::Connection;
use super::problem::{RelayBody, refusal};
use super::table::{Caller, Means};
use crate::redeem::{
    Identity, Presented, Reason, Route, Scrubber, Verdict, clean_request, clean_response, decide,
    mask_header, present,
};

/// One request of a sandbox: who is it, may it, swap, forward, scrub.
///
/// # Cancel safety
/// When the client leaves, the future is dropped, and with it the connection to the gateway.
pub(super) async fn handle(connection: Arc<Connection>, request: Request<Incoming>) -> Response<RelayBody> {
    let (parts, body) = request.into_parts();
    let relay = &connection.relay;
    let target = connection.target(&parts.uri);
    let mut exchange = Exchange::begin(
        Arc::clone(&relay.receipts),
        relay.clock.as_ref(),
        &parts.method,
        &target,
    );
    relay.count();
    connection.quiet();
    match swap(&connection, &mut exchange, &parts, &target, body).await {
        Ok((means, response)) => answer(&connection, exchange, &means, response),
        Err(reason) => {
            // The reason a body gave is closer to the cause than the failed request it led to.
            let reason = exchange.meter.fault.get().copied().unwrap_or(reason);
            exchange.refused(reason);
            refusal(reason)
        }
    }
}

async fn swap(
    connection: &Connection,
    exchange: &mut Exchange,
    parts: &Parts,
    target: &str,
    body: Incoming,
) -> Result<(Means, Response<Incoming>), Reason> {
    let relay = &connection.relay;
    let presented = present(&parts.headers)?;
    let caller = relay.tables.caller(presented.token).ok_or(Reason::UnknownStub)?;
    exchange.is_of(&caller, presented.position);
    // The policy is asked before any waiting, so that what can never pass is refused at once.
    verdict(Identity::Known(None), None, parts, target, presented)?;
    if announced(&parts.headers).is_some_and(|length| length > relay.limits.body_bytes) {
        return Err(Reason::BodyTooLarge);
    }
    let slot = Arc::clone(&caller.slots)
        .try_acquire_owned()
        .map_err(|_| Reason::TooManyRequests)?;
    exchange.hold(slot);
    connection.busy(caller.life.clone());

    let deadline = Instant::now() + relay.limits.grant + relay.limits.head;
    let means = until_detached(&caller, relay.tables.means(&caller.stub, relay.limits.grant)).await??;
    exchange.goes_to(means.gateway.base.authority());
    let identity = Identity::Known(Some(&means.credential.binding));
    let route = verdict(identity, Some(&means), parts, target, presented)?;
    let body = UploadBody::new(
        body,
        Arc::clone(&exchange.meter),
        relay.limits.body_bytes,
        relay.limits.upload_idle,
    );
    let request = rewrite(parts, presented, &means, &route, body)?;
    exchange.swapped();
    let answering = timeout_at(deadline, means.gateway.client.request(request));
    let response = until_detached(&caller, answering)
        .await?
        .map_err(|_| Reason::UpstreamTimeout)?;
    let response = response.map_err(|error| {
        tracing::debug!(
            error = lap_core::error::chain(&error),
            "the gateway did not answer"
        );
        if error.is_connect() {
            Reason::UpstreamConnect
        } else {
            Reason::UpstreamFailed
        }
    })?;
    Ok((means, response))
}

/// What the future gives, unless the sandbox ends first.
async fn until_detached<T>(caller: &Caller, future: impl Future<Output = T>) -> Result<T, Reason> {
    tokio::select! {
        biased;
        () = caller.life.cancelled() => Err(Reason::Detached),
        output = future => Ok(output),
    }
}

fn verdict<'a>(
    identity: Identity<'_>,
    means: Option<&Means>,
    parts: &Parts,
    target: &'a str,
    presented: Presented<'_>,
) -> Result<Route<'a>, Reason> {
    let gateway = means.map(|means| &means.gateway.base);
    match decide(identity, gateway, &parts.method, target, presented.position) {
        Verdict::Swap(_, route) => Ok(route),
        Verdict::Refuse(reason) => Err(reason),
    }
}

fn rewrite(
    parts: &Parts,
    presented: Presented<'_>,
    means: &Means,
    route: &Route<'_>,
    body: UploadBody,
) -> Result<Request<UploadBody>, Reason> {
    let uri = means.gateway.base.join(route).map_err(|_| Reason::BadTarget)?;
    let (name, value) = presented
        .rewritten(means.credential.value.expose())
        .map_err(|_| Reason::NotGranted)?;
    let mut headers = parts.headers.clone();
    clean_request(&mut headers);
    headers.insert(name, value);
    // The method and the headers are all that is taken over: neither the version nor any extension.
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn answer(
    connection: &Connection,
    mut exchange: Exchange,
    means: &Means,
    response: Response<Incoming>,
) -> Response<RelayBody> {
    let (parts, body) = response.into_parts();
    let is_plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    let is_switch = parts.status.is_informational();
    if is_switch || !parts.headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        let reason = if is_switch {
            Reason::UpstreamFailed
        } else {
            Reason::UpstreamEncoding
        };
        exchange.refused(reason);
        return refusal(reason);
    }
    exchange.answered(parts.status);
    let mut headers = parts.headers;
    clean_response(&mut headers);
    for value in headers.values_mut() {
        if let Some(masked) = mask_header(&means.credential.forms, value) {
            *value = masked;
        }
    }
    let scrubber = Scrubber::new(Arc::clone(&means.credential.forms));
    let body = AnswerBody::new(body, scrubber, exchange, connection.relay.limits.answer_idle);
    // The reason phrase is an extension and stays behind, because it is the gateway's free text.
    let mut response = Response::new(Either::Right(body));
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers;
    response
}

/// Ends when the sandbox whose exchange occupies the connection has ended or its time is over.
pub(super) async fn cut(connection: &Connection) {
    let mut state = connection.occupied.subscribe();
    loop {
        let occupied = state.borrow_and_update().clone();
        let over = async {
            match &occupied {
                None => pending().await,
                Some(occupied) => {
                    tokio::select! {
                        () = occupied.life.cancelled() => {}
                        () = tokio::time::sleep_until(occupied.until) => {}
                    }
                }
            }
        };
        tokio::select! {
            () = over => return,
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}
