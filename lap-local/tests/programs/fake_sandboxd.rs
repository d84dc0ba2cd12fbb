//! A stand-in for sandboxd, and for a server that is killed.
//!
//! `sandboxd` reads the launch document, does what its variable `FAKE` says, and writes `endpoint.json`.
//! `server DATA SANDBOX INSTANCE MODE` launches one sandbox through `LocalRuntime`, says so, and waits to be killed.
//! `cycle DATA WORDS MODE` launches one and stops it.
#![expect(
    clippy::unwrap_used,
    reason = "a program of the tests: a panic is its way to say that something is wrong"
)]
#![expect(clippy::print_stdout, reason = "the tests read it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lap_core::blueprint::Blueprint;
use lap_core::capability::Isolation;
use lap_core::id::{InstanceId, SandboxId, SystemEntropy};
use lap_core::runtime::{Endpoint, LaunchSpec, SandboxRuntime};
use lap_core::time::{Clock, SystemClock};
use lap_core::token::SigningKey;
use lap_core::vault::GatewayAccess;
use lap_local::{LocalConfig, LocalRuntime};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments[1].as_str() {
        "sandboxd" => sandboxd().await,
        "hog" => hog().await,
        "deaf" => std::future::pending().await,
        "server" => server(&arguments[2], &arguments[3], &arguments[4], &arguments[5]).await,
        "cycle" => cycle(&arguments[2], &arguments[3], &arguments[4]).await,
        other => panic!("unknown part {other}"),
    }
}

