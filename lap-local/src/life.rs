//! The life of one sandbox's first process, from its start or its adoption to its end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lap_core::id::SandboxId;
use rustix::process::{Signal, WaitIdStatus};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::cgroup::Group;
use crate::log;
use crate::measure::used_too_much;
use crate::process::{Identity, Process};
use crate::record::EndpointFile;

/// How often the log is looked at.
const UPKEEP: Duration = Duration::from_secs(10);
/// How often a process is looked at where the system cannot tell its end.
const FALLBACK: Duration = Duration::from_secs(1);
/// How long what was around an ended process may take to end as well.
const WRAPPER: Duration = Duration::from_secs(2);
/// How much of the log goes into a reason.
const REASON_LINES: usize = 8;
const REASON_BYTES: u64 = 2048;

/// How a sandbox's first process came to be known.
#[derive(Debug)]
pub(crate) enum Origin {
    /// This runtime started it, so its remains are this runtime's to take away.
    Child,
    /// This runtime started the process that has made the walls around it, and that ends as it ends.
    Enclosed(Process),
    /// It was there. Another runtime, perhaps in the same process, may have started it.
    Adopted,
}

#[derive(Debug)]
struct Limited {
    group: Group,
    memory_bytes: Option<u64>,
}

/// A running sandbox, or one that has ended while this server ran.
#[derive(Debug)]
pub(crate) struct Life {
    sandbox: SandboxId,
    folder: PathBuf,
    process: Process,
    origin: Origin,
    /// Where the kernel keeps its limits.
    group: OnceLock<Limited>,
    address: OnceLock<SocketAddr>,
    /// Why this server ended it.
    verdict: OnceLock<String>,
    end: watch::Sender<Option<String>>,
}

impl Life {
    pub(crate) fn new(sandbox: SandboxId, folder: PathBuf, process: Process, origin: Origin) -> Self {
        Self {
            sandbox,
            folder,
            process,
            origin,
            group: OnceLock::new(),
            address: OnceLock::new(),
            verdict: OnceLock::new(),
            end: watch::Sender::new(None),
        }
    }

    pub(crate) const fn identity(&self) -> Identity {
        self.process.identity()
    }

    /// Whether its environment says whose it is.
    pub(crate) fn has_marker(&self) -> bool {
        self.process.has_marker(self.sandbox)
    }

    /// Where it answers, once it has said so. Only the word of this very process counts.
    pub(crate) fn address(&self) -> io::Result<Option<SocketAddr>> {
        if let Some(address) = self.address.get() {
            return Ok(Some(*address));
        }
        let file = EndpointFile::read(&self.folder, self.sandbox)?;
        let Some(file) = file.filter(|file| self.process.is_called(file.identity)) else {
            return Ok(None);
        };
        Ok(Some(*self.address.get_or_init(|| file.address)))
    }

    /// Why it ended, if it has.
    pub(crate) fn end(&self) -> Option<String> {
        self.end.borrow().clone()
    }

    /// Waits for its end, at most this long.
    pub(crate) async fn has_ended(&self, within: Duration) -> bool {
        let mut end = self.end.subscribe();
        tokio::time::timeout(within, end.wait_for(Option::is_some))
            .await
            .is_ok()
    }

    /// Asks it to end; the reason is told with the end.
    pub(crate) fn ask_to_end(&self, reason: &str) -> io::Result<()> {
        self.verdict.get_or_init(|| reason.to_owned());
        self.process.signal(Signal::TERM)
    }

    /// Kills the first process. What runs below it is left to `stop`.
    pub(crate) fn kill(&self, reason: &str) -> io::Result<()> {
        self.verdict.get_or_init(|| reason.to_owned());
        self.process.signal(Signal::KILL)
    }

    /// The reason is told with the end that somebody else brings.
    pub(crate) fn condemn(&self, reason: &str) {
        self.verdict.get_or_init(|| reason.to_owned());
    }

    /// From now on the kernel limits it.
    pub(crate) fn limit(&self, group: Group, memory_bytes: Option<u64>) {
        self.group.get_or_init(|| Limited { group, memory_bytes });
    }

