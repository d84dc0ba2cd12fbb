//! No real key in the sandbox.

use std::path::Path;

use serde_json::json;

use crate::model::Model;
use crate::server::Server;

const CANARY: &str = "sk-canary-4f1d9a72c0";

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_gets_the_real_key_and_the_sandbox_never_does() {
    let model = Model::start().await;
    let server = Server::start_with(&[("LITELLM_API_BASE", &model.base), ("LITELLM_API_KEY", CANARY)]).await;
    let client = &server.client;
    let agent = client.agent(json!({"model": "some/model"})).await;
    let session = client.session(&agent, json!({})).await;
    // What an agent could look at without leaving its own processes: environment, its ancestors up to sandboxd,
    // command lines, and everything below its home.
    let look = "TOOL: env; cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline | tr '\\0' '\\n'; \
                grep -rs . \"$HOME\" | head -c 20000; echo KEY=$LITELLM_API_KEY";
    let (status, reply) = client.message(&session, look).await;
    assert_eq!(status, 200, "{reply}");
    let text = reply.to_string();
    assert!(text.contains("KEY=stub_"), "{text}");
    assert!(!text.contains(CANARY), "{text}");

    let seen = model.seen();
    assert!(!seen.is_empty());
    for request in &seen {
        assert_eq!(
            request.headers["authorization"],
            format!("Bearer {CANARY}").as_str()
        );
        assert!(!request.body.to_string().contains(CANARY));
        assert!(!format!("{:?}", request.headers).contains("stub_"));
    }
    for path in [
        "/agents",
        "/sessions",
        &format!("/sessions/{session}/messages"),
        "/api/config",
    ] {
        let (_, answer) = client.get(path).await;
        assert!(!answer.to_string().contains(CANARY), "{path}");
    }
    let mut files = Vec::new();
    find_canary(server.data().parent().unwrap(), &mut files);
    assert!(files.is_empty(), "the real key lies in {files:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_serves_model_paths_of_a_living_sandbox_only() {
    let model = Model::start().await;
    let server = Server::start_with(&[("LITELLM_API_BASE", &model.base), ("LITELLM_API_KEY", CANARY)]).await;
    let client = &server.client;
    let agent = client.agent(json!({"model": "some/model"})).await;
    let session = client.session(&agent, json!({})).await;
    let curl = "TOOL: for path in /key/generate /v1/../key/generate /v1/models; do \
                curl -s -o /dev/null -w \"$path=%{http_code} \" --path-as-is -X POST -H \"Authorization: Bearer $LITELLM_API_KEY\" $LITELLM_API_BASE$path; done; \
                curl -s -o /dev/null -w 'wrong=%{http_code} ' -H 'Authorization: Bearer stub_wrong' $LITELLM_API_BASE/v1/models; \
                echo BASE=$LITELLM_API_BASE KEY=$LITELLM_API_KEY END";
    let (_, reply) = client.message(&session, curl).await;
    let text = reply["parts"].to_string();
    assert!(
        text.contains("/key/generate=403 /v1/../key/generate=40"),
        "{text}"
    );
    assert!(text.contains("wrong=401"), "{text}");
    let value = |name: &str| {
        let rest = text.split(&format!("{name}=")).nth(1).unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    };
    let (base, stub) = (value("BASE"), value("KEY"));
    client.delete(&format!("/sessions/{session}")).await;
    server.nothing_left().await;
    let outside = crate::client::Client::new(&base, &stub);
    let request = http::Request::builder()
        .uri(format!("{base}/v1/models"))
        .header("authorization", format!("Bearer {stub}"))
        .body(http_body_util::Full::default())
        .unwrap();
    let (status, answer) = outside.try_send(request).await.unwrap();
    assert_eq!(status, 401, "a stub outlives its sandbox: {answer}");
}

fn find_canary(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find_canary(&path, found);
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes
                .windows(CANARY.len())
                .any(|window| window == CANARY.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
}
