//! Starting the process of a sandbox.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use lap_core::id::SandboxId;
use lap_core::runtime::LaunchSpec;
use lap_core::secret::Secret;
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use crate::config::LocalConfig;
use crate::isolation::Enclosure;
use crate::life::{Life, Origin};
use crate::log;
use crate::process::{MARKER, Process};
use crate::runtime::Shared;

/// What the kernel counts are threads. This many to a process on average stop a fork bomb and no real program.
const TASKS_PER_PROCESS: u32 = 8;

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

/// How long the walls around a process may take to be made.
pub(crate) const WALLS: Duration = Duration::from_secs(10);

/// The words of the command, with those in front of it that isolate the sandbox.
fn command_line(shared: &Shared, sandbox: SandboxId, folder: &Path) -> io::Result<(PathBuf, Vec<OsString>)> {
    let config = &shared.config;
    let Some(means) = &shared.means else {
        return Ok((config.program.clone(), config.arguments.clone()));
    };
    let enclosure = Enclosure {
        means,
        sandbox,
        folder,
        data: shared.data.root(),
        program: &config.program,
        visible: &config.visible,
        tasks: tasks(config),
    };
    enclosure.command(&config.arguments)
}

/// How many threads all its processes may have together, by the kernel's count.
fn tasks(config: &LocalConfig) -> Option<u32> {
    let processes = config.resources.processes?;
    Some(processes.saturating_mul(TASKS_PER_PROCESS))
}

/// Lets the kernel limit a process that waits for its launch document, and so has started nothing yet, and what is
/// around it. Where the kernel refuses, the sandbox is measured like any other.
pub(crate) fn limit(shared: &Shared, sandbox: SandboxId, life: &Life) {
    let Some(groups) = &shared.groups else { return };
    let config = &shared.config;
    match groups.enclose(sandbox, config.resources, tasks(config), life.started_pids()) {
        Ok(group) => life.limit(group, config.resources.memory_bytes),
        Err(error) => tracing::warn!(%sandbox, %error, "the kernel does not limit a sandbox"),
    }
}

/// Starts the process and returns the pipe on which it waits for its launch document. Blocking, for about as long as
/// the system takes to load the program.
///
/// The process leads a group of its own, so that a Ctrl-C at the server does not reach it, and prints into a file, so
/// that the server's end does not reach it either.
pub(crate) fn spawn(
    shared: &Shared,
    sandbox: SandboxId,
    folder: &Path,
) -> io::Result<(Process, Origin, ChildStdin)> {
    let (program, arguments) = command_line(shared, sandbox, folder)?;
    let output = log::open_for_append(folder)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(&shared.config.environment)
        .env(MARKER, sandbox.to_string())
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0);
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let started = Process::of_child(&child).and_then(|process| {
        if shared.means.is_some() {
            find_enclosed(process)
        } else {
            Ok((process, Origin::Child))
        }
    });
    match (started, stdin) {
        (Ok((process, origin)), Some(stdin)) => Ok((process, origin, stdin)),
        (started, _) => {
            child.kill()?;
            child.wait()?;
            Err(started
                .err()
                .unwrap_or_else(|| io::Error::other("the process has no input")))
        }
    }
}

/// The sandbox's first process. When the walls cannot be made, what was to make them stands for it, and its end tells
/// why.
fn find_enclosed(wrapper: Process) -> io::Result<(Process, Origin)> {
    let deadline = Instant::now() + WALLS;
    loop {
        if let Some(process) = Process::enclosed_by(&wrapper)? {
            return Ok((process, Origin::Enclosed(wrapper)));
        }
        if wrapper.has_ended(1) {
            return Ok((wrapper, Origin::Child));
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "its isolation is not made in time",
            ));
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
