//! What happens to sandboxes when servers die, and who is told.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{
    FAKE, SOON, Site, fresh_id, is_alive, kill_root, listed, next_end, root_pid, until, up,
};
use lap_core::runtime::{Endpoint, SandboxRuntime};

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn sandboxes_survive_a_killed_server_and_the_next_one_finds_them() {
    let site = Site::new();
    let sandbox = fresh_id();
    let mut server = Command::new(FAKE)
        .args([
            "server",
            site.data.path().to_str().unwrap(),
            &sandbox.to_string(),
            &site.instance.to_string(),
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
    let site = Site::new();
    let (owner, adopter) = (site.runtime().await, site.runtime().await);
    let spec = site.spec("");
    up(&owner, &spec).await;
    let (mut owned, mut adopted) = (owner.watch(), adopter.watch());
    assert_eq!(listed(&mut owned).await, [spec.sandbox]);
    assert_eq!(listed(&mut adopted).await, [spec.sandbox]);
    kill_root(&site.folder(spec.sandbox));
    let (sandbox, reason) = next_end(&mut owned).await;
    assert_eq!(sandbox, spec.sandbox);
    assert!(reason.starts_with("sandboxd was killed by signal 9"), "{reason}");
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
    let site = Site::new();
    let runtime = site.runtime().await;
    let spec = site.spec("cleared");
    up(&runtime, &spec).await;
    let folder = site.folder(spec.sandbox);
    let inside = || {
        let mut pids = crate::support::running("sleep 1002");
        pids.retain(|pid| {
            std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at.starts_with(&folder))
        });
        pids
    };
    until("both sleepers run", || inside().len() == 2).await;
    let daemons = inside();
    let pid = root_pid(&folder);
    kill_root(&folder);
    until("sandboxd is gone", || !is_alive(pid)).await;
    site.runtime().await.stop(spec.sandbox, GRACE).await.unwrap();
    assert_eq!(daemons.iter().filter(|pid| is_alive(**pid)).count(), 0);
}
