//! The models of the gateway.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::config::base;
use crate::launch::GatewayAddress;

/// The list only saves time later, so the start does not wait long for it.
const PATIENCE: Duration = Duration::from_secs(2);
const MAX_BYTES: usize = 4 << 20;
const MAX_MODELS: usize = 1000;

/// What the gateway has, as far as it says so in time. A session's model that is not in the list is added when it is
/// needed, which costs opencode a moment.
pub(super) async fn of_gateway(gateway: &GatewayAddress) -> BTreeSet<String> {
    let list = tokio::time::timeout(PATIENCE, list(gateway)).await;
    let list = list.ok().flatten().unwrap_or_default();
    let names = list["data"].as_array().into_iter().flatten();
    names
        .filter_map(|model| model["id"].as_str())
        // A pattern is no model.
        .filter(|id| !id.is_empty() && id.len() <= 200 && !id.contains('*'))
        .take(MAX_MODELS)
        .map(str::to_owned)
        .collect()
}

async fn list(gateway: &GatewayAddress) -> Option<Value> {
    let http: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let request = Request::get(format!("{}/v1/models", base(gateway)))
        .header(header::AUTHORIZATION, format!("Bearer {}", gateway.key))
        .body(Full::default())
        .ok()?;
    let answer = http
        .request(request)
        .await
        .ok()
        .filter(|answer| answer.status().is_success())?;
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}
