//! Cloning with git.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::Source;
use crate::environment::Environment;
use crate::layout::Layout;
use crate::processes::Processes;
use crate::status::Status;

/// A clone that takes longer is a broken network or a repository for another tool.
const DEADLINE: Duration = Duration::from_secs(600);
/// The variable through which git's one helper reads the token. Only git's own processes have it.
const TOKEN_VARIABLE: &str = "LAP_CLONE_TOKEN";
/// Prints what git asks for. The token is in no argument and in no file.
const HELPER: &str = "!f() { test \"$1\" = get && printf 'username=x-access-token\\npassword=%s\\n' \"$LAP_CLONE_TOKEN\"; }; f";
/// The last lines of git's messages tell why it failed.
const KEPT_LINES: usize = 8;
const MAX_LINE: usize = 1000;

/// Clones into the empty workspace.
pub(super) async fn run(
    source: &Source,
    layout: &Layout,
    environment: &Environment,
    processes: &Arc<Processes>,
    status: &Status,
) -> Result<(), String> {
    let token = source.token.as_ref().or_else(|| source.remote.password());
    let scrub = |text: String| match token {
        Some(token) if !token.is_empty() => text.replace(token.expose(), "***"),
        _ => text,
    };
    let mut command = command(source, &layout.workspace(), environment.base())?;
    let mut git = processes
        .spawn(&mut command)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "git is not installed in this sandbox".to_owned(),
            _ => format!("git cannot be started: {error}"),
        })?;
    // The command holds the token as long as it lives.
    drop(command);
    let mut lines = Lines::default();
    let stderr = git.child.stderr.take();
    let finished = tokio::time::timeout(DEADLINE, async {
        if let Some(stderr) = stderr {
            lines
                .follow(stderr, |progress| status.detail(&scrub(progress.to_owned())))
                .await;
        }
        git.child.wait().await
    });
    match finished.await {
        Ok(Ok(exit)) if exit.success() => Ok(()),
        Ok(Ok(_)) => Err(scrub(format!(
            "git could not clone {}: {}",
            source.remote.url(),
            lines.summary()
        ))),
        Ok(Err(error)) => Err(format!("git cannot be waited for: {error}")),
        Err(_) => Err(format!(
            "git did not finish the clone within {} s",
            DEADLINE.as_secs()
        )),
    }
}

fn command(source: &Source, workspace: &Path, base: &BTreeMap<String, String>) -> Result<Command, String> {
    let mut command = Command::new("git");
    command.current_dir(workspace).env_clear().envs(base);
    command
        .env("LC_ALL", "C")
        .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
        .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
        .env("GIT_LFS_SKIP_SMUDGE", "1");
    for setting in [
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "protocol.ext.allow=never",
        "credential.helper=",
        // A transfer that stands still ends long before the deadline.
        "http.lowSpeedLimit=1000",
        "http.lowSpeedTime=60",
    ] {
        command.args(["-c", setting]);
    }
    if let (Some(origin), Some(token)) = (
        source.remote.http_origin(),
        source.token.as_ref().or_else(|| source.remote.password()),
    ) {
        // Bound to the origin: a redirect to another host does not get the token.
        command.args(["-c", &format!("credential.{origin}.helper={HELPER}")]);
        command.env(TOKEN_VARIABLE, token.expose());
    }
    command.args([
        "clone",
        "--progress",
        "--depth",
        "1",
        "--single-branch",
        "--no-tags",
    ]);
    if let Some(branch) = &source.branch {
        if branch.starts_with('-') {
            return Err("the branch's name is not a branch's name".to_owned());
        }
        command.args(["--branch", branch]);
    }
    command.arg("--").arg(source.remote.url()).arg(".");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

/// Git's messages: lines end with a line feed, progress with a carriage return.
#[derive(Default)]
struct Lines {
    kept: VecDeque<String>,
}

impl Lines {
    async fn follow(&mut self, mut from: impl AsyncRead + Unpin, progress: impl Fn(&str)) {
        let mut buffer = [0; 4096];
        let mut line = Vec::new();
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            for byte in &buffer[..count] {
                match byte {
                    b'\r' | b'\n' => self.end_of_line(&mut line, *byte == b'\n', &progress),
                    _ if line.len() < MAX_LINE => line.push(*byte),
                    _ => {}
                }
            }
        }
        self.end_of_line(&mut line, true, &progress);
    }

    fn end_of_line(&mut self, line: &mut Vec<u8>, keep: bool, progress: &impl Fn(&str)) {
        let text = String::from_utf8_lossy(line).trim().to_owned();
        line.clear();
        if text.is_empty() {
            return;
        }
        progress(&text);
        if keep {
            self.kept.push_back(text);
            if self.kept.len() > KEPT_LINES {
                self.kept.pop_front();
            }
        }
    }

    /// What git complained about, else its last words.
    fn summary(&self) -> String {
        let complaint = |line: &&String| {
            line.starts_with("fatal:") || line.starts_with("error:") || line.starts_with("remote:")
        };
        let complaints: Vec<&str> = self.kept.iter().filter(complaint).map(String::as_str).collect();
        if complaints.is_empty() {
            self.kept
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join("; ")
        } else {
            complaints.join("; ")
        }
    }
}
