//! What the tests of the local runtime share.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lap_core::blueprint::Blueprint;
use lap_core::capability::Isolation;
use lap_core::id::{InstanceId, SandboxId, SystemEntropy};
use lap_core::runtime::{Endpoint, LaunchSpec, RuntimeEvent, RuntimeEvents, SandboxRuntime};
use lap_core::secret::Secret;
use lap_core::time::{Clock, SystemClock};
use lap_core::token::SigningKey;
use lap_core::vault::GatewayAccess;
use lap_local::{LocalConfig, LocalRuntime, ResourceLimits, StartLimits};
use tokio_stream::StreamExt;

/// Generous, because the machine may be loaded.
pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const FAKE: &str = env!("CARGO_BIN_EXE_lap-fake-sandboxd");

/// What is around the sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Unisolated,
    Bubblewrap,
    Unshare,
}

impl Mode {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unisolated => "unisolated",
            Self::Bubblewrap => "bubblewrap",
            Self::Unshare => "unshare",
        }
    }

    pub(crate) const fn isolation(self) -> Isolation {
        match self {
            Self::Unisolated => Isolation::None,
            Self::Bubblewrap | Self::Unshare => Isolation::UserNamespaces,
        }
    }

    pub(crate) fn applied(self, config: LocalConfig) -> LocalConfig {
        let config = config.with_isolation(self.isolation());
        if self == Self::Unshare {
            config.without_bubblewrap()
        } else {
            config
        }
    }

    /// These tests do not pass where they cannot be run.
    fn demand(self) {
        match self {
            Self::Unisolated => {}
            Self::Bubblewrap => {
                let means = lap_local::isolation::available()
                    .unwrap_or_else(|why| panic!("install bubblewrap and allow it to isolate: {why}"));
                assert!(
                    means.to_string().starts_with("bubblewrap"),
                    "install bubblewrap: {means}"
                );
            }
            Self::Unshare => {
                lap_local::isolation::available_without_bubblewrap()
                    .unwrap_or_else(|why| panic!("allow unshare to isolate: {why}"));
            }
        }
    }
}

/// A data folder and an installation.
pub(crate) struct Site {
    pub(crate) mode: Mode,
    pub(crate) data: tempfile::TempDir,
    pub(crate) instance: InstanceId,
}

impl Site {
    pub(crate) fn new(mode: Mode) -> Self {
        mode.demand();
        let instance = InstanceId::fresh(&SystemEntropy::new(), SystemClock.now());
        Self {
            mode,
            data: tempfile::tempdir().unwrap(),
            instance,
        }
    }

    pub(crate) fn config(&self) -> LocalConfig {
        let config = LocalConfig::new(self.data.path(), FAKE, self.instance)
            .with_arguments(["sandboxd"])
            .with_environment(std::env::vars_os(), &[] as &[&str]);
        self.mode.applied(config)
    }

    pub(crate) async fn runtime(&self) -> LocalRuntime {
        LocalRuntime::open(self.config()).await.unwrap()
    }

    pub(crate) async fn modest(&self, resources: ResourceLimits) -> LocalRuntime {
        LocalRuntime::open(self.config().with_resources(resources))
            .await
            .unwrap()
    }

    pub(crate) async fn hasty(&self, address: Duration, handover: Duration) -> LocalRuntime {
        LocalRuntime::open(self.config().with_limits(StartLimits { address, handover }))
            .await
            .unwrap()
    }

    pub(crate) fn folder(&self, sandbox: SandboxId) -> PathBuf {
        self.data
            .path()
            .canonicalize()
            .unwrap()
            .join("sandboxes")
            .join(sandbox.to_string())
    }

