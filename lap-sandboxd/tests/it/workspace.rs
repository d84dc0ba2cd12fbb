//! Cloning with real git, from a folder and from an HTTP server that wants a password.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::support::model::{Model, bash, say};
use crate::support::{PATIENCE, Place, Running, delivery};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use base64::Engine as _;
use lap_core::harness::{Harness, Readiness};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

const TOKEN: &str = "ghp_canary0123456789";

pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let identity = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t.invalid",
        "-c",
        "init.defaultBranch=main",
    ];
    let output = Command::new("git")
        .current_dir(folder)
        .args(identity)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A repository with the branches `main` and `side`, and a hook that must never run.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path();
    git(repository, &["init", "-q"]);
    for (file, content) in [("file.txt", "main"), ("more.txt", "more")] {
        std::fs::write(repository.join(file), content).unwrap();
        git(repository, &["add", "."]);
        git(repository, &["commit", "-q", "-m", file]);
    }
    git(repository, &["checkout", "-q", "-b", "side"]);
    std::fs::write(repository.join("file.txt"), "side").unwrap();
    git(repository, &["commit", "-q", "-a", "-m", "side"]);
    git(repository, &["checkout", "-q", "main"]);
    folder
}

async fn readiness(running: &Running<'_>) -> Readiness {
    running
        .harness()
        .probe(&running.contact, PATIENCE)
        .await
        .unwrap()
        .readiness
}

/// Fails when the token is anywhere below the folder.
fn assert_gone(folder: &Path) {
    let found = Command::new("grep")
        .args(["-rlaF", TOKEN])
        .arg(folder)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the token is on disk");
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{TOKEN}"));
    let found = Command::new("grep")
        .args(["-rlaF", &encoded])
        .arg(folder)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&found.stdout),
        "",
        "the token is on disk in base64"
    );
}

#[tokio::test]
async fn a_branch_of_a_repository_becomes_the_workspace() {
    let repository = repository();
    let model = Model::start([
        bash("git log --oneline | wc -l; git status --short; git commit -q --allow-empty -m x"),
        say("ok"),
    ])
    .await;
    for (branch, content) in [(None, "main"), (Some("side"), "side")] {
        let place = Place::new();
        let url = format!("file://{}", repository.path().display());
        let running = place
            .start(
                &model.base,
                json!({"repo_url": url, "branch": branch, "git_token": TOKEN}),
            )
            .await;
        assert_eq!(readiness(&running).await, Readiness::Ready);
        assert_eq!(
            std::fs::read_to_string(place.path("workspace/file.txt")).unwrap(),
            content
        );
        assert_eq!(
            git(&place.path("workspace"), &["config", "remote.origin.url"]).trim(),
            url
        );
        assert_gone(place.folder.path());
        if branch.is_some() {
            let running = running.opened().await;
            running.turn(&delivery("look")).await;
            let seen = model.requests()[1].1["messages"]
                .as_array()
                .unwrap()
                .last()
                .unwrap()["content"]
                .clone();
            assert_eq!(
                seen.as_str().unwrap().trim(),
                "1",
                "the clone is shallow and commits work"
            );
            running.sandboxd.stop().await;
        } else {
            running.sandboxd.stop().await;
        }
    }
}

#[tokio::test]
async fn a_clone_that_fails_says_why() {
    let repository = repository();
    let url = format!("file://{}", repository.path().display());
    for (launch, expected) in [
        (json!({"repo_url": url, "branch": "nothing-here"}), "nothing-here"),
        (
            json!({"repo_url": "file:///no/such/repository"}),
            "/no/such/repository",
        ),
        (
            json!({"repo_url": format!("http://u:{TOKEN}@127.0.0.1:9/x.git")}),
            "127.0.0.1",
        ),
        (json!({"repo_url": "ext::sh -c true"}), "not an address"),
        (json!({"repo_url": "--upload-pack=touch x"}), "not an address"),
        (json!({"repo_url": url, "branch": "--upload-pack=x"}), "branch"),
    ] {
        let place = Place::new();
        let running = place.start("http://127.0.0.1:9", launch.clone()).await;
        let Readiness::Failed(reason) = readiness(&running).await else {
            panic!("{launch} is ready")
        };
        assert!(
            reason.contains(expected) && !reason.contains(TOKEN),
            "{launch}: {reason}"
        );
        running.sandboxd.stop().await;
    }
}

/// git's own HTTP server behind a password.
async fn private_server(root: &Path) -> String {
    let root = Arc::new(root.to_owned());
    let router = Router::new().fallback(serve_git).with_state(root);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    base
}

