//! Work that outlives its sandbox: taken from one with the real client, given to another one.

mod refused;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::model::{Model, say};
use crate::support::{PATIENCE, Place, Running, delivery, eventually, text};
use crate::workspace::git;
use lap_core::error::ErrorKind;
use lap_core::harness::{Harness, Snapshot};
use serde_json::{Value, json};

const LIMIT: usize = 8 << 20;
const NOWHERE: &str = "http://127.0.0.1:9";

/// A repository with a text, a binary, a file to remove, one to rename, and rules for what is ignored.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    git(path, &["init", "-q"]);
    write(path, "text.txt", b"one\ntwo\nthree\nfour\nfive\nsix\nseven\n");
    write(path, "binary.dat", &(0..=255).collect::<Vec<u8>>());
    write(path, "remove.txt", b"away");
    write(path, "old name.txt", b"the same content before and after");
    write(path, ".gitignore", b"ignored/\n*.log\n");
    git(path, &["add", "."]);
    git(path, &["commit", "-q", "-m", "first"]);
    folder
}

fn write(folder: &Path, path: &str, content: &[u8]) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn clone_of(repository: &Path) -> Value {
    json!({"repo_url": format!("file://{}", repository.display())})
}

async fn take(running: &Running<'_>, limit: usize) -> Snapshot {
    running.harness().snapshot(&running.contact, limit).await.unwrap()
}

/// Gives the snapshot to a fresh sandbox and returns what was lost.
async fn restore(running: &Running<'_>, snapshot: &Snapshot) -> Vec<String> {
    running
        .harness()
        .health(&running.contact, PATIENCE)
        .await
        .unwrap();
    running
        .harness()
        .restore(&running.contact, 1, snapshot)
        .await
        .unwrap()
}

fn damage(workspace: &Path) {
    write(
        workspace,
        "text.txt",
        b"one\ntwo\nTHREE\nfour\nfive\nsix\nseven\n",
    );
    write(workspace, "binary.dat", &[0, 255, 0, 7, 10, 13, 0]);
    std::fs::remove_file(workspace.join("remove.txt")).unwrap();
    git(workspace, &["mv", "old name.txt", "new \u{fc}name.txt"]);
    write(workspace, "new/deep/file.bin", &[0, 1, 2, 255]);
    write(workspace, "run.sh", b"#!/bin/sh\n");
    std::fs::set_permissions(workspace.join("run.sh"), PermissionsExt::from_mode(0o750)).unwrap();
    write(workspace, "ignored/big", b"not kept");
    write(workspace, "debug.log", b"not kept");
    symlink("/etc/passwd", workspace.join("out")).unwrap();
    symlink("text.txt", workspace.join("in")).unwrap();
}

