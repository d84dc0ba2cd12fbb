//! How well sandboxes would be separated from this machine.

use std::path::Path;

use super::Finding;
use super::programs::find;
use crate::config::{Config, IsolationChoice};

const SUBJECT: &str = "isolation";
const NOTHING: &str = "none: an agent can read and change whatever the user of the server can";

/// Programs of harnesses that may be installed where isolated sandboxes do not see them.
const HARNESSES: [&str; 4] = ["opencode", "claude", "codex", "node"];

pub(super) async fn look(config: Option<&Config>) -> Vec<Finding> {
    let choice = config.map_or(IsolationChoice::Auto, |config| config.local.isolation);
    // It waits for a process.
    let tried = tokio::task::spawn_blocking(lap_local::isolation::available).await;
    let tried = match tried {
        Ok(Ok(means)) => Ok(means.to_string()),
        Ok(Err(reason)) => Err(reason.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let mut findings = vec![judge(choice, tried)];
    if findings[0].text.starts_with("userns") {
        findings.push(Finding::note(
            "network",
            "not isolated: agents reach what this machine reaches, its own ports included",
        ));
        let visible = config.map(|config| config.local.visible.as_slice());
        findings.extend(
            HARNESSES
                .iter()
                .filter_map(|name| hidden(name, visible.unwrap_or_default())),
        );
    }
    findings
}

fn judge(choice: IsolationChoice, tried: Result<String, String>) -> Finding {
    match (choice, tried) {
        (IsolationChoice::None, Ok(means)) => {
            Finding::note(SUBJECT, NOTHING).advise(format!("LAP_ISOLATION=auto would isolate by {means}"))
        }
        (IsolationChoice::None, Err(_)) => Finding::note(SUBJECT, NOTHING),
        (_, Ok(means)) => Finding::good(
            SUBJECT,
            format!(
                "userns, by {means}: an agent sees its folder and a read-only system, not the server's files or \
                 processes"
            ),
        ),
        (IsolationChoice::UserNamespaces, Err(reason)) => Finding::bad(
            SUBJECT,
            format!("LAP_ISOLATION=userns, and this machine cannot: {reason}"),
        )
        .advise(HELP),
        (IsolationChoice::Auto, Err(reason)) => {
            Finding::note(SUBJECT, format!("{NOTHING} ({reason})")).advise(HELP)
        }
    }
}

const HELP: &str = "install bubblewrap, or util-linux with unshare and setpriv, and allow user namespaces (sysctl \
                    user.max_user_namespaces, kernel.unprivileged_userns_clone, \
                    kernel.apparmor_restrict_unprivileged_userns); inside a container they are often refused";

/// A program that this user finds and an isolated agent would not.
fn hidden(name: &str, visible: &[std::path::PathBuf]) -> Option<Finding> {
    let found = find(name)?;
    let real = found.canonicalize().ok()?;
    let is_seen = |path: &Path| {
        lap_local::isolation::shows(path) || visible.iter().any(|visible| path.starts_with(visible))
    };
    if is_seen(&found) && is_seen(&real) {
        return None;
    }
    let text = format!("{} is not seen inside of isolated sandboxes", real.display());
    Some(Finding::note(name, text).advise("name its folder in LAP_ISOLATION_VISIBLE"))
}
