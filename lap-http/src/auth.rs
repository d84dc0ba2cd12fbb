//! Who asks: the seam where a host application puts its own authentication.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{StatusCode, header};
use lap_core::caller::Caller;
use lap_core::secret::Secret;

use crate::app::App;
use crate::peer;
use crate::problem::Problem;

/// Turns a request into the [`Caller`] on whose behalf it runs.
///
/// Every route but configuration, health, metrics and the API's description asks it first, before the body is
/// read. The parts carry the extensions of the request, so whatever the host's own middleware left there (a
/// session, the peer's address) is at hand.
///
/// ```
/// use lap_core::caller::Caller;
/// use lap_http::{Authenticator, Refusal};
///
/// /// Trusts a proxy that has authenticated the user already.
/// #[derive(Debug)]
/// struct BehindProxy;
///
/// #[async_trait::async_trait]
/// impl Authenticator for BehindProxy {
///     async fn authenticate(&self, request: &http::request::Parts) -> Result<Caller, Refusal> {
///         let user = request.headers.get("x-user").and_then(|user| user.to_str().ok());
///         user.map(Caller::new).ok_or(Refusal::Unauthorized { challenge: "Proxy" })
///     }
/// }
/// ```
#[async_trait]
pub trait Authenticator: Send + Sync + fmt::Debug + 'static {
    /// The caller, or why there is none.
    ///
    /// # Errors
    /// A [`Refusal`]; the client sees its status and nothing else.
    async fn authenticate(&self, request: &Parts) -> Result<Caller, Refusal>;
}

/// Why a request has no caller.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// 401: the credentials are missing or wrong. Both look the same to the client.
    Unauthorized {
        /// The value of `WWW-Authenticate`.
        challenge: &'static str,
    },
    /// 403: the caller is known and may not use this.
    Forbidden,
    /// 429: too many wrong attempts; try again after this long.
    TooMany(Duration),
    /// 503: whoever knows the credentials does not answer.
    Unavailable,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthorized { challenge } => Self::unauthorized(challenge),
            Refusal::Forbidden => Self::new(StatusCode::FORBIDDEN, "forbidden", "you may not do this"),
            Refusal::TooMany(after) => {
                let detail = "too many wrong attempts; wait before the next one";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", detail).with_retry_after(after)
            }
            Refusal::Unavailable => {
                let detail = "the service that knows the credentials does not answer";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
                    .with_retry_after(Duration::from_secs(1))
            }
        }
    }
}

/// The original system's authentication: `Authorization: Bearer <master key>`. Its holder may do everything.
#[derive(Debug, Clone)]
pub struct MasterKey {
    key: Secret,
    caller: Caller,
}

/// The challenge of [`MasterKey`].
const BEARER: &str = "Bearer realm=\"lap\"";

impl MasterKey {
    /// Callers are recorded as `ui`, as in the original. An empty key lets nobody in.
    pub fn new(key: Secret) -> Self {
        Self {
            key,
            caller: Caller::default(),
        }
    }
}

#[async_trait]
impl Authenticator for MasterKey {
    async fn authenticate(&self, request: &Parts) -> Result<Caller, Refusal> {
        let candidate = bearer(request).unwrap_or_default();
        // The comparison runs whatever the candidate is, so that its time says nothing.
        let matches = self.key.matches(candidate);
        if matches && !self.key.is_empty() {
            return Ok(self.caller.clone());
        }
        Err(Refusal::Unauthorized { challenge: BEARER })
    }
}

/// The token of the one `Authorization: Bearer` header. Two headers are none: proxies and servers disagree on which counts.
fn bearer(request: &Parts) -> Option<&str> {
    let mut values = request.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The caller of this request. A route that is not behind [`require`] refuses everybody.
#[derive(Debug, Clone)]
pub(crate) struct Authenticated(pub(crate) Caller);

impl FromRequestParts<App> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Problem::unauthorized(BEARER))
    }
}

/// Lets authenticated requests pass, and makes a peer with wrong credentials wait.
pub(crate) async fn require(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match authenticated(&app, &parts).await {
        Ok(caller) => {
            let caller = Authenticated(caller);
            parts.extensions.insert(caller.clone());
            let mut response = next.run(Request::from_parts(parts, body)).await;
            // For the line in the log.
            response.extensions_mut().insert(caller);
            response
        }
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

async fn authenticated(app: &App, parts: &Parts) -> Result<Caller, Refusal> {
    let limit = app.options.wrong_keys;
    let client = peer::client(parts, &app.options.trusted_proxies);
    let wait = client.and_then(|client| app.attempts.wait(limit, client));
    // Before the key is looked at: whether it is right is what the peer must not learn any faster. This machine
    // is another matter: agents share its address with whoever runs the server, and must not lock them out.
    if let (Some(wait), false) = (
        wait,
        client.is_some_and(|client| client.to_canonical().is_loopback()),
    ) {
        return Err(slowed_down(wait));
    }
    let caller = app.options.authenticator.authenticate(parts).await;
    if let (Err(Refusal::Unauthorized { .. }), Some(client)) = (&caller, client) {
        app.attempts.wrong(limit, client);
        return wait.map_or(caller, |wait| Err(slowed_down(wait)));
    }
    caller
}

fn slowed_down(wait: Duration) -> Refusal {
    metrics::counter!("lap_http_slowed_down_total").increment(1);
    Refusal::TooMany(wait)
}
