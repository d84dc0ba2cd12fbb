//! The whole program in a process of its own, killed and restarted.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::model::{Line, Model, bash, say};
use crate::support::{
    PATIENCE, Place, delivery, eventually, surroundings, survivors, text, to_the_end, until,
};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use lap_core::harness::{Harness, HarnessEvents, Sent};
use lap_core::turn::TurnState;
use lap_sandboxd::Endpoint;
use serde_json::json;

/// Names the environment variable by which this test binary becomes sandboxd.
const ROLE: &str = "LAP_TEST_SANDBOXD";

/// Not a test of its own: the process that the tests below start is this function.
#[test]
fn sandboxd_process() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let document = std::io::read_to_string(std::io::stdin()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(lap_sandboxd::run(&document, surroundings(), std::io::stdout()))
        .unwrap();
}

struct Program {
    child: Child,
    endpoint: Endpoint,
    launched: Instant,
    /// Open, so that the test runner in the process can write its end.
    _output: Lines<BufReader<ChildStdout>>,
}

fn launch(place: &Place, gateway: &str) -> Program {
    let launched = Instant::now();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "process::sandboxd_process",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ROLE, "1")
        .env("LAP_SANDBOX_ID", place.sandbox.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(place.document(gateway, json!({})).as_bytes())
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    // The test runner's own words come before the line.
    assert!(
        output.any(|line| line.unwrap().contains("{\"address\"")),
        "sandboxd did not start"
    );
    let endpoint = serde_json::from_slice(&std::fs::read(place.path("endpoint.json")).unwrap()).unwrap();
    Program {
        child,
        endpoint,
        launched,
        _output: output,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sandboxd_leaves_one_outcome_and_no_process() {
    let model = Model::start([
        bash("echo begun > begun; setsid sleep 300 & sleep 300"),
        say("again"),
    ])
    .await;
    let place = Place::new();
    let mut first = launch(&place, &model.base);
    let at = place.contact(&first.endpoint.address.to_string());
    place.harness.health(&at, PATIENCE).await.unwrap();
    let conversation = place.harness.open(&at, &place.opening()).await.unwrap();
    let turn = delivery("go");
    let mut events = started(place.harness.send(&at, &turn).await.unwrap());
    let last = until(&mut events, |event| {
        event.properties["part"]["state"]["status"] == "running"
    })
    .await;
    eventually("the tool runs", || place.path("workspace/begun").exists()).await;
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(
        survivors(place.sandbox) > 0,
        "the tool dies with sandboxd, so the test shows nothing"
    );

    let mut second = launch(&place, &model.base);
    let at = place.contact(&second.endpoint.address.to_string());
    let health = place.harness.health(&at, PATIENCE).await.unwrap();
    assert_eq!(health.conversation.as_deref(), Some(conversation.as_str()));
    assert_eq!(health.session, Some(place.session.as_uuid()));
    eventually("only sandboxd is left", || survivors(place.sandbox) == 1).await;
    let (rest, outcome) = to_the_end(place.harness.attach(&at, last.seq, turn.turn).await.unwrap()).await;
    assert_eq!(rest[0].seq, last.seq + 1);
    assert_eq!(outcome.state, TurnState::Failed);
    assert!(outcome.failure.unwrap().starts_with("interrupted"));
    assert!(matches!(
        place.harness.send(&at, &turn).await.unwrap(),
        Sent::Known
    ));
    let again = delivery("and now?");
    let events = started(place.harness.send(&at, &again).await.unwrap());
    assert_eq!(text(&to_the_end(events).await.1), "again");
    place.harness.stop(&at).await.unwrap();
    assert!(second.child.wait().unwrap().success());

    // A third life finds nothing to end: the outcome is there once.
    let mut third = launch(&place, &model.base);
    let at = place.contact(&third.endpoint.address.to_string());
    to_the_end(place.harness.attach(&at, 0, turn.turn).await.unwrap()).await;
    terminate(&mut third.child);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_everything_below() {
    // env -i hides the marker and setsid the group; as a descendant it is found all the same.
    let hidden = "env -i setsid sleep 300 & setsid sh -c 'sleep 300 & sleep 300' & echo $! > pid; sleep 300";
    let model = Model::start([bash(hidden)]).await;
    let place = Place::new();
    let mut program = launch(&place, &model.base);
    let at = place.contact(&program.endpoint.address.to_string());
    place.harness.health(&at, PATIENCE).await.unwrap();
    place.harness.open(&at, &place.opening()).await.unwrap();
    let events = started(place.harness.send(&at, &delivery("go")).await.unwrap());
    eventually("the tool runs", || {
        place.path("workspace/pid").exists() && descendants(program.child.id()) >= 5
    })
    .await;
    let below = pids_below(program.child.id());
    terminate(&mut program.child);
    let (_, outcome) = to_the_end(events).await;
    assert!(outcome.failure.unwrap().starts_with("interrupted"));
    assert_eq!(survivors(place.sandbox), 0);
    let alive: Vec<_> = below.iter().filter(|pid| is_alive(**pid)).collect();
    assert!(alive.is_empty(), "{alive:?} of {below:?} survive");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sandboxd_on_the_folder_takes_it_over() {
    let model = Model::start([]).await;
    let place = Place::new();
    let mut first = launch(&place, &model.base);
    let mut second = launch(&place, &model.base);
    // Killed, not stopped: stopping would have ended the second one, which carries the same marker.
    assert!(!first.child.wait().unwrap().success());
    assert_ne!(first.endpoint.boot, second.endpoint.boot);
    let at = place.contact(&second.endpoint.address.to_string());
    place.harness.health(&at, PATIENCE).await.unwrap();
    terminate(&mut second.child);
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_tools_are_reaped() {
    let model = Model::start([
        bash("for n in 1 2 3 4 5; do setsid sleep 0.1 & done; exit 0"),
        say("ok"),
    ])
    .await;
    let place = Place::new();
    let mut program = launch(&place, &model.base);
    let at = place.contact(&program.endpoint.address.to_string());
    place.harness.health(&at, PATIENCE).await.unwrap();
    place.harness.open(&at, &place.opening()).await.unwrap();
    let events = started(place.harness.send(&at, &delivery("go")).await.unwrap());
    to_the_end(events).await;
    eventually("no zombie is left", || descendants(program.child.id()) == 0).await;
    terminate(&mut program.child);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement; run it with --release --ignored --nocapture"]
async fn how_fast() {
    let model = Model::start((0..200).map(|_| Line::Say(vec!["a".into(), "b".into()]))).await;
    let place = Place::new();
    let mut program = launch(&place, &model.base);
    let at = place.contact(&program.endpoint.address.to_string());
    place.harness.health(&at, PATIENCE).await.unwrap();
    println!("launch to ready: {:?}", program.launched.elapsed());
    place.harness.open(&at, &place.opening()).await.unwrap();
    let begun = Instant::now();
    for _ in 0..200 {
        place.harness.health(&at, Duration::ZERO).await.unwrap();
    }
    println!("health: mean {:?}", begun.elapsed() / 200);
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    let client = Client::builder(TokioExecutor::new()).build_http();
    for _ in 0..100 {
        let body = model
            .requests()
            .last()
            .map_or("{}".to_owned(), |(_, body)| body.to_string());
        let begun = Instant::now();
        let request =
            Request::post(format!("{}/v1/chat/completions", model.base)).body(Full::<Bytes>::from(body));
        let mut answer = client.request(request.unwrap()).await.unwrap();
        answer.frame().await.unwrap().unwrap();
        direct.push(begun.elapsed());
        while answer.frame().await.is_some() {}

        let begun = Instant::now();
        let mut events = started(place.harness.send(&at, &delivery("go")).await.unwrap());
        until(&mut events, |event| event.kind == "message.part.delta").await;
        through.push(begun.elapsed());
        to_the_end(events).await;
    }
    direct.sort();
    through.sort();
    println!(
        "request to first chunk at the model: p50 {:?}, p90 {:?}",
        direct[50], direct[90]
    );
    println!(
        "send to first delta through sandboxd: p50 {:?}, p90 {:?}",
        through[50], through[90]
    );
    terminate(&mut program.child);
}

fn started(sent: Sent) -> HarnessEvents {
    match sent {
        Sent::Started(events) => events,
        refused => panic!("{refused:?}"),
    }
}

impl Drop for Program {
    /// A test that fails leaves nothing behind. A second panic would hide the first, so nothing is checked here.
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        let deadline = Instant::now() + Duration::from_secs(15);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
    }
}

fn terminate(child: &mut Child) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "sandboxd does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Processes below `root`, zombies included.
fn pids_below(root: u32) -> Vec<u32> {
    let listing = Command::new("sh")
        .args(["-c", "cat /proc/[0-9]*/stat 2>/dev/null"])
        .output()
        .unwrap();
    let mut parents = Vec::new();
    for line in String::from_utf8_lossy(&listing.stdout).lines() {
        let (Some((pid, _)), Some((_, rest))) = (line.split_once(' '), line.rsplit_once(')')) else {
            continue;
        };
        let parent = rest.split_ascii_whitespace().nth(1).unwrap_or("0");
        parents.push((pid.parse::<u32>().unwrap(), parent.parse::<u32>().unwrap()));
    }
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(
            parents
                .iter()
                .filter(|(_, above)| *above == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    found.split_off(1)
}

fn descendants(root: u32) -> usize {
    pids_below(root).len()
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
