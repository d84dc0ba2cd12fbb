//! The runtime.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lap_core::capability::{Capabilities, Isolation};
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::id::{HostId, SandboxId, SystemEntropy};
use lap_core::runtime::{Endpoint, LaunchSpec, RuntimeEvents, SandboxRuntime};
use lap_core::sandbox::Place;
use lap_core::time::SystemClock;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::cgroup::Delegated;
use crate::config::{LocalConfig, ResourceLimits};
use crate::failure::{off_thread, unavailable};
use crate::folder::{DataFolder, FolderLock};
use crate::host::host_id;
use crate::isolation::{self, Means};
use crate::process::{Process, boot_id, identity_of};
use crate::record::merge_labels;
use crate::registry::{Registry, Sight};
use crate::trash::Trash;
use crate::{launch, log, measure, stop, watch};

/// Sandboxes as process trees of this machine, kept apart from it as the configuration says.
///
/// Sandboxes outlive the runtime and the server; a later runtime on the same data folder finds them. Several
/// runtimes may share a data folder, and each touches those of its own instance only.
#[derive(Debug, Clone)]
pub struct LocalRuntime {
    shared: Arc<Shared>,
}

/// What calls in flight hold.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: LocalConfig,
    pub(crate) registry: Arc<Registry>,
    pub(crate) trash: Trash,
    pub(crate) data: DataFolder,
    /// What isolates, where that is wanted.
    pub(crate) means: Option<Means>,
    /// Where the kernel limits sandboxes, if it does.
    pub(crate) groups: Option<Delegated>,
    host: HostId,
}

impl LocalRuntime {
    /// A runtime on this data folder, which is made when it is missing. What earlier stops left to remove is removed
    /// in the background.
    ///
    /// # Errors
    /// `Unavailable` when the folder cannot be made or written; `Corrupt` when its host id is damaged; `Unsupported`
    /// when the kernel cannot name processes safely, or this machine cannot isolate as the configuration says.
    pub async fn open(config: LocalConfig) -> Result<Self> {
        const OPERATION: &str = "open data folder";
        let shared = off_thread(OPERATION, move || Shared::open(config, Handle::current())).await??;
        let sweeper = Arc::new(shared);
        let runtime = Self {
            shared: Arc::clone(&sweeper),
        };
        if runtime.shared.config.resources != ResourceLimits::NONE {
            tokio::spawn(measure::measure(Arc::downgrade(&runtime.shared)));
        }
        tokio::task::spawn_blocking(move || {
            if let Err(error) = sweeper.trash.sweep() {
                tracing::warn!(%error, "something in the trash cannot be removed");
            }
        });
        Ok(runtime)
    }

    /// The id of this machine, kept in the data folder and made at the first call.
    ///
    /// # Errors
    /// `Unavailable` when the folder cannot be made or written; `Corrupt` when the id is damaged.
    pub fn host_id(data: &Path) -> Result<HostId> {
        let data =
            DataFolder::open(data).map_err(|error| unavailable("read the host id", data.display(), error))?;
        host_id(data.root(), &SystemEntropy::new(), &SystemClock)
    }

    async fn with_folder(
        &self,
        operation: &'static str,
        sandbox: SandboxId,
        work: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<()> {
        let fail = |error| unavailable(operation, format!("sandbox {sandbox}"), error);
        let path = self.existing(operation, sandbox)?;
        let lock = FolderLock::acquire(&path, Duration::from_secs(10))
            .await
            .map_err(fail)?;
        let Some(_held) = lock else {
            return Err(Error::not_found(operation, "sandbox", sandbox));
        };
        work(&path).map_err(fail)
    }

    fn existing(&self, operation: &'static str, sandbox: SandboxId) -> Result<std::path::PathBuf> {
        let sight = self.shared.registry.look(sandbox);
        match sight.map_err(|error| unavailable(operation, format!("sandbox {sandbox}"), error))? {
            Sight::Absent | Sight::Foreign => Err(Error::not_found(operation, "sandbox", sandbox)),
            _ => Ok(self.shared.registry.folder(sandbox)),
        }
    }
}

impl Shared {
    fn open(config: LocalConfig, tasks: Handle) -> Result<Self> {
        const OPERATION: &str = "open data folder";
        let data = DataFolder::open(&config.data)
            .map_err(|error| unavailable(OPERATION, config.data.display(), error))?;
        let host = host_id(data.root(), &*config.entropy, &*config.clock)?;
        check_kernel()?;
        let means = find_means(&config)?;
        let boot_id = boot_id().map_err(|error| unavailable(OPERATION, "the machine's boot id", error))?;
        let registry = Registry::new(
            data.sandboxes(),
            config.instance,
            boot_id,
            config.limits.address,
            means.is_some(),
            tasks,
        );
        Ok(Self {
            registry: Arc::new(registry),
            trash: Trash::new(data.trash()),
            data,
            means,
            groups: Delegated::find(),
            host,
            config,
        })
    }

