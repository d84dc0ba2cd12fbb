//! What a server says when it cannot start, and what it leaves alone then.

use std::process::{Command, Output};

use crate::server::{BINARY, Server};

fn start(folder: &std::path::Path, arguments: &[&str]) -> Output {
    Command::new(BINARY)
        .args(["--dev", "--data-dir"])
        .arg(folder)
        .args(arguments)
        .current_dir(folder.parent().unwrap())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_taken_port_is_named_and_nothing_is_touched() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = start(&folder.path().join("data"), &["--port", &port]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains(&port) && said(&output).contains("choose another PORT"),
        "{}",
        said(&output)
    );
    assert!(!folder.path().join("data/lap.db").exists());
}

#[test]
fn a_file_that_is_no_database_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("lap.db"), "this is a diary and no database").unwrap();
    let output = start(&data, &["--port", "0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("lap.db"), "{}", said(&output));
    assert_eq!(
        std::fs::read_to_string(data.join("lap.db")).unwrap(),
        "this is a diary and no database"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_folder_is_refused() {
    let server = Server::start().await;
    let output = start(&server.data(), &["--port", "0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("lap.db"), "{}", said(&output));
    let (status, _) = server.client.get("/readyz").await;
    assert_eq!(status, 200, "the first one goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused() {
    let server = Server::start().await;
    let stranger = crate::client::Client::new(&server.client.base, "sk-wrong");
    for path in ["/agents", "/sessions"] {
        let (status, answer) = stranger.get(path).await;
        assert_eq!(
            (status, answer["error"].as_str()),
            (401, Some("unauthorized")),
            "{answer}"
        );
    }
}
