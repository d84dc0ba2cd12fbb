//! Starting the process of a sandbox.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use lap_core::id::SandboxId;
use lap_core::runtime::LaunchSpec;
use lap_core::secret::Secret;
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use crate::config::LocalConfig;
use crate::log;
use crate::process::{MARKER, Process};

#[derive(Serialize)]
struct Gateway<'a> {
    base: &'a str,
    key: &'a str,
}

/// The launch document, as the protocol between the platform and sandboxd has it.
#[derive(Serialize)]
struct Document<'a> {
    protocol: u32,
    sandbox: String,
    instance: String,
    public_key: String,
    folder: &'a Path,
    listen: &'a str,
    harness: &'a str,
    repo_url: Option<&'a str>,
    branch: Option<&'a str>,
    git_token: Option<&'a str>,
    env: &'a BTreeMap<String, String>,
    gateway: Gateway<'a>,
}

/// The launch document of a sandbox. It is a secret, because it carries the token for the clone.
pub(crate) fn document(spec: &LaunchSpec, folder: &Path) -> io::Result<Secret> {
    let branch = Some(spec.blueprint.branch.as_str()).filter(|branch| !branch.is_empty());
    let document = Document {
        protocol: spec.blueprint.protocol,
        sandbox: spec.sandbox.to_string(),
        instance: spec.instance.to_string(),
        public_key: spec.public_key.to_base64(),
        folder,
        listen: "127.0.0.1:0",
        harness: &spec.blueprint.harness,
        repo_url: spec.blueprint.repo_url.as_deref(),
        branch,
        git_token: spec.git_token.as_ref().map(Secret::expose),
        env: &spec.env,
        gateway: Gateway {
            base: &spec.gateway.base,
            key: &spec.gateway.key,
        },
    };
    Ok(Secret::new(serde_json::to_string(&document)?))
}

/// The words of the command. A wrapper that isolates the sandbox goes in front of them.
fn command_line(config: &LocalConfig) -> (OsString, Vec<OsString>) {
    (config.program.clone().into_os_string(), config.arguments.clone())
}

/// Starts the process and returns the pipe on which it waits for its launch document. Blocking, for about as long as
/// the system takes to load the program.
///
/// The process leads a group of its own, so that a Ctrl-C at the server does not reach it, and prints into a file, so
/// that the server's end does not reach it either.
pub(crate) fn spawn(
    config: &LocalConfig,
    sandbox: SandboxId,
    folder: &Path,
) -> io::Result<(Process, ChildStdin)> {
    let (program, arguments) = command_line(config);
    let output = log::open_for_append(folder)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(&config.environment)
        .env(MARKER, sandbox.to_string())
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0);
    let mut child = command.spawn()?;
    match (Process::of_child(&child), child.stdin.take()) {
        (Ok(process), Some(stdin)) => Ok((process, stdin)),
        (opened, _) => {
            child.kill()?;
            child.wait()?;
            Err(opened
                .err()
                .unwrap_or_else(|| io::Error::other("the process has no input")))
        }
    }
}

/// How the handing over of a launch document went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handover {
    /// The process has all of it, or has ended; its supervisor knows which.
    Done,
    /// The process does not read.
    TimedOut,
}

/// Writes the document and closes the pipe.
pub(crate) async fn hand_over(
    stdin: ChildStdin,
    document: &Secret,
    within: Duration,
) -> io::Result<Handover> {
    let mut stdin = tokio::process::ChildStdin::from_std(stdin)?;
    match tokio::time::timeout(within, stdin.write_all(document.expose().as_bytes())).await {
        Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Ok(_) => Ok(Handover::Done),
        Err(_) => Ok(Handover::TimedOut),
    }
}
