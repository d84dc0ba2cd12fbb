//! The example does what it says: LAP answers below `/lap`, to whom the application knows.

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use lap_core::backends::Backends;
use lap_core::engine::{Engine, EngineConfig};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::application;

async fn call(
    app: &Router,
    user: Option<&str>,
    method: Method,
    path: &str,
    body: &Value,
) -> (StatusCode, Vec<u8>) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(user) = user {
        request = request.header("x-user", user);
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (
        status,
        response.into_body().collect().await.unwrap().to_bytes().to_vec(),
    )
}

#[tokio::test]
async fn lap_is_part_of_the_application() {
    let engine = Engine::start(Backends::in_memory(), EngineConfig::default())
        .await
        .unwrap();
    let app = application(engine);
    let (status, page) = call(&app, None, Method::GET, "/", &Value::Null).await;
    assert_eq!(
        (status, &page[..]),
        (StatusCode::OK, &b"the page of your own application"[..])
    );

    let agents = "/lap/api/v1/managed_agents/agents";
    let (status, _) = call(&app, None, Method::GET, agents, &Value::Null).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);

    let post = async |path: String, body: Value| {
        let (status, answer) = call(&app, Some("ada"), Method::POST, &path, &body).await;
        assert_eq!(
            status,
            StatusCode::OK,
            "{path}: {}",
            String::from_utf8_lossy(&answer)
        );
        serde_json::from_slice::<Value>(&answer).unwrap()
    };
    let agent = post(agents.to_owned(), json!({ "model": "demo" })).await;
    assert_eq!(agent["created_by"], "ada");
    let session = post(
        format!("{agents}/{}/session", agent["id"].as_str().unwrap()),
        json!({}),
    )
    .await;
    let sessions = "/lap/api/v1/managed_agents/sessions";
    let message = format!("{sessions}/{}/message", session["id"].as_str().unwrap());
    let reply = post(message, json!({ "text": "hello" })).await;
    assert_eq!(reply["info"]["role"], "assistant");
}