    /// A specification whose fake does what the words say.
    pub(crate) fn spec(&self, words: &str) -> LaunchSpec {
        LaunchSpec {
            sandbox: fresh_id(),
            instance: self.instance,
            public_key: SigningKey::from_seed(&[7; 32]).unwrap().verifying_key(),
            blueprint: Blueprint {
                protocol: 1,
                image: String::new(),
                harness: "builtin".to_owned(),
                repo_url: None,
                branch: "main".to_owned(),
                requirements: None,
                secrets: std::collections::BTreeSet::new(),
                allow_out: Vec::new(),
                deny_out: Vec::new(),
                baked: BTreeMap::new(),
            },
            env: BTreeMap::from([("FAKE".to_owned(), words.to_owned())]),
            git_token: Some(Secret::new("ghp_canary")),
            gateway: GatewayAccess {
                base: "http://127.0.0.1:1".to_owned(),
                key: "stub".to_owned(),
            },
            labels: BTreeMap::from([("agent".to_owned(), "a".to_owned())]),
        }
    }
}

pub(crate) fn fresh_id() -> SandboxId {
    SandboxId::fresh(&SystemEntropy::new(), SystemClock.now())
}

/// Launches and waits for the address.
pub(crate) async fn up(runtime: &LocalRuntime, spec: &LaunchSpec) -> String {
    runtime.launch(spec).await.unwrap();
    match runtime.endpoint(spec.sandbox, SOON).await.unwrap() {
        Endpoint::At(address) => address,
        other => panic!("no address: {other:?}"),
    }
}

/// The number of the sandbox's first process.
pub(crate) fn root_pid(folder: &Path) -> u32 {
    recorded_root(folder).unwrap()
}

fn recorded_root(folder: &Path) -> Option<u32> {
    let record: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("sandbox.json")).ok()?).ok()?;
    record["root"]["pid"].as_u64()?.try_into().ok()
}

/// Makes the sandbox's first process end as a crash would.
pub(crate) fn kill_root(folder: &Path) {
    let pid = rustix::process::Pid::from_raw(root_pid(folder).try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

impl Drop for Site {
    /// A failed test, and laws that do not stop what they start, leave no process behind.
    fn drop(&mut self) {
        for entry in fs::read_dir(self.data.path().join("sandboxes"))
            .into_iter()
            .flatten()
            .flatten()
        {
            // Not by its command: what makes the walls may not have come to the program yet.
            let marker = format!("LAP_SANDBOX_ID={}", entry.file_name().display());
            let is_ours = |pid: u32| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == marker.as_bytes())
            };
            if recorded_root(&entry.path()).is_some_and(is_ours) {
                kill_root(&entry.path());
            }
        }
    }
}

/// The sleepers of this kind that this sandbox's fake has made: 1 has the marker, 2 is in the folder, 3 has nothing.
pub(crate) fn sleepers(sandbox: SandboxId, kind: u32) -> Vec<u32> {
    let number = sandbox.as_uuid().as_u128() & 0xffff_ffff_ffff;
    running(&format!("sleep 100{kind}.{number}"))
}

/// Processes that have not ended and whose command line is exactly this, with the arguments separated by spaces.
pub(crate) fn running(command: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid| command_of(*pid) == command && is_alive(*pid))
        .collect()
}

pub(crate) fn command_of(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words)
        .trim_end_matches('\0')
        .replace('\0', " ")
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next())
        .is_some_and(|state| state != "Z")
}

pub(crate) fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until it is true.
pub(crate) async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !is_true() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it never happened that {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The sandboxes told before `Complete`.
pub(crate) async fn listed(events: &mut RuntimeEvents) -> Vec<SandboxId> {
    let mut found = Vec::new();
    loop {
        match tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap() {
            RuntimeEvent::Exists(sandbox) => found.push(sandbox),
            RuntimeEvent::Complete => return found,
            other => panic!("unexpected before the list is complete: {other:?}"),
        }
    }
}

/// The next end that is told.
pub(crate) async fn next_end(events: &mut RuntimeEvents) -> (SandboxId, String) {
    match tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap() {
        RuntimeEvent::Gone { sandbox, reason } => (sandbox, reason),
        other => panic!("unexpected: {other:?}"),
    }
}