    /// The processes that were started for it: its first, and what is around that.
    pub(crate) fn started_pids(&self) -> Vec<u32> {
        let wrapper = match &self.origin {
            Origin::Enclosed(wrapper) => Some(wrapper.identity().pid),
            Origin::Child | Origin::Adopted => None,
        };
        wrapper.into_iter().chain([self.identity().pid]).collect()
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the kernel ends everything of the sandbox with its first process.
    pub(crate) const fn ends_as_one(&self) -> bool {
        self.process.leads_namespace()
    }

    /// Whether it sees other processes and files than the server does.
    pub(crate) fn is_enclosed(&self) -> bool {
        self.process.is_enclosed()
    }

    /// Waits for the end, keeps the log bounded meanwhile, and tells the reason; `patience` is how long the address
    /// may take.
    pub(crate) async fn supervise(self: Arc<Self>, patience: Duration) -> String {
        let mut ended = std::pin::pin!(wait(&self.process));
        let mut too_late = std::pin::pin!(tokio::time::sleep(patience));
        let mut awaits_address = true;
        let mut upkeep = tokio::time::interval(UPKEEP);
        upkeep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut ended => break,
                () = &mut too_late, if awaits_address => {
                    awaits_address = false;
                    self.give_up_without_address();
                }
                _ = upkeep.tick() => self.keep_log_bounded().await,
            }
        }
        let status = match &self.origin {
            Origin::Child => self.process.reap(),
            Origin::Enclosed(wrapper) => {
                // It has seen the end and has only its own left to do.
                let _ = tokio::time::timeout(WRAPPER, wait(wrapper)).await;
                wrapper.reap()
            }
            Origin::Adopted => None,
        };
        let reason = self.reason(status.as_ref());
        self.end.send_replace(Some(reason.clone()));
        reason
    }

    fn give_up_without_address(&self) {
        if !matches!(self.address(), Ok(Some(_))) {
            // Fails only for processes that this user may not signal, and those are not adopted.
            let _ = self.kill("it did not tell its address in time and was killed");
        }
    }

    async fn keep_log_bounded(&self) {
        let folder = self.folder.clone();
        let trimmed = tokio::task::spawn_blocking(move || log::trim(&folder)).await;
        if let Ok(Err(error)) = trimmed {
            tracing::debug!(sandbox = %self.sandbox, %error, "the log of a sandbox cannot be kept bounded");
        }
    }

    fn reason(&self, status: Option<&WaitIdStatus>) -> String {
        if let Some(verdict) = self.verdict.get() {
            return verdict.clone();
        }
        if let Some(limited) = self.group.get()
            && limited.group.ran_out_of_memory()
            && let Some(limit) = limited.memory_bytes
        {
            return used_too_much(limit);
        }
        let how = match status.map(|status| (status.exit_status(), status.terminating_signal())) {
            // By this custom a wrapper tells the signal that ended what it had started.
            Some((Some(code @ 129..=192), _)) if matches!(self.origin, Origin::Enclosed(_)) => {
                format!("sandboxd was killed by signal {}", code - 128)
            }
            Some((Some(code), _)) => format!("sandboxd ended with exit status {code}"),
            Some((None, Some(signal))) => format!("sandboxd was killed by signal {signal}"),
            _ => "sandboxd has ended".to_owned(),
        };
        with_last_lines(how, &self.folder)
    }
}

async fn wait(process: &Process) {
    match process.as_fd().try_clone_to_owned().and_then(watch_handle) {
        Ok(handle) if handle.readable().await.is_ok() => {}
        // Without room for one more registration the process is looked at now and then.
        _ => {
            while !process.has_ended(0) {
                tokio::time::sleep(FALLBACK).await;
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "the replacement is unsafe to call; the concern, a handle that closes early, is void for an owned one"
)]
fn watch_handle(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, Interest::READABLE)
}

/// Adds what the sandbox printed last.
pub(crate) fn with_last_lines(how: String, folder: &Path) -> String {
    match log::last_lines(folder, REASON_LINES, REASON_BYTES) {
        Ok(lines) if !lines.is_empty() => format!("{how}: {lines}"),
        _ => how,
    }
}