/// The program as the CGI standard wants it started.
fn cgi(root: &Path, request: &Request) -> tokio::process::Command {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
            .to_owned()
    };
    let mut cgi = tokio::process::Command::new("git");
    cgi.arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", request.method().as_str())
        .env("PATH_INFO", request.uri().path())
        .env("QUERY_STRING", request.uri().query().unwrap_or(""))
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    cgi
}

async fn serve_git(State(root): State<Arc<std::path::PathBuf>>, request: Request) -> Response<Body> {
    let expected = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{TOKEN}"));
    let given = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    if given != Some(&format!("Basic {expected}")) {
        let refusal = Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header("www-authenticate", "Basic realm=x");
        return refusal.body(Body::empty()).unwrap();
    }
    let mut cgi = cgi(&root, &request);
    let mut cgi = cgi.spawn().unwrap();
    let body = to_bytes(request.into_body(), 1 << 24).await.unwrap();
    let mut stdin = cgi.stdin.take().unwrap();
    stdin.write_all(&body).await.unwrap();
    drop(stdin);
    let output = cgi.wait_with_output().await.unwrap().stdout;
    let split = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let mut answer = Response::builder();
    for line in String::from_utf8_lossy(&output[..split]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        answer = if name == "Status" {
            answer.status(&value[..3])
        } else {
            answer.header(name, value)
        };
    }
    answer.body(Body::from(output[split + 4..].to_vec())).unwrap()
}

#[tokio::test]
async fn a_private_clone_needs_the_token_and_leaves_no_trace_of_it() {
    let repository = repository();
    let root = repository.path().parent().unwrap();
    let name = repository.path().file_name().unwrap().to_str().unwrap();
    let base = private_server(root).await;
    let url = format!("{base}/{name}/.git");
    let with_userinfo = url.replace("http://", &format!("http://someone:{TOKEN}@"));
    for launch in [
        json!({"repo_url": url, "branch": "side", "git_token": TOKEN}),
        json!({"repo_url": with_userinfo, "branch": "side"}),
    ] {
        let model = Model::start([bash("env; cat .git/config; git fetch 2>&1; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -aF \"$(echo Z2hwX2NhbmFyeQ== | base64 -d)\""), say("ok")]).await;
        let place = Place::new();
        let running = place.start(&model.base, launch).await;
        assert_eq!(readiness(&running).await, Readiness::Ready);
        assert_eq!(
            std::fs::read_to_string(place.path("workspace/file.txt")).unwrap(),
            "side"
        );
        let running = running.opened().await;
        running.turn(&delivery("look for the token")).await;
        let seen = model.requests()[1].1.to_string();
        assert!(seen.contains(&format!("REPO_URL={url}")), "{seen}");
        assert!(seen.contains("terminal prompts disabled"), "{seen}");
        assert!(!seen.contains(TOKEN), "{seen}");
        running.sandboxd.stop().await;
        assert_gone(place.folder.path());
    }
    let place = Place::new();
    let running = place
        .start(
            "http://127.0.0.1:9",
            json!({"repo_url": url, "git_token": "wrong-token"}),
        )
        .await;
    let Readiness::Failed(reason) = readiness(&running).await else {
        panic!("a wrong token is enough")
    };
    assert!(
        reason.contains("Authentication failed") && !reason.contains("wrong-token"),
        "{reason}"
    );
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_workspace_and_finishes_no_half_clone() {
    let repository = repository();
    let launch = json!({"repo_url": format!("file://{}", repository.path().display())});
    let place = Place::new();
    let running = place.start("http://127.0.0.1:9", launch.clone()).await;
    assert_eq!(readiness(&running).await, Readiness::Ready);
    running.sandboxd.stop().await;
    std::fs::write(place.path("workspace/work.txt"), "not committed").unwrap();
    let running = place.start("http://127.0.0.1:9", launch.clone()).await;
    assert_eq!(readiness(&running).await, Readiness::Ready);
    running.sandboxd.stop().await;
    assert!(place.path("workspace/work.txt").exists());

    std::fs::remove_file(place.path("state/workspace.json")).unwrap();
    std::fs::remove_file(place.path("workspace/file.txt")).unwrap();
    let running = place.start("http://127.0.0.1:9", launch).await;
    assert_eq!(readiness(&running).await, Readiness::Ready);
    assert!(place.path("workspace/file.txt").exists());
    assert!(!place.path("workspace/work.txt").exists());
    running.sandboxd.stop().await;
}

#[tokio::test]
async fn without_a_repository_the_workspace_is_empty_and_ready_at_once() {
    let place = Place::new();
    let running = place
        .start("http://127.0.0.1:9", json!({"repo_url": Value::Null}))
        .await;
    assert_eq!(readiness(&running).await, Readiness::Ready);
    assert_eq!(std::fs::read_dir(place.path("workspace")).unwrap().count(), 0);
    running.sandboxd.stop().await;
}
