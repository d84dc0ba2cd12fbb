//! What a start does with what it finds at the path.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lap_conformance::ManualClock;
use lap_core::error::{Error, ErrorKind};
use lap_core::id::{InstanceId, SeededEntropy};
use lap_core::seal::Sealed;
use lap_core::store::{Installation as _, Instance};
use lap_core::time::Timestamp;
use lap_store_sqlite::{SqliteOptions, SqliteStore};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

fn options(path: &Path) -> SqliteOptions {
    SqliteOptions {
        patience: Duration::ZERO,
        ..SqliteOptions::new(path, Arc::new(ManualClock::default()))
    }
}

fn instance(seed: u64) -> Instance {
    let id = InstanceId::fresh(&SeededEntropy::new(seed), Timestamp::from_unix_millis(1));
    Instance {
        id,
        signing_seed: Sealed::from_text(format!("plain:{seed}")),
    }
}

/// A database with one row, closed.
async fn made(folder: &Path) -> PathBuf {
    let path = folder.join("lap.db");
    let store = SqliteStore::open(options(&path)).await.unwrap();
    store.instance(instance(1)).await.unwrap();
    store.close().await;
    path
}

async fn by_hand(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .unwrap()
}

async fn refused(path: &Path) -> Error {
    let before = fs::read(path).unwrap();
    let error = SqliteStore::open(options(path)).await.unwrap_err();
    assert_eq!(fs::read(path).unwrap(), before, "a refused file must not change");
    error
}

#[tokio::test]
async fn the_folder_is_made_and_the_data_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(&folder.path().join("a/b")).await;
    let store = SqliteStore::open(options(&path)).await.unwrap();
    assert_eq!(store.instance(instance(2)).await.unwrap(), instance(1));
    assert_eq!(store.path(), path);
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_read_what_it_makes() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lap.db");
    let store = SqliteStore::open(options(&path)).await.unwrap();
    store.instance(instance(1)).await.unwrap();
    let files = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path());
    let rights: Vec<_> = files
        .map(|file| fs::metadata(&file).unwrap().permissions().mode() & 0o777)
        .collect();
    assert!(rights.len() >= 3, "the database, its log and its lock");
    assert!(rights.iter().all(|mode| *mode == 0o600), "{rights:?}");
    store.close().await;
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path()).await;
    let before = fs::read(&path).unwrap();
    SqliteStore::open(options(&path)).await.unwrap().close().await;
    assert_eq!(fs::read(&path).unwrap(), before);
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM lap_migrations")
        .fetch_one(&mut by_hand(&path).await)
        .await
        .unwrap();
    assert_eq!(applied, 1);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_says_who_wrote_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path()).await;
    let mut newer = by_hand(&path).await;
    newer
        .execute("INSERT INTO lap_migrations VALUES (99, 'later', 1, '7.8.9')")
        .await
        .unwrap();
    newer.close().await.unwrap();
    let error = refused(&path).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.message().contains("7.8.9") && error.message().contains("schema 99"),
        "{error}"
    );
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn what_is_not_a_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "these are my notes, not a database").unwrap();
    let error = refused(&path).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("notes.txt"), "{error}");
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left next to it"
    );
}

#[tokio::test]
async fn a_database_with_one_damaged_page_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path()).await;
    let whole = fs::read(&path).unwrap();
    for page in 1..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
        fs::write(&path, &bytes).unwrap();
        let error = refused(&path).await;
        assert_eq!(error.kind(), ErrorKind::Corrupt, "page {page}: {error}");
        assert!(error.message().contains("damaged"), "page {page}: {error}");
    }
}

#[tokio::test]
async fn a_cut_off_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = made(folder.path()).await;
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(refused(&path).await.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_second_server_is_refused_until_the_first_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lap.db");
    let first = SqliteStore::open(options(&path)).await.unwrap();
    let error = SqliteStore::open(options(&path)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState);
    assert!(error.message().contains("lap.db.lock"), "{error}");
    assert!(
        error.message().contains(&std::process::id().to_string()),
        "{error}"
    );
    first.close().await;
    SqliteStore::open(options(&path)).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_dropped_lets_go_soon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lap.db");
    drop(SqliteStore::open(options(&path)).await.unwrap());
    let patient = SqliteOptions {
        patience: Duration::from_secs(30),
        ..options(&path)
    };
    SqliteStore::open(patient).await.unwrap();
}

#[tokio::test]
async fn a_closed_store_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(options(&folder.path().join("lap.db")))
        .await
        .unwrap();
    store.close().await;
    store.close().await;
    assert_eq!(store.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(
        store.instance(instance(1)).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn a_path_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let below_a_file = folder.path().join("file/below/lap.db");
    let a_folder = folder.path().to_owned();
    for path in [below_a_file, a_folder] {
        let error = SqliteStore::open(options(&path)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::Invalid, Some("path")),
            "{error}"
        );
        assert!(
            error.message().contains(folder.path().to_str().unwrap()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_hosts_own_tables_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.db");
    let mut host = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    host.execute("CREATE TABLE customers (name TEXT); INSERT INTO customers VALUES ('Ada')")
        .await
        .unwrap();
    host.close().await.unwrap();
    SqliteStore::open(options(&path)).await.unwrap().close().await;
    let name: String = sqlx::query_scalar("SELECT name FROM customers")
        .fetch_one(&mut by_hand(&path).await)
        .await
        .unwrap();
    assert_eq!(name, "Ada");
}