async fn sandboxd() {
    // Fails where the server was killed just now.
    let _ = lap_local::leave_terminal();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let folder = Path::new(document["folder"].as_str().unwrap());
    // A second start shows here.
    let starts = std::fs::read_to_string(folder.join("state/starts")).unwrap_or_default();
    std::fs::write(
        folder.join("state/starts"),
        format!("{starts}{}\n", std::process::id()),
    )
    .unwrap();
    std::fs::write(
        folder.join("state/had_token"),
        document["git_token"].is_string().to_string(),
    )
    .unwrap();
    let words = document["env"]["FAKE"].as_str().unwrap_or_default().to_owned();
    for word in words.split_whitespace() {
        act(word, folder, &document).await;
    }
    let ignore = words.contains("stubborn");
    let mut term = signal(SignalKind::terminate()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    announce(
        folder,
        document["sandbox"].as_str().unwrap(),
        &listener.local_addr().unwrap().to_string(),
    );
    if words.contains("locked") {
        spawn(folder, "chmod 000 workspace/locked/in workspace/locked .");
    }
    loop {
        term.recv().await;
        if !ignore {
            return;
        }
    }
}

async fn act(word: &str, folder: &Path, document: &Value) {
    match word {
        "crash" => {
            eprint_line("the workspace cannot be prepared");
            std::process::exit(7);
        }
        "hang" => std::future::pending().await,
        "stubborn" => {}
        // What ties them to the sandbox: the marker, the folder, nothing but their parents.
        "daemon" => spawn(Path::new("/"), &sleepers("setsid", folder, 1)),
        "cleared" => spawn(folder, &sleepers("env -i setsid", folder, 2)),
        "stranger" => spawn(Path::new("/"), &sleepers("env -i setsid", folder, 3)),
        // More than the tests allow, of memory and of processes.
        "greedy" => {
            let own = std::env::current_exe().unwrap();
            spawn(folder, &format!("setsid {} hog &", own.display()));
        }
        "prolific" => spawn(
            folder,
            "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do setsid sleep 1006 & done",
        ),
        // Whatever the test wants to have tried from inside.
        "script" => {
            let script = document["env"]["SCRIPT"].as_str().unwrap();
            let output = Command::new("sh")
                .args(["-c", script])
                .current_dir(folder.join("workspace"))
                .output();
            let output = output.unwrap();
            std::fs::write(folder.join("state/said"), [output.stdout, output.stderr].concat()).unwrap();
        }
        // Its rights go after the address is told.
        "locked" => {
            std::fs::create_dir_all(folder.join("workspace/locked/in")).unwrap();
            std::fs::write(folder.join("workspace/locked/in/file"), "x").unwrap();
        }
        "chatty" => (0..1000).for_each(|line| println!("line {line}")),
        other => panic!("unknown act {other}"),
    }
}

/// Holds 300 MiB that are really there.
async fn hog() {
    let memory = vec![1_u8; 300 << 20];
    std::future::pending::<()>().await;
    drop(memory);
}

/// Two processes in a session of their own. How long they sleep says whose they are, because nothing else needs to.
fn sleepers(words: &str, folder: &Path, kind: u32) -> String {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let number = u64::from_str_radix(name.rsplit('-').next().unwrap(), 16).unwrap();
    format!("{words} sh -c 'sleep 100{kind}.{number} & sleep 100{kind}.{number}' &")
}

fn eprint_line(line: &str) {
    use std::io::Write;
    std::io::stderr()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

fn spawn(at: &Path, script: &str) {
    let status = Command::new("sh")
        .args(["-c", script])
        .current_dir(at)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

fn announce(folder: &Path, sandbox: &str, address: &str) {
    let pid = std::process::id();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let started = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .nth(19)
        .unwrap();
    let line = json!({
        "address": address, "pid": pid, "started": started, "sandbox": sandbox, "boot": sandbox,
    });
    std::fs::write(folder.join("endpoint.json.new"), line.to_string()).unwrap();
    std::fs::rename(folder.join("endpoint.json.new"), folder.join("endpoint.json")).unwrap();
    println!("{line}");
}

/// Launches, says so, waits to be killed.
async fn server(data: &str, sandbox: &str, instance: &str, mode: &str) {
    let (sandbox, instance): (SandboxId, InstanceId) = (sandbox.parse().unwrap(), instance.parse().unwrap());
    open(data, instance, mode)
        .await
        .launch(&spec(sandbox, instance, "daemon chatty"))
        .await
        .unwrap();
    println!("launched");
    std::future::pending().await
}

/// Launches and stops, as whoever runs this.
async fn cycle(data: &str, words: &str, mode: &str) {
    let (entropy, now) = (SystemEntropy::new(), SystemClock.now());
    let (sandbox, instance) = (SandboxId::fresh(&entropy, now), InstanceId::fresh(&entropy, now));
    let runtime = open(data, instance, mode).await;
    runtime.launch(&spec(sandbox, instance, words)).await.unwrap();
    let found = runtime.endpoint(sandbox, Duration::from_secs(30)).await.unwrap();
    assert!(matches!(found, Endpoint::At(_)), "{found:?}");
    runtime.stop(sandbox, Duration::from_secs(10)).await.unwrap();
}

async fn open(data: &str, instance: InstanceId, mode: &str) -> LocalRuntime {
    let config = LocalConfig::new(data, std::env::current_exe().unwrap(), instance)
        .with_arguments(["sandboxd"])
        .with_environment(std::env::vars_os(), &[] as &[&str]);
    let config = match mode {
        "bubblewrap" => config.with_isolation(Isolation::UserNamespaces),
        "unshare" => config
            .with_isolation(Isolation::UserNamespaces)
            .without_bubblewrap(),
        _ => config,
    };
    LocalRuntime::open(config).await.unwrap()
}

fn spec(sandbox: SandboxId, instance: InstanceId, words: &str) -> LaunchSpec {
    LaunchSpec {
        sandbox,
        instance,
        public_key: SigningKey::from_seed(&[7; 32]).unwrap().verifying_key(),
        blueprint: Blueprint {
            protocol: 1,
            image: String::new(),
            harness: "builtin".to_owned(),
            repo_url: None,
            branch: String::new(),
            requirements: None,
            secrets: BTreeSet::new(),
            allow_out: Vec::new(),
            deny_out: Vec::new(),
            baked: BTreeMap::new(),
        },
        env: BTreeMap::from([("FAKE".to_owned(), words.to_owned())]),
        git_token: None,
        gateway: GatewayAccess {
            base: "http://127.0.0.1:1".to_owned(),
            key: "stub".to_owned(),
        },
        labels: BTreeMap::new(),
    }
}
