//! The local runtime against real processes. A program of the tests plays sandboxd. Every test runs once for each thing
//! that can be around a sandbox.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![expect(
    clippy::duplicate_mod,
    reason = "the same tests, with other walls around the sandboxes"
)]

mod bubblewrap;
mod support;
mod unisolated;
mod unshare;

/// Root isolates in another way than other users do, so whoever runs the tests as root has the ones with walls done by
/// somebody else as well.
#[test]
fn walls_stand_for_an_unprivileged_user_too() {
    use std::os::unix::process::CommandExt as _;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["bubblewrap::", "unshare::"])
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("what_is_not_its_own_cannot_be_read ... ok"),
        "{said}"
    );
}
