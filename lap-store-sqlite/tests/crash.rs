//! kill -9 in the middle of writes: what was acknowledged is there, and nothing is there by halves.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod scene;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lap_core::id::SessionId;
use lap_core::store::{Events as _, Sessions as _};
use scene::Scene;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

/// Names the database for the child process.
const PATH: &str = "LAP_TEST_CRASH_DATABASE";

/// The child: whole lives of sessions, several at once, each acknowledged step told on standard output.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is the child process of the crash test"]
async fn write_until_killed() {
    let Ok(path) = std::env::var(PATH) else { return };
    let scene = std::sync::Arc::new(Scene::new(Path::new(&path)).await);
    scene.beat().await;
    let lives: Vec<_> = (0..4)
        .map(|_| {
            let scene = std::sync::Arc::clone(&scene);
            tokio::spawn(async move {
                loop {
                    live(&scene).await;
                }
            })
        })
        .collect();
    futures_util::future::join_all(lives).await;
}

async fn live(scene: &Scene) {
    let open = scene.new_open();
    let session = open.session;
    let bring_up = scene.open(open).await;
    tell("opened", session, 2);
    let (turn, item) = scene.ready(session, &bring_up).await;
    tell("ready", session, 3);
    scene.accept(session).await;
    tell("accepted", session, 4);
    for number in 0..3 {
        scene.append(session, &item, turn).await;
        tell("appended", session, 6 + number);
    }
    scene.finish(turn, &item).await;
    tell("finished", session, 9);
}

fn tell(what: &str, session: SessionId, head: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ack {what} {session} {head}").unwrap();
    out.flush().unwrap();
}

/// Starts the child, kills it a moment after this many acknowledgements, and returns all it told.
fn killed_after(path: &Path, acknowledgements: usize, delay: Duration) -> Vec<(SessionId, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "write_until_killed", "--ignored", "--nocapture"])
        .env(PATH, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut told = Vec::new();
    let mut is_alive = true;
    for line in out.lines() {
        let line = line.unwrap();
        // The harness of the test prints before it, on the same line.
        let Some(start) = line.find("ack ") else { continue };
        let words: Vec<_> = line[start..].split(' ').collect();
        let [_, _, session, head] = words[..] else {
            continue;
        };
        if let (Ok(session), Ok(head)) = (session.parse(), head.parse()) {
            told.push((session, head));
        }
        if told.len() == acknowledgements && is_alive {
            // Not to wait for anything: an acknowledgement is always between two writes, and the kill must not be.
            std::thread::sleep(delay);
            child.kill().unwrap();
            is_alive = false;
        }
    }
    child.wait().unwrap();
    assert!(
        told.len() >= acknowledgements,
        "the child ended by itself after {} lines",
        told.len()
    );
    told
}

/// Each finds rows that break a rule; none may.
const RULES: &[(&str, &str)] = &[
    (
        "event ids have no gaps",
        "SELECT h.session FROM lap_event_heads h LEFT JOIN lap_events e ON e.session = h.session \
      GROUP BY h.session HAVING count(e.id) <> h.last OR max(e.id) <> h.last OR min(e.id) <> 1",
    ),
    (
        "a creating session has its bring-up",
        "SELECT id FROM lap_sessions s WHERE state = 'creating' AND NOT EXISTS \
      (SELECT 1 FROM lap_work WHERE kind = 'bring_up' AND key = s.id)",
    ),
    (
        "a ready session is over with its bring-up",
        "SELECT id FROM lap_sessions s WHERE state = 'ready' AND EXISTS \
      (SELECT 1 FROM lap_work WHERE kind = 'bring_up' AND key = s.id)",
    ),
    (
        "a ready session is reaped some day",
        "SELECT id FROM lap_sessions s WHERE state = 'ready' AND NOT EXISTS \
      (SELECT 1 FROM lap_work WHERE kind = 'reap' AND key = s.id)",
    ),
    (
        "an active session has its live sandbox",
        "SELECT s.id FROM lap_sessions s LEFT JOIN lap_sandboxes b ON b.id = s.sandbox \
      WHERE b.session IS NOT s.id OR b.state <> iif(s.state = 'ready', 'claimed', 'provisioning')",
    ),
    (
        "an open turn is somebody's work",
        "SELECT id FROM lap_turns t WHERE state IN ('sending', 'running') AND NOT EXISTS \
      (SELECT 1 FROM lap_work WHERE kind = 'turn' AND key = t.session)",
    ),
    (
        "a session is remembered by its request",
        "SELECT id FROM lap_sessions s WHERE NOT EXISTS \
      (SELECT 1 FROM lap_idempotency WHERE result = s.id)",
    ),
    (
        "a session has its opening",
        "SELECT id FROM lap_sessions WHERE id NOT IN (SELECT session FROM lap_openings)",
    ),
    (
        "an accepted turn has its event",
        "SELECT id FROM lap_turns t WHERE (SELECT count(*) FROM lap_events \
      WHERE session = t.session AND turn = t.id AND kind = 'turn.accepted') <> 1",
    ),
    (
        "a finished turn has its event",
        "SELECT id FROM lap_turns t WHERE (SELECT count(*) FROM lap_events \
      WHERE session = t.session AND turn = t.id AND kind = 'turn.finished') <> (finished_at IS NOT NULL)",
    ),
];

async fn check(path: &Path, told: &[(SessionId, u64)]) {
    // Opening the store recovers the log; it also refuses a damaged file.
    let scene = Scene::new(path).await;
    for (session, head) in told {
        let page = scene.store.events(*session, 0, 0).await.unwrap();
        let stored = page.map_or(0, |page| page.head);
        assert!(
            stored >= *head,
            "{session} was told to be at {head} and is at {stored}"
        );
        assert!(scene.store.session(*session).await.unwrap().is_some());
    }
    scene.store.close().await;
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .unwrap();
    let integrity: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(integrity, "ok");
    let dangling = sqlx::query("PRAGMA foreign_key_check")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert!(dangling.is_empty());
    for (rule, breaches) in RULES {
        let breaches: Vec<String> = sqlx::query_scalar(*breaches)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        assert!(breaches.is_empty(), "{rule}: {breaches:?}");
    }
    connection.close().await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_and_nothing_is_there_by_halves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lap.db");
    let mut told = Vec::new();
    // Many short lives, so that kills hit different moments of different writes.
    for round in 0..24 {
        let acknowledgements = 1 + round * 11 % 60;
        let delay = Duration::from_micros(round as u64 * 271 % 3000);
        told.extend(killed_after(&path, acknowledgements, delay));
        check(&path, &told).await;
    }
    let sessions: BTreeSet<_> = told.iter().map(|(session, _)| *session).collect();
    assert!(sessions.len() > 40, "only {} sessions began", sessions.len());
}
