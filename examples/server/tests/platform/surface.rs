//! The rest of the API against real sandboxes: inspection, the opencode dialect, and who is kept out.

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use crate::client::{Client, PATIENCE, eventually};
use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_can_be_inspected_and_diagnosed() {
    let server = Server::start().await;
    let agent = server.client.agent(json!({ "model": "demo" })).await;
    let session = server.client.session(&agent, json!({})).await;
    let (status, reply) = server.client.message(&session, "TOOL: echo made-by-a-tool").await;
    assert_eq!(status, 200, "{reply}");
    let get = async |path: &str| server.client.get(&format!("/sessions/{session}/{path}")).await;
    let (_, found) = get("diagnose").await;
    assert_eq!(found["harness_probe"]["ok"], true, "{found}");
    assert_eq!(found["pod_logs_tail"]["available"], true, "{found}");
    assert_eq!(found["sandbox"]["state"], "claimed", "{found}");
    let issues = found["detected_issues"].as_array().unwrap();
    assert!(issues.iter().all(|issue| issue["severity"] == "info"), "{found}");
    let (_, log) = get("log").await;
    let tool = log
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["kind"] == "tool");
    let tool = tool.unwrap_or_else(|| panic!("no tool in {log}"));
    assert_eq!(tool["status"], "completed", "{log}");
    assert!(
        tool["detail"].as_str().unwrap().contains("made-by-a-tool"),
        "{log}"
    );
    assert_eq!(get("sandbox_logs").await.0, 200);
    assert_eq!(get("vault-keys").await.1, json!(["LITELLM_API_KEY"]));
    let (_, interceptions) = get("interceptions").await;
    assert!(interceptions.is_array(), "{interceptions}");
    let (_, models) = server.client.get("/api/v1/models").await;
    assert_eq!(models["data"][0]["id"], "demo-model");
    let (status, stats) = server.client.get("/api/v1/admin/stats").await;
    assert_eq!((status, &stats["sessions"]["counts"]["ready"]), (200, &json!(1)));
    server.client.delete(&format!("/sessions/{session}")).await;
    server.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_opencode_talks_to_a_session() {
    let server = Server::start().await;
    let agent = server.client.agent(json!({ "model": "demo" })).await;
    let session = server.client.session(&agent, json!({})).await;
    let base = format!("/sessions/{session}/opencode");
    let (_, sessions) = server.client.get(&format!("{base}/session")).await;
    let conversation = sessions[0]["id"].as_str().unwrap_or_else(|| panic!("{sessions}"));
    let mut events = server.client.open(&format!("{base}/event")).await;
    let prompt = json!({ "parts": [{ "type": "text", "text": "PING over opencode" }] });
    let (status, _) = server
        .client
        .post(&format!("{base}/session/{conversation}/prompt_async"), &prompt)
        .await;
    assert_eq!(status, 204);
    let mut told = String::new();
    while !told.contains("\"session.idle\"") {
        let chunk = tokio::time::timeout(PATIENCE, events.next())
            .await
            .unwrap()
            .unwrap();
        told.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
    }
    assert!(
        told.starts_with("data: {\"properties\":{},\"type\":\"server.connected\"}"),
        "{told}"
    );
    assert!(
        told.contains("\"message.part.delta\"") && !told.contains("\"turn.finished\""),
        "{told}"
    );
    let (_, messages) = server
        .client
        .get(&format!("{base}/session/{conversation}/message"))
        .await;
    assert_eq!(messages.as_array().map(Vec::len), Some(2), "{messages}");
    let (status, refused) = server.client.get(&format!("{base}/file?path=/etc/passwd")).await;
    assert_eq!((status, &refused["code"]), (404, &json!("not_passed_on")));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_wait_and_pages_of_other_sites_stay_out() {
    let server = Server::start().await;
    let send = async |name: &str, value: &str, method: &str| -> (u16, Value) {
        let mut request = server
            .client
            .request(method, "/agents")
            .body(Full::<Bytes>::from("{\"model\":\"m\"}"))
            .unwrap();
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        server.client.try_send(request).await.unwrap()
    };
    assert_eq!(send("host", "rebound.example", "GET").await.0, 421);
    assert_eq!(send("origin", "https://evil.example", "POST").await.0, 403);
    assert_eq!(send("origin", "http://localhost", "GET").await.0, 200);
    let stranger = Client::new(&server.client.base, "sk-wrong");
    for _ in 0..10 {
        assert_eq!(stranger.get("/agents").await.0, 401);
    }
    let (status, refused) = stranger.get("/agents").await;
    assert_eq!((status, &refused["code"]), (429, &json!("too_many_attempts")));
    eventually("the right key is taken after a while", async || {
        match server.client.get("/agents").await {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

impl Client {
    /// A stream that must begin well.
    async fn open(&self, path: &str) -> http_body_util::BodyDataStream<hyper::body::Incoming> {
        let response = self
            .send(self.request("GET", path).body(Full::default()).unwrap())
            .await;
        assert_eq!(response.status(), 200);
        response.into_body().into_data_stream()
    }
}
