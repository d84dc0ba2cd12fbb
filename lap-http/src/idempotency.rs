//! The `Idempotency-Key` header: the same key with the same body gives the first answer again.

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::app::App;
use crate::problem::Problem;

const HEADER: &str = "idempotency-key";
const MAX: usize = 255;

/// The key, if the client gave one.
#[derive(Debug)]
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(HEADER) else {
            return Ok(Self(None));
        };
        let key = value.to_str().ok().filter(|key| (1..=MAX).contains(&key.len()));
        let refusal = || Problem::invalid("Idempotency-Key", "expected 1 to 255 visible ASCII characters");
        key.map(|key| Self(Some(key.to_owned()))).ok_or_else(refusal)
    }
}
