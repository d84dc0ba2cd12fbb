//! Reading request bodies: bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use lap_harness::limits::MAX_BODY_BYTES;
use serde::de::DeserializeOwned;

use super::Refusal;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The body as JSON of the expected shape. An empty body counts as `{}`.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let collected = tokio::time::timeout(TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let bytes = match collected {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Refusal::too_large()),
        Ok(Err(_)) => return Err(Refusal::invalid("the body broke off")),
        Err(_) => return Err(Refusal::too_slow()),
    };
    let bytes = if bytes.is_empty() {
        b"{}".as_slice()
    } else {
        &bytes
    };
    // serde's message names the field and the position; it quotes at most the caller's own value.
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::invalid(format!("the body is not the expected JSON: {error}")))
}
