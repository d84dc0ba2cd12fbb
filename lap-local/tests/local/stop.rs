//! Ending sandboxes: nothing is left, and nothing else is touched.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::site;
use crate::support::{FAKE, SOON, exists, is_alive, listed, next_end, root_pid, sleepers, until, up};
use lap_core::runtime::{Endpoint, SandboxRuntime};

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn daemons_go_too_whatever_tie_they_cut() {
    let site = site();
    let runtime = site.runtime().await;
    let spec = site.spec("daemon cleared stranger");
    up(&runtime, &spec).await;
    let sleeping = || [1, 2, 3].map(|kind| sleepers(spec.sandbox, kind));
    until("all sleepers run", || {
        sleeping().iter().all(|pids| pids.len() == 2)
    })
    .await;
    let daemons = sleeping().concat();
    let pid = root_pid(&site.folder(spec.sandbox));
    runtime.stop(spec.sandbox, GRACE).await.unwrap();
    // True when stop returns, without waiting.
    assert_eq!(daemons.iter().filter(|pid| is_alive(**pid)).count(), 0);
    assert!(!exists(pid), "the sandbox's first process was waited for");
    assert!(!site.folder(spec.sandbox).exists());
    assert_eq!(fs::read_dir(site.data.path().join("trash")).unwrap().count(), 0);
    assert!(matches!(
        runtime.endpoint(spec.sandbox, SOON).await.unwrap(),
        Endpoint::Gone { .. }
    ));
    runtime.stop(spec.sandbox, GRACE).await.unwrap();
}

#[tokio::test]
async fn one_that_does_not_listen_is_killed_after_the_grace() {
    let site = site();
    let runtime = site.runtime().await;
    let mut events = runtime.watch();
    assert!(listed(&mut events).await.is_empty());
    let spec = site.spec("stubborn");
    up(&runtime, &spec).await;
    let pid = root_pid(&site.folder(spec.sandbox));
    let begun = Instant::now();
    runtime
        .stop(spec.sandbox, Duration::from_millis(300))
        .await
        .unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(!exists(pid));
    assert!(!site.folder(spec.sandbox).exists());
    assert_eq!(
        next_end(&mut events).await,
        (spec.sandbox, "it was stopped".to_owned())
    );
}

#[tokio::test]
async fn a_forged_record_gets_nobody_signalled() {
    let site = site();
    let mut bystander = Command::new("sleep")
        .arg("1004")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", bystander.id())).unwrap();
    let started = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .nth(19)
        .unwrap()
        .to_owned();
    for with_record in [false, true] {
        let spec = site.spec("");
        up(&site.runtime().await, &spec).await;
        let folder = site.folder(spec.sandbox);
        let real = root_pid(&folder);
        let forge = |file: &str, edit: &dyn Fn(&mut serde_json::Value)| {
            let mut value = serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap();
            edit(&mut value);
            fs::write(folder.join(file), value.to_string()).unwrap();
        };
        forge("endpoint.json", &|value| {
            value["pid"] = bystander.id().into();
            value["started"] = started.clone().into();
        });
        forge("sandbox.json", &|value| {
            if with_record {
                value["root"]["pid"] = bystander.id().into();
                value["root"]["started"] = started.clone().into();
            } else {
                value["root"] = serde_json::Value::Null;
            }
        });
        let runtime = site.runtime().await;
        let found = runtime
            .endpoint(spec.sandbox, Duration::from_millis(50))
            .await
            .unwrap();
        assert!(!matches!(found, Endpoint::At(_)), "{found:?}");
        runtime.stop(spec.sandbox, Duration::from_secs(2)).await.unwrap();
        assert!(bystander.try_wait().unwrap().is_none(), "the bystander lives");
        // The sandbox's real process is found by its marker all the same.
        assert!(!is_alive(real));
        assert!(!folder.exists());
    }
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn a_reused_number_is_not_mistaken() {
    let site = site();
    let runtime = site.runtime().await;
    let spec = site.spec("");
    up(&runtime, &spec).await;
    let folder = site.folder(spec.sandbox);
    // The same number, another start time.
    for file in ["endpoint.json", "sandbox.json"] {
        let mut value: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap();
        let place = if file == "endpoint.json" {
            &mut value
        } else {
            &mut value["root"]
        };
        place["started"] = "1".into();
        fs::write(folder.join(file), value.to_string()).unwrap();
    }
    let later = site.runtime().await;
    assert!(matches!(
        later.endpoint(spec.sandbox, SOON).await.unwrap(),
        Endpoint::Gone { .. }
    ));
    later.stop(spec.sandbox, GRACE).await.unwrap();
}

#[tokio::test]
async fn an_address_of_another_machine_is_not_believed() {
    let site = site();
    let first = site.runtime().await;
    let spec = site.spec("");
    first.launch(&spec).await.unwrap();
    let folder = site.folder(spec.sandbox);
    until("the address is told", || folder.join("endpoint.json").exists()).await;
    let mut value: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("endpoint.json")).unwrap()).unwrap();
    value["address"] = "169.254.169.254:80".into();
    fs::write(folder.join("endpoint.json"), value.to_string()).unwrap();
    let later = site.runtime().await;
    let found = later
        .endpoint(spec.sandbox, Duration::from_millis(50))
        .await
        .unwrap();
    assert_eq!(found, Endpoint::Unknown);
    later.stop(spec.sandbox, GRACE).await.unwrap();
}

