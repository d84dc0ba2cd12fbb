//! A relay with a gateway of its own in one process, for benchmarks and for trying the relay by hand.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lap_core::id::{Entropy as _, SandboxId, SystemEntropy};
use lap_core::opening::Grant;
use lap_core::seal::Sealer;
use lap_core::secret::Secret;
use lap_core::time::{Clock as _, SystemClock};
use lap_core::vault::GATEWAY_KEY;
use lap_core::{Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::relay::Limits;
use crate::service::{Parts, VaultService};

/// A gateway that answers every call that carries the real key, and a relay in front of it.
///
/// The gateway reads each request to its end and answers 401 without the real key, so that every answer with
/// status 200 proves the swap.
#[derive(Debug)]
pub struct Rehearsal {
    /// Base URL of the gateway itself: the baseline, with [`Rehearsal::key`].
    pub direct: String,
    /// Base URL of the relay, with [`Rehearsal::stub`].
    pub relay: String,
    /// The real key.
    pub key: Secret,
    /// The stub of the attached sandbox.
    pub stub: String,
    service: Arc<VaultService>,
    gateway: JoinHandle<()>,
}

impl Rehearsal {
    /// Starts both. The gateway's answers consist of these chunks, each written on its own.
    ///
    /// # Errors
    /// `Unavailable` when no loopback port can be had.
    pub async fn start(answer: Vec<Bytes>) -> Result<Self> {
        let mut random = [0; 16];
        SystemEntropy::new().fill(&mut random);
        let key = Secret::new(format!("sk-rehearsal-{:032x}", u128::from_be_bytes(random)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(no_port)?;
        let direct = format!("http://{}", listener.local_addr().map_err(no_port)?);
        let gateway = tokio::spawn(serve(
            listener,
            format!("Bearer {}", key.expose()),
            Arc::new(answer),
        ));
        let service = VaultService::start(Parts {
            folder: None,
            sealer: Sealer::plaintext(),
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
        })
        .await?;
        service.set_gateway(&direct, None)?;
        let sandbox = SandboxId::fresh(&SystemEntropy::new(), SystemClock.now());
        let mut stubs = service
            .attach(sandbox, &std::collections::BTreeSet::new())
            .await?;
        let grant = Grant {
            name: GATEWAY_KEY.to_owned(),
            value: key.clone(),
            hosts: Vec::new(),
        };
        service.grant(sandbox, &[grant])?;
        let stub = stubs.stubs.remove(GATEWAY_KEY).unwrap_or_default();
        Ok(Self {
            direct,
            relay: stubs.base,
            key,
            stub,
            service,
            gateway,
        })
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        self.service.stop();
        self.gateway.abort();
    }
}

fn no_port(error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "rehearse relay",
        "no loopback port can be had",
    )
    .with_source(error)
}

async fn serve(listener: TcpListener, expected: String, answer: Arc<Vec<Bytes>>) {
    let expected: Arc<str> = expected.into();
    while let Ok((stream, _)) = listener.accept().await {
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let (expected, answer) = (Arc::clone(&expected), Arc::clone(&answer));
        tokio::spawn(async move {
            let service = service_fn(|request| reply(request, Arc::clone(&expected), Arc::clone(&answer)));
            // A client that leaves is what a benchmark does at its end.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn reply(
    request: Request<Incoming>,
    expected: Arc<str>,
    answer: Arc<Vec<Bytes>>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let is_swapped = request
        .headers()
        .get(AUTHORIZATION)
        .is_some_and(|value| value.as_bytes() == expected.as_bytes());
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let (status, count) = if is_swapped {
        (StatusCode::OK, answer.len())
    } else {
        (StatusCode::UNAUTHORIZED, 0)
    };
    let frames = (0..count).map(move |chunk| Ok(Frame::data(answer[chunk].clone())));
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    use super::*;

    #[tokio::test]
    async fn both_ways_lead_to_the_same_answer() {
        let rehearsal = Rehearsal::start(vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")])
            .await
            .unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        for (base, key) in [
            (&rehearsal.direct, rehearsal.key.expose()),
            (&rehearsal.relay, rehearsal.stub.as_str()),
        ] {
            let request = Request::post(format!("{base}/v1/chat/completions"))
                .header(AUTHORIZATION, format!("Bearer {key}"))
                .body(Full::default())
                .unwrap();
            let response = client.request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "onetwo");
        }
    }
}
