//! What is not run, not given and not taken.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::{LIMIT, NOWHERE, clone_of, repository, restore, take, write};
use crate::support::model::Model;
use crate::support::{PATIENCE, Place, call, delivery, raw};
use crate::workspace::git;
use lap_core::error::ErrorKind;
use lap_core::harness::Harness;
use serde_json::{Value, json};

/// The repository's own configuration names programs for everything git can call.
#[tokio::test]
async fn no_program_of_a_hostile_repository_is_run() {
    let repository = repository();
    write(
        repository.path(),
        ".gitattributes",
        b"*.txt filter=evil diff=evil\n",
    );
    git(repository.path(), &["add", "."]);
    git(repository.path(), &["commit", "-q", "-m", "attributes"]);
    let place = Place::new();
    let first = place
        .start(NOWHERE, clone_of(repository.path()))
        .await
        .opened()
        .await;
    let workspace = place.path("workspace");
    let witness = place.folder.path().join("witness");
    let program = format!("touch {}; cat", witness.display());
    for name in [
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.evil.textconv",
        "diff.evil.command",
        "diff.external",
        "core.fsmonitor",
        "core.pager",
        "pager.diff",
        "core.sshCommand",
        "credential.helper",
        "core.alternateRefsCommand",
        "gpg.program",
        "core.editor",
    ] {
        git(&workspace, &["config", name, &program]);
    }
    git(&workspace, &["config", "filter.evil.required", "true"]);
    for hook in ["post-index-change", "reference-transaction", "fsmonitor-watchman"] {
        let path = workspace.join(".git/hooks").join(hook);
        std::fs::write(&path, format!("#!/bin/sh\n{program}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    git(&workspace, &["config", "core.worktree", "/etc"]);
    let secret = place.folder.path().join("secret");
    std::fs::write(&secret, "canary").unwrap();
    std::fs::write(workspace.join("text.txt"), "changed\n").unwrap();
    let snapshot = take(&first, LIMIT).await;
    assert_eq!(snapshot.lost, Vec::<String>::new());
    assert!(!witness.exists());

    let other = Place::new();
    let second = other.start(NOWHERE, clone_of(repository.path())).await;
    assert_eq!(restore(&second, &snapshot).await, Vec::<String>::new());
    assert_eq!(
        std::fs::read(other.path("workspace/text.txt")).unwrap(),
        b"changed\n"
    );

    // A `.git` that leads elsewhere is no repository of this workspace.
    std::fs::rename(workspace.join(".git"), place.folder.path().join("elsewhere")).unwrap();
    symlink(place.folder.path().join("elsewhere"), workspace.join(".git")).unwrap();
    assert!(take(&first, LIMIT).await.lost.join("\n").contains("history"));
    assert!(!witness.exists());
}

#[tokio::test]
async fn snapshots_wait_for_turns_and_for_their_session() {
    let model = Model::start([crate::support::model::bash("sleep 60")]).await;
    let place = Place::new();
    let running = place.start(&model.base, json!({})).await;
    running
        .harness()
        .health(&running.contact, PATIENCE)
        .await
        .unwrap();
    let unbound = running
        .harness()
        .snapshot(&running.contact, LIMIT)
        .await
        .unwrap_err();
    assert_eq!(unbound.kind(), ErrorKind::WrongState);
    let running = running.opened().await;
    let delivered = delivery("work");
    let _events = running.send(&delivered).await;
    let path = format!("/lap/snapshot?limit_bytes={LIMIT}");
    let (status, problem) = call(&running, "GET", &path, Value::Null).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("busy")));
    running
        .harness()
        .abort(&running.contact, delivered.turn)
        .await
        .unwrap();
    let (status, _) = raw(&running, "GET", &path, None, Vec::new()).await;
    assert_eq!(status.as_u16(), 401);
}

#[tokio::test]
async fn hostile_stale_and_late_restorations_are_refused_and_change_nothing() {
    let place = Place::new();
    let first = place.start(NOWHERE, json!({})).await.opened().await;
    write(&place.path("workspace"), "file", b"x");
    let snapshot = take(&first, LIMIT).await;

    let other = Place::new();
    let second = other.start(NOWHERE, json!({})).await;
    second.harness().health(&second.contact, PATIENCE).await.unwrap();
    let token = second.contact.token.expose().to_owned();
    let restore = async |fence: &str, token: Option<&str>, body: Vec<u8>| {
        let path = format!("/lap/restore{fence}");
        raw(&second, "POST", &path, token, body).await.0.as_u16()
    };
    assert_eq!(restore("?fence=5", None, snapshot.bytes.clone()).await, 401);
    assert_eq!(restore("", Some(&token), snapshot.bytes.clone()).await, 400);
    for hostile in [
        Vec::new(),
        b"rubbish".to_vec(),
        snapshot.bytes[..snapshot.bytes.len() - 40].to_vec(),
    ] {
        assert_eq!(restore("?fence=5", Some(&token), hostile).await, 400);
    }
    assert_eq!(
        restore("?fence=5", Some(&token), vec![0; (64 << 20) + 1]).await,
        413
    );
    assert_eq!(std::fs::read_dir(other.path("workspace")).unwrap().count(), 0);
    assert!(!other.path("state/restored.json").exists());
    let stale = second
        .harness()
        .restore(&second.contact, 4, &snapshot)
        .await
        .unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Stale);
    assert_eq!(
        restore("?fence=5", Some(&token), snapshot.bytes.clone()).await,
        200
    );
    assert!(other.path("workspace/file").exists());

    let third = Place::new();
    let bound = third.start(NOWHERE, json!({})).await.opened().await;
    let late = bound
        .harness()
        .restore(&bound.contact, 1, &snapshot)
        .await
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::WrongState);
}