#[tokio::test]
async fn links_in_the_workspace_are_not_followed() {
    let site = site();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "kept").unwrap();
    let runtime = site.runtime().await;
    let spec = site.spec("");
    up(&runtime, &spec).await;
    let workspace = site.folder(spec.sandbox).join("workspace");
    symlink(outside.path(), workspace.join("folder")).unwrap();
    symlink(outside.path().join("precious"), workspace.join("file")).unwrap();
    runtime.stop(spec.sandbox, GRACE).await.unwrap();
    assert!(!site.folder(spec.sandbox).exists());
    assert_eq!(
        fs::read_to_string(outside.path().join("precious")).unwrap(),
        "kept"
    );
}

#[tokio::test]
async fn folders_without_rights_go_too() {
    let site = site();
    let data = site.data.path();
    // The superuser needs no rights, so whoever runs the tests as such has this one done by somebody else.
    let program = data.join("program");
    fs::copy(FAKE, &program).unwrap();
    let mut cycle = Command::new(&program);
    cycle
        .args(["cycle", data.to_str().unwrap(), "locked", site.mode.word()])
        .stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        for path in [data, &program] {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        }
        cycle.uid(65534).gid(65534);
    }
    assert!(cycle.status().unwrap().success());
    assert_eq!(fs::read_dir(data.join("sandboxes")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(data.join("trash")).unwrap().count(), 0);
}

#[tokio::test]
async fn another_installation_in_the_same_folder_is_left_alone() {
    let ours = site();
    let theirs = site();
    let config = lap_local::LocalConfig::new(ours.data.path(), crate::support::FAKE, theirs.instance);
    let stranger = lap_local::LocalRuntime::open(config.with_arguments(["sandboxd"]))
        .await
        .unwrap();
    let runtime = ours.runtime().await;
    let spec = ours.spec("");
    let address = up(&runtime, &spec).await;
    assert!(listed(&mut stranger.watch()).await.is_empty());
    stranger.stop(spec.sandbox, GRACE).await.unwrap();
    let mut same = spec.clone();
    same.instance = theirs.instance;
    assert!(stranger.launch(&same).await.is_err());
    assert_eq!(
        runtime.endpoint(spec.sandbox, SOON).await.unwrap(),
        Endpoint::At(address)
    );
    runtime.stop(spec.sandbox, GRACE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_that_race_all_succeed_and_the_id_is_free_again() {
    let site = site();
    let runtime = site.runtime().await;
    let spec = site.spec("");
    up(&runtime, &spec).await;
    let (one, two) = (site.runtime().await, runtime.clone());
    let (first, second) = tokio::join!(one.stop(spec.sandbox, GRACE), two.stop(spec.sandbox, GRACE));
    first.unwrap();
    second.unwrap();
    assert!(!site.folder(spec.sandbox).exists());
    up(&runtime, &spec).await;
    runtime.stop(spec.sandbox, GRACE).await.unwrap();
}

#[tokio::test]
async fn the_trash_of_an_earlier_server_is_swept_at_the_start() {
    let site = site();
    let left = site.data.path().join("trash/left/deep");
    fs::create_dir_all(&left).unwrap();
    site.runtime().await;
    until("the trash is empty", || {
        !site.data.path().join("trash/left").exists()
    })
    .await;
}
