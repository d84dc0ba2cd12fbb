//! What happens to sandboxes when servers die, and who is told.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::site;
use crate::support::{
    FAKE, Mode, SOON, fresh_id, is_alive, kill_root, listed, next_end, root_pid, sleepers, until, up,
};
use lap_core::capability::Isolation;
use lap_core::runtime::{Endpoint, SandboxRuntime};
use lap_local::LocalRuntime;

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn sandboxes_survive_a_killed_server_and_the_next_one_finds_them() {
    let site = site();
    let sandbox = fresh_id();
    let mut server = Command::new(FAKE)
        .args([
            "server",
            site.data.path().to_str().unwrap(),
            &sandbox.to_string(),
            &site.instance.to_string(),
            site.mode.word(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line.trim(), "launched");
    server.kill().unwrap();
    server.wait().unwrap();

    let next = site.runtime().await;
    let mut events = next.watch();
    assert_eq!(listed(&mut events).await, [sandbox]);
    let found = next.endpoint(sandbox, SOON).await.unwrap();
    let Endpoint::At(address) = found else {
        panic!("no address: {found:?}")
    };
    tokio::net::TcpStream::connect(address).await.unwrap();
    let pid = root_pid(&site.folder(sandbox));
    next.stop(sandbox, GRACE).await.unwrap();
    assert!(!is_alive(pid));
    assert!(!site.folder(sandbox).exists());
    assert_eq!(
        next_end(&mut events).await,
        (sandbox, "it was stopped".to_owned())
    );
}

#[tokio::test]
async fn ends_are_told_for_own_and_adopted_sandboxes() {
    let site = site();
    let (owner, adopter) = (site.runtime().await, site.runtime().await);
    let spec = site.spec("");
    up(&owner, &spec).await;
    let (mut owned, mut adopted) = (owner.watch(), adopter.watch());
    assert_eq!(listed(&mut owned).await, [spec.sandbox]);
    assert_eq!(listed(&mut adopted).await, [spec.sandbox]);
    kill_root(&site.folder(spec.sandbox));
    let (sandbox, reason) = next_end(&mut owned).await;
    assert_eq!(sandbox, spec.sandbox);
    // Some versions of unshare stumble over the signal themselves and tell only that.
    let stumbled = site.mode == Mode::Unshare && reason.contains("sigprocmask");
    assert!(
        stumbled || reason.starts_with("sandboxd was killed by signal 9"),
        "{reason}"
    );
    assert_eq!(next_end(&mut adopted).await.0, spec.sandbox);
    assert!(matches!(
        owner.endpoint(spec.sandbox, SOON).await.unwrap(),
        Endpoint::Gone { .. }
    ));

    // One that ended unseen still exists on disk, so it is listed and its end told after the list.
    let late = site.runtime().await;
    let mut late = late.watch();
    assert_eq!(listed(&mut late).await, [spec.sandbox]);
    assert_eq!(next_end(&mut late).await.0, spec.sandbox);
    owner.stop(spec.sandbox, GRACE).await.unwrap();
}

#[tokio::test]
async fn what_outlives_its_sandboxd_is_ended_by_stop() {
    let site = site();
    let runtime = site.runtime().await;
    let spec = site.spec("daemon cleared");
    up(&runtime, &spec).await;
    let folder = site.folder(spec.sandbox);
    let daemons = || [1, 2].map(|kind| sleepers(spec.sandbox, kind));
    until("all sleepers run", || {
        daemons().iter().all(|pids| pids.len() == 2)
    })
    .await;
    let [marked, inside] = daemons();
    let pid = root_pid(&folder);
    kill_root(&folder);
    until("sandboxd is gone", || !is_alive(pid)).await;
    site.runtime().await.stop(spec.sandbox, GRACE).await.unwrap();
    assert_eq!(
        marked.iter().filter(|pid| is_alive(**pid)).count(),
        0,
        "by the marker"
    );
    assert_eq!(
        inside.iter().filter(|pid| is_alive(**pid)).count(),
        0,
        "by the folder"
    );
}

#[tokio::test]
async fn a_damaged_record_hides_nothing_else_and_can_be_stopped() {
    let site = site();
    let runtime = site.runtime().await;
    let (healthy, damaged) = (site.spec(""), site.spec(""));
    up(&runtime, &healthy).await;
    up(&runtime, &damaged).await;
    let folder = site.folder(damaged.sandbox);
    let pid = root_pid(&folder);
    std::fs::remove_file(folder.join("sandbox.json")).unwrap();
    std::fs::create_dir(folder.join("sandbox.json")).unwrap();
    assert_eq!(
        listed(&mut runtime.watch()).await.len(),
        2,
        "who started it still knows it"
    );
    let later = site.runtime().await;
    assert_eq!(
        listed(&mut later.watch()).await,
        [healthy.sandbox],
        "nobody can say whose it is"
    );
    later.stop(damaged.sandbox, GRACE).await.unwrap();
    assert!(!is_alive(pid));
    assert!(!folder.exists());
    later.stop(healthy.sandbox, GRACE).await.unwrap();
}

#[tokio::test]
async fn a_server_that_isolates_ends_what_an_earlier_one_left_open() {
    let site = site();
    let earlier = site.config().with_isolation(Isolation::None);
    let earlier = LocalRuntime::open(earlier).await.unwrap();
    let spec = site.spec("");
    let address = up(&earlier, &spec).await;
    let later = site.runtime().await;
    if site.mode == Mode::Unisolated {
        let found = later.endpoint(spec.sandbox, SOON).await.unwrap();
        assert_eq!(found, Endpoint::At(address));
    } else {
        let mut events = later.watch();
        assert_eq!(listed(&mut events).await, [spec.sandbox]);
        let (_, reason) = next_end(&mut events).await;
        assert!(reason.contains("without isolation"), "{reason}");
    }
    later.stop(spec.sandbox, GRACE).await.unwrap();
}