/// Everything of [`damage`] is there but what is ignored.
fn assert_restored(workspace: &Path) {
    let read = |path: &str| std::fs::read(workspace.join(path)).unwrap();
    assert_eq!(read("text.txt"), b"one\ntwo\nTHREE\nfour\nfive\nsix\nseven\n");
    assert_eq!(read("binary.dat"), [0, 255, 0, 7, 10, 13, 0]);
    assert_eq!(read("new \u{fc}name.txt"), b"the same content before and after");
    assert_eq!(read("new/deep/file.bin"), [0, 1, 2, 255]);
    assert_eq!(
        std::fs::read_link(workspace.join("out")).unwrap(),
        Path::new("/etc/passwd")
    );
    assert_eq!(
        std::fs::read_link(workspace.join("in")).unwrap(),
        Path::new("text.txt")
    );
    let mode = std::fs::metadata(workspace.join("run.sh"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o750);
    for gone in ["remove.txt", "old name.txt", "ignored", "debug.log"] {
        assert!(std::fs::symlink_metadata(workspace.join(gone)).is_err(), "{gone}");
    }
}

#[tokio::test]
async fn every_kind_of_change_comes_back_in_another_sandbox() {
    let repository = repository();
    let model = Model::start([say("noted"), say("it is plover")]).await;
    let place = Place::new();
    let first = place
        .start(&model.base, clone_of(repository.path()))
        .await
        .opened()
        .await;
    first.turn(&delivery("the codeword is plover")).await;
    damage(&place.path("workspace"));
    let status = git(
        &place.path("workspace"),
        &["status", "--porcelain", "--no-renames"],
    );
    let snapshot = take(&first, LIMIT).await;
    assert_eq!(snapshot.lost, Vec::<String>::new());
    first.sandboxd.stop().await;

    let mut other = Place::new();
    other.session = place.session;
    let second = other.start(&model.base, clone_of(repository.path())).await;
    assert_eq!(restore(&second, &snapshot).await, Vec::<String>::new());
    // Again is fine, before and after a session took it.
    assert_eq!(restore(&second, &snapshot).await, Vec::<String>::new());
    let second = second.opened().await;
    assert_eq!(restore(&second, &snapshot).await, Vec::<String>::new());

    let workspace = other.path("workspace");
    assert_restored(&workspace);
    git(&workspace, &["add", "."]);
    git(&place.path("workspace"), &["add", "."]);
    let staged = git(&workspace, &["status", "--porcelain", "--no-renames"]);
    assert_eq!(
        staged,
        git(
            &place.path("workspace"),
            &["status", "--porcelain", "--no-renames"]
        )
    );
    assert!(!status.is_empty());

    let (_, outcome) = second.turn(&delivery("what was the codeword?")).await;
    assert_eq!(text(&outcome), "it is plover");
    let asked = model.requests().last().unwrap().1.to_string();
    assert!(
        asked.contains("the codeword is plover") && asked.contains("noted"),
        "{asked}"
    );
    assert_eq!(place.harness.messages(&second.contact).await.unwrap().len(), 4);
    second.sandboxd.stop().await;
}

#[tokio::test]
async fn own_commits_and_branches_come_back() {
    let repository = repository();
    let place = Place::new();
    let first = place
        .start(NOWHERE, clone_of(repository.path()))
        .await
        .opened()
        .await;
    let workspace = place.path("workspace");
    git(&workspace, &["checkout", "-q", "-b", "fix/it"]);
    write(&workspace, "text.txt", b"committed\n");
    git(&workspace, &["commit", "-q", "-a", "-m", "mine"]);
    write(&workspace, "text.txt", b"committed\nand not\n");
    let head = git(&workspace, &["rev-parse", "HEAD"]);
    let snapshot = take(&first, LIMIT).await;
    assert_eq!(snapshot.lost, Vec::<String>::new());

    let other = Place::new();
    let second = other.start(NOWHERE, clone_of(repository.path())).await;
    assert_eq!(restore(&second, &snapshot).await, Vec::<String>::new());
    let workspace = other.path("workspace");
    assert_eq!(git(&workspace, &["rev-parse", "HEAD"]), head);
    assert_eq!(git(&workspace, &["symbolic-ref", "--short", "HEAD"]), "fix/it\n");
    assert_eq!(git(&workspace, &["status", "--porcelain"]), " M text.txt\n");
    assert_eq!(
        std::fs::read(workspace.join("text.txt")).unwrap(),
        b"committed\nand not\n"
    );

    // The branch moves on, so the clone no longer has what the commits are based on: only their changes come.
    write(repository.path(), "other.txt", b"theirs");
    git(repository.path(), &["add", "."]);
    git(repository.path(), &["commit", "-q", "-m", "theirs"]);
    let third = Place::new();
    let moved = third.start(NOWHERE, clone_of(repository.path())).await;
    let lost = restore(&moved, &snapshot).await;
    assert!(
        lost.len() == 1 && lost[0].contains("1 commits as such"),
        "{lost:?}"
    );
    let workspace = third.path("workspace");
    assert_eq!(
        std::fs::read(workspace.join("text.txt")).unwrap(),
        b"committed\nand not\n"
    );
    assert_eq!(std::fs::read(workspace.join("other.txt")).unwrap(), b"theirs");
}

#[tokio::test]
async fn a_branch_that_moved_keeps_its_files_where_changes_conflict() {
    let repository = repository();
    let place = Place::new();
    let first = place
        .start(NOWHERE, clone_of(repository.path()))
        .await
        .opened()
        .await;
    let workspace = place.path("workspace");
    write(
        &workspace,
        "text.txt",
        b"one\ntwo\nMINE\nfour\nfive\nsix\nseven\n",
    );
    write(&workspace, "binary.dat", b"\0mine");
    write(&workspace, "theirs.txt", b"mine");
    let snapshot = take(&first, LIMIT).await;

    write(
        repository.path(),
        "text.txt",
        b"one\ntwo\nTHEIRS\nfour\nfive\nsix\nseven\n",
    );
    write(repository.path(), "theirs.txt", b"theirs");
    git(repository.path(), &["add", "."]);
    git(repository.path(), &["commit", "-q", "-m", "theirs"]);
    let other = Place::new();
    let second = other.start(NOWHERE, clone_of(repository.path())).await;
    let lost = restore(&second, &snapshot).await.join("\n");
    assert!(
        lost.contains("the changes to text.txt: they conflict with the branch"),
        "{lost}"
    );
    assert!(
        lost.contains("the file theirs.txt: the branch has a file there now"),
        "{lost}"
    );
    assert!(lost.contains("state/rejected.patch"), "{lost}");
    let workspace = other.path("workspace");
    let content = std::fs::read_to_string(workspace.join("text.txt")).unwrap();
    assert!(
        content.contains("THEIRS") && !content.contains("<<<<"),
        "{content}"
    );
    assert_eq!(std::fs::read(workspace.join("binary.dat")).unwrap(), b"\0mine");
    assert_eq!(std::fs::read(workspace.join("theirs.txt")).unwrap(), b"theirs");
    let patch = std::fs::read_to_string(other.path("state/rejected.patch")).unwrap();
    assert!(
        patch.contains("+MINE") && !patch.contains("binary.dat"),
        "{patch}"
    );
}

#[tokio::test]
async fn a_folder_without_git_and_one_the_agent_made_a_repository_come_back() {
    let place = Place::new();
    let first = place.start(NOWHERE, json!({})).await.opened().await;
    let workspace = place.path("workspace");
    write(&workspace, "a/b.txt", b"kept");
    write(&workspace, "node_modules/x/index.js", b"made by tools");
    write(
        &workspace,
        "build/CACHEDIR.TAG",
        b"Signature: 8a477f597d28d172789f06886806bc55",
    );
    let fifo = workspace.join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(fifo)
            .status()
            .unwrap()
            .success()
    );
    let plain = take(&first, LIMIT).await;
    let lost = plain.lost.join("\n");
    assert!(
        plain.lost.len() == 2 && lost.contains("node_modules") && lost.contains("build"),
        "{lost}"
    );

    git(&workspace, &["init", "-q", "-b", "trunk"]);
    write(&workspace, ".gitignore", b"node_modules\nbuild\n");
    let unborn = take(&first, LIMIT).await;
    git(&workspace, &["add", "."]);
    git(&workspace, &["commit", "-q", "-m", "first"]);
    write(&workspace, "a/b.txt", b"changed");
    let born = take(&first, LIMIT).await;
    for (snapshot, branch, content) in [
        (plain, None, "kept"),
        (unborn, Some("trunk"), "kept"),
        (born, Some("trunk"), "changed"),
    ] {
        let other = Place::new();
        let second = other.start(NOWHERE, json!({})).await;
        assert_eq!(restore(&second, &snapshot).await, Vec::<String>::new());
        let workspace = other.path("workspace");
        assert_eq!(
            std::fs::read_to_string(workspace.join("a/b.txt")).unwrap(),
            content
        );
        assert!(!workspace.join("pipe").exists() && !workspace.join("node_modules").exists());
        assert_eq!(workspace.join(".git").exists(), branch.is_some());
        if let Some(branch) = branch {
            assert_eq!(
                git(&workspace, &["symbolic-ref", "--short", "HEAD"]).trim(),
                branch
            );
        }
    }
}

