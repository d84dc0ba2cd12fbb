//! What there is to see of a session besides its conversation: its timeline, the log of its sandbox, a diagnosis,
//! and what the vault did.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use lap_core::Error;
use lap_core::vault::Receipt;
use serde_json::{Value, json};

use crate::app::App;
use crate::path::SessionPath;
use crate::problem::Problem;
use crate::query::Parameters;
use crate::wire::agent::ApiAgent;
use crate::wire::diagnosis::ApiDiagnosis;
use crate::wire::session::ApiSession;
use crate::wire::timeline::{TimelineEntry, timeline};

/// Events that are read for a timeline.
const EVENTS: u32 = 10_000;
const DEFAULT_LINES: usize = 500;
const MAX_LINES: usize = 5_000;
/// Bytes of a sandbox's log that are shown.
const LOG_BYTES: usize = 1024 * 1024;
/// Receipts that are read; the newest ones are shown.
const RECEIPTS: usize = 10_000;
const SHOWN_RECEIPTS: usize = 100;

/// The timeline of a session, made of its 10000 newest events.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/log", tag = "inspection",
    params(("session_id" = String, Path)), responses((status = 200, body = Vec<TimelineEntry>)))]
pub(crate) async fn log(
    State(app): State<App>,
    SessionPath(session): SessionPath,
) -> Result<Json<Vec<TimelineEntry>>, Problem> {
    Ok(Json(timeline(&app.engine.recent_events(session, EVENTS).await?)))
}

/// What the session's sandbox printed. Empty when there is none.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/sandbox_logs", tag = "inspection",
    params(("session_id" = String, Path),
        ("tailLines" = Option<usize>, Query, description = "1 to 5000; 500 when absent or wrong"),
        ("sinceSeconds" = Option<u64>, Query, description = "Taken and not used: lines of a sandbox carry no time")),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn sandbox_logs(
    State(app): State<App>,
    SessionPath(session): SessionPath,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let lines = parameters
        .lenient("tailLines")
        .filter(|lines| *lines > 0)
        .unwrap_or(DEFAULT_LINES);
    // An unknown session is a 404; what goes wrong after that is told in the text, as in the original.
    app.engine.session(session).await?;
    let text = match app.engine.sandbox_logs(session, lines.min(MAX_LINES)).await {
        Ok(text) => newest(text, LOG_BYTES),
        Err(error) => format!("[lap] the log cannot be read: {}\n", error.message()),
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// The end of a text, from the beginning of a line on where that is possible.
fn newest(text: String, bytes: usize) -> String {
    if text.len() <= bytes {
        return text;
    }
    let mut from = text.len() - bytes;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let tail = &text[from..];
    tail.split_once('\n').map_or(tail, |(_, lines)| lines).to_owned()
}

/// What the platform can find out about a session within a few seconds.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/diagnose", tag = "inspection",
    params(("session_id" = String, Path)), responses((status = 200, body = ApiDiagnosis)))]
pub(crate) async fn diagnose(
    State(app): State<App>,
    SessionPath(session): SessionPath,
) -> Result<Json<ApiDiagnosis>, Problem> {
    let diagnosis = app.engine.diagnose(session).await?;
    let idle_timeout = app.engine.settings().idle_timeout;
    let session = ApiSession::new(diagnosis.session.clone(), idle_timeout);
    let session = serde_json::to_value(session).unwrap_or_default();
    let failed = |error: &Error| json!({ "exists": false, "error": error.message() });
    let agent = match &diagnosis.agent {
        Ok(None) => json!({ "exists": false }),
        Err(error) => failed(error),
        Ok(Some(agent)) => match app.engine.masked_env(agent) {
            Ok(masked) => serde_json::to_value(ApiAgent::new(agent.clone(), masked)).unwrap_or_default(),
            Err(error) => failed(&error),
        },
    };
    Ok(Json(ApiDiagnosis::new(&diagnosis, session, agent)))
}

/// The last 100 uses of credentials by the session's sandbox, oldest first. Empty when the vault cannot be asked.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/interceptions", tag = "inspection",
    params(("session_id" = String, Path)), responses((status = 200, body = Vec<Object>)))]
pub(crate) async fn interceptions(
    State(app): State<App>,
    SessionPath(session): SessionPath,
) -> Result<Json<Vec<Value>>, Problem> {
    app.engine.session(session).await?;
    let receipts = app
        .engine
        .receipts(session, 0, RECEIPTS)
        .await
        .unwrap_or_default();
    let newest = receipts.len().saturating_sub(SHOWN_RECEIPTS);
    Ok(Json(
        receipts.into_iter().skip(newest).map(interception).collect(),
    ))
}

fn interception(receipt: Receipt) -> Value {
    let swapped: &[String] = if receipt.verdict == "swapped" {
        &receipt.credentials
    } else {
        &[]
    };
    json!({
        "id": receipt.number,
        "timestamp": receipt.at.to_iso8601(),
        "method": receipt.method,
        "host": receipt.host,
        "path": receipt.path,
        "stubs_swapped": swapped,
        // Not even the end of a real value leaves the vault.
        "real_value_fingerprint": [],
        "blocked": receipt.verdict == "refused",
        "verdict": receipt.verdict,
        "reason": receipt.reason,
        "credentials": receipt.credentials,
        "status": receipt.status,
    })
}

/// The names of the credentials that the session's sandbox has stubs of. Empty when they cannot be told.
#[utoipa::path(get, path = "/api/v1/managed_agents/sessions/{session_id}/vault-keys", tag = "inspection",
    params(("session_id" = String, Path)), responses((status = 200, body = Vec<String>)))]
pub(crate) async fn vault_keys(
    State(app): State<App>,
    SessionPath(session): SessionPath,
) -> Result<Json<Vec<String>>, Problem> {
    app.engine.session(session).await?;
    Ok(Json(
        app.engine.credential_names(session).await.unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_cut_at_its_beginning() {
        assert_eq!(newest("abc".to_owned(), 3), "abc");
        assert_eq!(newest("äöü\nxyz\n".to_owned(), 7), "xyz\n");
        assert_eq!(newest("ääää".to_owned(), 3), "ä");
    }
}
