//! Answers to what an agent asks: permissions and questions, which come as the events `permission.asked` and
//! `question.asked`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::Authenticated;
use crate::body::JsonBody;
use crate::path::SessionPath;
use crate::problem::Problem;

const MAX_REQUEST: usize = 255;

/// An answer.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AnswerBody {
    /// The `id` of the event that asked.
    request: String,
    /// As opencode takes it: `{"reply": "once" | "always" | "reject", "message"?}` for a permission,
    /// `{"answers": [["..."]]}` or `{"reject": true}` for a question.
    #[schema(value_type = Object)]
    reply: Value,
}

/// The answer has arrived.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answered {
    /// Always true.
    ok: bool,
}

/// Answers a permission request or a question. 404 when nobody waits for it any more.
#[utoipa::path(post, path = "/api/v1/managed_agents/sessions/{session_id}/answer", tag = "messages",
    params(("session_id" = String, Path)), request_body = AnswerBody, responses((status = 200, body = Answered)))]
pub(crate) async fn answer(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    SessionPath(session): SessionPath,
    JsonBody(body): JsonBody<AnswerBody>,
) -> Result<Json<Answered>, Problem> {
    if !(1..=MAX_REQUEST).contains(&body.request.len()) {
        return Err(Problem::invalid(
            "request",
            format!("expected 1 to {MAX_REQUEST} bytes"),
        ));
    }
    app.engine
        .answer(&caller, session, &body.request, &body.reply)
        .await?;
    Ok(Json(Answered { ok: true }))
}
