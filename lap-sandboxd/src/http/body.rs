//! Reading request bodies: bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use lap_harness::limits::MAX_BODY_BYTES;
use serde::de::DeserializeOwned;

use super::Refusal;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The whole body.
pub(super) async fn bytes(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::too_large()),
        Ok(Err(_)) => Err(Refusal::invalid("the body broke off")),
        Err(_) => Err(Refusal::too_slow()),
    }
}

/// The body as JSON of the expected shape. An empty body counts as `{}`.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let bytes = bytes(body, MAX_BODY_BYTES).await?;
    let bytes = if bytes.is_empty() {
        b"{}".as_slice()
    } else {
        &bytes
    };
    // serde's message names the field and the position; it quotes at most the caller's own value.
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::invalid(format!("the body is not the expected JSON: {error}")))
}
