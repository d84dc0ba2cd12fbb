//! What a runtime is made from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lap_core::capability::Isolation;
use lap_core::id::{Entropy, InstanceId, SystemEntropy};
use lap_core::time::{Clock, SystemClock};

/// What of the server's environment reaches a sandbox. The agent's own variables travel in the launch document.
const ALLOWED: &[&str] = &["PATH", "LANG", "LC_ALL", "TERM", "TZ"];

/// How patient a start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartLimits {
    /// How long a new sandbox may take to read its launch document.
    pub handover: Duration,
    /// How long it may take to tell its address; one that takes longer is killed and told as gone.
    pub address: Duration,
}

impl Default for StartLimits {
    fn default() -> Self {
        Self {
            handover: Duration::from_secs(10),
            address: Duration::from_secs(30),
        }
    }
}

/// How much of the machine one sandbox may take. A limit that is `None` is not set.
///
/// Where the server's control group is delegated to it (cgroup v2 with the controllers `memory` and `pids`) the kernel
/// enforces these. Elsewhere the sandbox is measured once a second and killed with a reason when it has more; for a
/// moment it can then have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Memory of all its processes together, in bytes.
    pub memory_bytes: Option<u64>,
    /// How many processes it may have.
    pub processes: Option<u32>,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self {
            memory_bytes: Some(4 << 30),
            processes: Some(512),
        }
    }
}

impl ResourceLimits {
    /// No limits.
    pub const NONE: Self = Self {
        memory_bytes: None,
        processes: None,
    };
}

/// What a [`LocalRuntime`](crate::LocalRuntime) is made from.
///
/// ```
/// # use lap_core::id::{InstanceId, SystemEntropy};
/// # use lap_core::time::Timestamp;
/// # let instance = InstanceId::fresh(&SystemEntropy::new(), Timestamp::from_unix_millis(0));
/// let config = lap_local::LocalConfig::new("/var/lib/lap", "/usr/bin/lap-server", instance)
///     .with_arguments(["sandboxd"])
///     .with_environment(std::env::vars_os(), &["SSL_CERT_FILE"]);
/// ```
#[derive(Debug, Clone)]
pub struct LocalConfig {
    pub(crate) data: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) instance: InstanceId,
    pub(crate) environment: BTreeMap<OsString, OsString>,
    pub(crate) limits: StartLimits,
    pub(crate) resources: ResourceLimits,
    pub(crate) isolation: Isolation,
    pub(crate) is_isolation_optional: bool,
    pub(crate) without_bubblewrap: bool,
    pub(crate) visible: Vec<PathBuf>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl LocalConfig {
    /// Sandboxes live below `data` and belong to `instance`; `program` is what runs as sandboxd.
    pub fn new(data: impl Into<PathBuf>, program: impl Into<PathBuf>, instance: InstanceId) -> Self {
        Self {
            data: data.into(),
            program: program.into(),
            arguments: Vec::new(),
            instance,
            environment: BTreeMap::new(),
            limits: StartLimits::default(),
            resources: ResourceLimits::default(),
            isolation: Isolation::None,
            is_isolation_optional: false,
            without_bubblewrap: false,
            visible: Vec::new(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
        }
    }

    /// Arguments of the program. They show in process lists: no secrets.
    #[must_use]
    pub fn with_arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Takes from the server's environment what a sandbox may see: `PATH`, `LANG`, `LC_ALL`, `TERM`, `TZ` and the
    /// `extra` names. Nothing else is kept, so a value that is not allowed cannot leak from here.
    #[must_use]
    pub fn with_environment(
        mut self,
        process: impl IntoIterator<Item = (OsString, OsString)>,
        extra: &[impl AsRef<str>],
    ) -> Self {
        let allowed = |name: &OsString| {
            ALLOWED.iter().any(|allowed| name == allowed) || extra.iter().any(|extra| name == extra.as_ref())
        };
        self.environment = process.into_iter().filter(|(name, _)| allowed(name)).collect();
        self
    }

    /// How patient a start is.
    #[must_use]
    pub const fn with_limits(mut self, limits: StartLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How much of the machine one sandbox may take.
    #[must_use]
    pub const fn with_resources(mut self, resources: ResourceLimits) -> Self {
        self.resources = resources;
        self
    }

    /// How sandboxes are kept apart: `None` or `UserNamespaces`. A runtime that cannot do what is asked does not open;
    /// [`isolation::available`](crate::isolation::available) tells beforehand.
    #[must_use]
    pub const fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self.is_isolation_optional = false;
        self
    }

    /// Isolates where the machine can, and says in its capabilities whether it does.
    #[must_use]
    pub const fn with_isolation_where_available(mut self) -> Self {
        self.isolation = Isolation::UserNamespaces;
        self.is_isolation_optional = true;
        self
    }

    /// Isolates with `unshare` even where bubblewrap is installed.
    #[must_use]
    pub const fn without_bubblewrap(mut self) -> Self {
        self.without_bubblewrap = true;
        self
    }

    /// What an isolated sandbox sees read-only besides the system: where harnesses are installed, for example. Paths are
    /// absolute. Whatever lies there can be read by every agent.
    #[must_use]
    pub fn with_visible(mut self, paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.visible = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Where time comes from.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where fresh ids come from.
    #[must_use]
    pub fn with_entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }
}
