//! Running a command.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;
use tokio::time::Instant;

use super::bounded::Bounded;
use super::{MAX_OUTPUT, Progress, ToolOutput, Toolbox};
use crate::processes::Owned;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
const MAX_TIMEOUT: Duration = Duration::from_secs(600);
/// How long output may still come after the shell ended, from background processes that kept its pipe.
const LINGER: Duration = Duration::from_millis(150);
/// How often a running command's output is shown, at first. The pauses grow, so that a long command does not
/// fill the journal.
const SHOW_EVERY: Duration = Duration::from_millis(500);
const SHOWN_BYTES: usize = 2000;
const MAX_TITLE: usize = 100;

/// By this variable everything a call started is found again, even what left its process group.
const CALL_MARKER: &str = "LAP_TOOL_CALL";

#[derive(Deserialize)]
pub(super) struct Input {
    command: String,
    #[serde(alias = "timeout")]
    timeout_ms: Option<u64>,
    description: Option<String>,
}

pub(super) async fn run(
    tools: &Toolbox,
    call: &str,
    input: Input,
    progress: Progress<'_>,
) -> Result<ToolOutput, String> {
    if input.command.contains('\0') {
        return Err("the command holds a NUL character".to_owned());
    }
    let timeout = input
        .timeout_ms
        .map_or(DEFAULT_TIMEOUT, Duration::from_millis)
        .min(MAX_TIMEOUT);
    let (process, mut output) = start(tools, call, &input.command)
        .map_err(|error| format!("the shell cannot be started: {error}"))?;
    // From here on, leaving by any way kills the call's processes, unless it ended by itself.
    let mut guard = CallGuard {
        tools,
        call,
        process,
        ended: false,
    };
    let mut kept = Bounded::new(MAX_OUTPUT - 200);
    let exit = follow(&mut guard.process, &mut output, &mut kept, timeout, progress).await;
    guard.ended = matches!(exit, Ok(Some(_)));
    drop(guard);
    let exit = exit.map_err(|error| format!("the shell cannot be waited for: {error}"))?;
    let mut text = kept.text();
    let note = match exit {
        None => format!("[killed: it took longer than {} ms]", timeout.as_millis()),
        Some(status) if status.success() && text.trim().is_empty() => "(no output)".to_owned(),
        Some(status) if status.success() => String::new(),
        Some(status) => format!("[{status}]"),
    };
    if !text.is_empty() && !text.ends_with('\n') && !note.is_empty() {
        text.push('\n');
    }
    text.push_str(&note);
    let title = input.description.unwrap_or(input.command);
    let title = title
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(MAX_TITLE)
        .collect();
    let metadata = json!({"exit": exit.and_then(|status| status.code()), "timed_out": exit.is_none()});
    Ok(ToolOutput {
        title,
        output: text,
        metadata,
    })
}

/// Both output streams go into one pipe, so the model sees them in order.
fn start(tools: &Toolbox, call: &str, line: &str) -> io::Result<(Owned, Receiver)> {
    let spawn = |shell: &str| -> io::Result<(Owned, Receiver)> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(shell);
        command
            .args(["-c", line])
            .current_dir(tools.workspace.root())
            .env_clear()
            .envs(tools.environment.iter())
            .env(CALL_MARKER, call)
            .stdout(Stdio::from(writer.try_clone()?))
            .stderr(Stdio::from(writer));
        let process = tools.processes.spawn(&mut command)?;
        // The command still holds the writing end; the reader would never see the end.
        drop(command);
        Ok((process, Receiver::from_owned_fd(reader.into())?))
    };
    match spawn("bash") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => spawn("sh"),
        started => started,
    }
}

/// Collects output until the command ends. `None` when it took too long.
async fn follow(
    process: &mut Owned,
    output: &mut Receiver,
    kept: &mut Bounded,
    timeout: Duration,
    progress: Progress<'_>,
) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + timeout;
    let mut show = Shower {
        next: Instant::now() + SHOW_EVERY,
        pause: SHOW_EVERY,
        fresh: false,
    };
    let mut buffer = vec![0; 16 * 1024];
    let mut open = true;
    let exit = loop {
        tokio::select! {
            read = output.read(&mut buffer), if open => match read? {
                0 => open = false,
                count => {
                    kept.push(&buffer[..count]);
                    show.fresh = true;
                }
            },
            exit = process.child.wait() => break exit?,
            () = tokio::time::sleep_until(show.next), if show.fresh => show.now(kept, progress),
            () = tokio::time::sleep_until(deadline) => return Ok(None),
        }
    };
    let linger = Instant::now() + LINGER;
    while open {
        match tokio::time::timeout_at(linger, output.read(&mut buffer)).await {
            Ok(Ok(count @ 1..)) => kept.push(&buffer[..count]),
            _ => open = false,
        }
    }
    Ok(Some(exit))
}

struct Shower {
    next: Instant,
    pause: Duration,
    fresh: bool,
}

impl Shower {
    fn now(&mut self, kept: &Bounded, progress: Progress<'_>) {
        progress(&kept.recent(SHOWN_BYTES));
        self.fresh = false;
        self.pause = (self.pause * 3 / 2).min(Duration::from_secs(10));
        self.next = Instant::now() + self.pause;
    }
}

/// Kills what a call started when the call is given up.
struct CallGuard<'a> {
    tools: &'a Toolbox,
    call: &'a str,
    process: Owned,
    ended: bool,
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.process.kill_group();
            self.tools.processes.kill_carriers(CALL_MARKER, self.call);
        }
    }
}