    /// One look at whether the sandbox has an address.
    fn peek(&self, sandbox: SandboxId) -> io::Result<Endpoint> {
        Ok(match self.registry.look(sandbox)? {
            Sight::Absent | Sight::Foreign => Endpoint::Gone {
                reason: "nothing of this sandbox exists on this host".to_owned(),
            },
            Sight::Ended(reason) => Endpoint::Gone { reason },
            Sight::Planned => Endpoint::Unknown,
            Sight::Alive(life) => life
                .address()?
                .map_or(Endpoint::Unknown, |address| Endpoint::At(address.to_string())),
        })
    }
}

fn find_means(config: &LocalConfig) -> Result<Option<Means>> {
    const OPERATION: &str = "isolate sandboxes";
    let found = match config.isolation {
        Isolation::None => return Ok(None),
        Isolation::UserNamespaces if config.without_bubblewrap => isolation::available_without_bubblewrap(),
        Isolation::UserNamespaces => isolation::available(),
        other => {
            let message = format!("local sandboxes cannot be isolated by {}", other.as_str());
            return Err(Error::new(ErrorKind::Unsupported, OPERATION, message));
        }
    };
    match found {
        Ok(means) => {
            tracing::info!(%means, "sandboxes are isolated");
            Ok(Some(means))
        }
        Err(reason) if config.is_isolation_optional => {
            tracing::warn!(%reason, "sandboxes are not isolated");
            Ok(None)
        }
        Err(reason) => {
            let message = format!("this machine cannot isolate: {reason}");
            Err(Error::new(ErrorKind::Unsupported, OPERATION, message))
        }
    }
}

/// Everything here rests on handles to processes, so their absence must show at the start and not at the first kill.
fn check_kernel() -> Result<()> {
    let own = identity_of(std::process::id()).and_then(|own| own.map(Process::open).transpose());
    match own {
        Ok(Some(Some(_))) => Ok(()),
        Ok(_) => Err(Error::new(
            ErrorKind::Unsupported,
            "open data folder",
            "/proc does not show this process",
        )),
        Err(error) => {
            let message = "local sandboxes need Linux 5.6 or newer with /proc mounted (process handles)";
            Err(Error::new(ErrorKind::Unsupported, "open data folder", message).with_source(error))
        }
    }
}

#[async_trait]
impl SandboxRuntime for LocalRuntime {
    fn capabilities(&self) -> Capabilities {
        let isolation = match self.shared.means {
            Some(_) => Isolation::UserNamespaces,
            None => Isolation::None,
        };
        Capabilities::at(Place::Host(self.shared.host)).with_isolation(isolation)
    }

    async fn launch(&self, spec: &LaunchSpec) -> Result<()> {
        // A task of its own: a caller that leaves must not leave a process behind that has half of its document.
        let work = tokio::spawn(launch::launch(Arc::clone(&self.shared), spec.clone()));
        work.await.map_err(|error| {
            Error::new(ErrorKind::Internal, "launch sandbox", "the launch did not finish").with_source(error)
        })?
    }

    async fn endpoint(&self, sandbox: SandboxId, within: Duration) -> Result<Endpoint> {
        let begun = Instant::now();
        loop {
            let endpoint = self.shared.peek(sandbox);
            let endpoint =
                endpoint.map_err(|error| unavailable("find sandbox", format!("sandbox {sandbox}"), error))?;
            let waited = begun.elapsed();
            if endpoint != Endpoint::Unknown || waited >= within {
                return Ok(endpoint);
            }
            // A healthy start takes milliseconds, and a person may be waiting; later nobody counts them any more.
            let pause = Duration::from_millis(if waited < Duration::from_millis(200) {
                1
            } else {
                20
            });
            tokio::time::sleep(pause.min(within - waited)).await;
        }
    }

    async fn bind(&self, sandbox: SandboxId, labels: &BTreeMap<String, String>) -> Result<()> {
        self.with_folder("bind sandbox", sandbox, |folder| merge_labels(folder, labels))
            .await
    }

    async fn stop(&self, sandbox: SandboxId, grace: Duration) -> Result<()> {
        stop::stop(Arc::clone(&self.shared), sandbox, grace).await
    }

    fn watch(&self) -> RuntimeEvents {
        watch::watch(Arc::clone(&self.shared.registry))
    }

    async fn logs(&self, sandbox: SandboxId, lines: usize) -> Result<String> {
        const OPERATION: &str = "read sandbox log";
        let folder = self.existing(OPERATION, sandbox)?;
        let read = off_thread(OPERATION, move || log::last_lines(&folder, lines, u64::MAX)).await?;
        read.map_err(|error| unavailable(OPERATION, format!("log of sandbox {sandbox}"), error))
    }
}
