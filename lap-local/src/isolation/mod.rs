//! Keeping sandboxes apart from the machine: namespaces around the first process, made by programs of the system.
//!
//! What runs inside has its own process numbers, sees the system read-only, its own folder, and nothing else of this
//! machine's files. Its first process is the first one of its process namespace, so the kernel ends everything with it.
//! The network is the machine's: whoever listens on the loopback address can be reached, and so can the outside.
//!
//! As an unprivileged user this takes a user namespace. As root it does not: every sandbox then gets a user id of its
//! own and no capability, because root inside a user namespace still owns root's files and kernel settings outside.

mod bubblewrap;
mod enter;
mod probe;
mod tenant;
mod view;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lap_core::id::SandboxId;

pub use probe::{Unavailable, available, available_without_bubblewrap};

use tenant::Tenant;
use view::View;

/// Whether isolated sandboxes see this path of the system.
pub fn shows(path: &Path) -> bool {
    view::SYSTEM.iter().any(|folder| path.starts_with(folder))
}

/// How this machine isolates, as tried by [`available`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Means {
    tool: Tool,
    program: PathBuf,
    setpriv: PathBuf,
    prlimit: PathBuf,
    is_root: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Bubblewrap,
    Unshare,
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tool = match self.tool {
            Tool::Bubblewrap => "bubblewrap",
            Tool::Unshare => "unshare",
        };
        let how = if self.is_root {
            "a user id of its own for every sandbox"
        } else {
            "user namespaces"
        };
        write!(f, "{tool} ({}), {how}", self.program.display())
    }
}

/// What is wanted around one sandbox.
#[derive(Debug)]
pub(crate) struct Enclosure<'a> {
    pub(crate) means: &'a Means,
    pub(crate) sandbox: SandboxId,
    /// The sandbox's own folder, without links.
    pub(crate) folder: &'a Path,
    /// What holds everybody's folders and more; hidden even where it lies in the system.
    pub(crate) data: &'a Path,
    pub(crate) program: &'a Path,
    /// What else is seen, read-only.
    pub(crate) visible: &'a [PathBuf],
    /// How many tasks the sandbox may have at a time.
    pub(crate) tasks: Option<u32>,
}

impl Enclosure<'_> {
    /// Prepares the folder and tells the words that start the program with its arguments inside.
    pub(crate) fn command(&self, arguments: &[OsString]) -> io::Result<(PathBuf, Vec<OsString>)> {
        let tenant = Tenant::of(self.sandbox, self.means.is_root);
        let program = self.program.canonicalize()?;
        tenant.furnish(self.folder)?;
        let view = View::of_sandbox(self, &program)?;
        let mut inner = vec![program.into_os_string()];
        inner.extend(arguments.iter().cloned());
        Ok(self.means.around(&view, &tenant, self.tasks, inner))
    }
}

impl Means {
    /// Whether the process is still one of the programs that make the walls, or is just becoming another.
    pub(crate) fn is_at_work(&self, pid: u32) -> bool {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        let first = words.next().unwrap_or_default();
        let tools = [&self.program, &self.setpriv, &self.prlimit];
        // The script's shell calls unshare by its bare name once more.
        let is_tool = first.is_empty()
            || first == b"unshare"
            || tools.iter().any(|tool| tool.as_os_str().as_bytes() == first);
        is_tool || words.any(|word| word == enter::NAME.as_bytes())
    }

    fn around(
        &self,
        view: &View,
        tenant: &Tenant,
        tasks: Option<u32>,
        mut inner: Vec<OsString>,
    ) -> (PathBuf, Vec<OsString>) {
        if let Some(tasks) = tasks {
            // The kernel counts per user id and user namespace, and either is the sandbox's own.
            let limit = format!("--nproc={tasks}:{tasks}");
            inner.splice(0..0, [self.prlimit.clone().into(), limit.into()]);
        }
        let privileges = tenant.drop_privileges(self.is_root);
        inner.splice(0..0, [self.setpriv.clone().into()].into_iter().chain(privileges));
        let arguments = match self.tool {
            Tool::Bubblewrap => bubblewrap::arguments(view, self.is_root, inner),
            Tool::Unshare => enter::arguments(view, tenant, self.is_root, inner),
        };
        (self.program.clone(), arguments)
    }
}
