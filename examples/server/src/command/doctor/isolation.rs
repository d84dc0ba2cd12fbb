//! How well sandboxes would be separated from this machine.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::Finding;
use super::programs::find;

pub(super) async fn look() -> Vec<Finding> {
    let now = "none: an agent can read and change whatever the user of the server can";
    vec![
        Finding::note("isolation", now).advise("run the server as a user of its own, or in a container"),
        possible().await,
    ]
}

/// What this machine could do. The local runtime of this build does not use it yet.
async fn possible() -> Finding {
    let subject = "available";
    let would = "an agent would see its workspace and a read-only system, not the server's files or processes; the \
                 local runtime of this build does not use it yet";
    let Some(unshare) = find("unshare") else {
        return Finding::note(subject, "unshare not found: user namespaces cannot be tried")
            .advise("install util-linux and bubblewrap");
    };
    if !can_unshare(&unshare).await {
        return Finding::note(subject, "user namespaces are not allowed for this user").advise(
            "check sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and \
             kernel.apparmor_restrict_unprivileged_userns",
        );
    }
    match find("bwrap") {
        Some(path) => Finding::good(subject, format!("bubblewrap ({}): {would}", path.display())),
        None => Finding::good(subject, format!("unshare ({}): {would}", unshare.display()))
            .advise("bubblewrap does the same with fewer moving parts: apt-get install bubblewrap"),
    }
}

/// Makes the namespaces that a sandbox would get, around a program that does nothing.
async fn can_unshare(unshare: &Path) -> bool {
    let mut command = Command::new(unshare);
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "true"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let status = tokio::time::timeout(Duration::from_secs(5), command.status()).await;
    status.is_ok_and(|status| status.is_ok_and(|status| status.success()))
}