#[tokio::test]
async fn what_is_too_large_is_left_out_by_size_and_named() {
    let repository = repository();
    let model = Model::start([say("a reply that is kept")]).await;
    let place = Place::new();
    let first = place
        .start(&model.base, clone_of(repository.path()))
        .await
        .opened()
        .await;
    first.turn(&delivery("remember this")).await;
    let workspace = place.path("workspace");
    let mut state = 1u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        (0..length).map(|_| next()).collect()
    };
    write(&workspace, "small.bin", &noise(2_000));
    write(&workspace, "middle.bin", &noise(20_000));
    write(&workspace, "large.bin", &noise(300_000));
    write(&workspace, "binary.dat", &noise(200_000));
    let limit = 64 * 1024;
    let snapshot = take(&first, limit).await;
    assert!(snapshot.bytes.len() <= limit);
    assert_eq!(snapshot.lost.len(), 2, "{:?}", snapshot.lost);
    assert!(
        snapshot.lost[0].contains("the changes to binary.dat"),
        "{:?}",
        snapshot.lost
    );
    assert!(
        snapshot.lost[1].contains("the file large.bin: it does not fit (293 KiB)"),
        "{:?}",
        snapshot.lost
    );
    let other = Place::new();
    let second = other.start(NOWHERE, clone_of(repository.path())).await;
    assert_eq!(restore(&second, &snapshot).await, Vec::<String>::new());
    let workspace = other.path("workspace");
    assert!(workspace.join("middle.bin").exists() && !workspace.join("large.bin").exists());
    let second = second.opened().await;
    assert_eq!(second.harness().messages(&second.contact).await.unwrap().len(), 2);

    let refused = first.harness().snapshot(&first.contact, 100).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

/// A crash in the middle leaves half of the files; the next attempt begins again.
#[tokio::test]
async fn a_restoration_that_broke_off_is_done_again_from_the_start() {
    let repository = repository();
    let place = Place::new();
    let first = place
        .start(NOWHERE, clone_of(repository.path()))
        .await
        .opened()
        .await;
    damage(&place.path("workspace"));
    let snapshot = take(&first, LIMIT).await;
    let other = Place::new();
    let second = other.start(NOWHERE, clone_of(repository.path())).await;
    assert_eq!(restore(&second, &snapshot).await, Vec::<String>::new());
    let marker = other.path("state/restored.json");
    let mut content: Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
    content["lost"] = Value::Null;
    std::fs::write(&marker, content.to_string()).unwrap();
    std::fs::remove_file(other.path("workspace/run.sh")).unwrap();
    assert_eq!(restore(&second, &snapshot).await, Vec::<String>::new());
    assert!(other.path("workspace/run.sh").exists());
    eventually("the staging folder is removed", || {
        !other.path("state/restoring").exists()
    })
    .await;
}
