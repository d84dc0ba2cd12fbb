//! Trying whether this machine can isolate.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lap_core::id::SandboxId;
use rustix::process::geteuid;

use super::tenant::Tenant;
use super::view::View;
use super::{Means, Tool};

/// A healthy machine needs a few dozen milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where programs of the system are. Not the server's PATH: what makes the walls must not come from somewhere else.
const FOLDERS: [&str; 6] = [
    "/usr/bin",
    "/bin",
    "/usr/sbin",
    "/sbin",
    "/usr/local/bin",
    "/run/current-system/sw/bin",
];
/// True inside only: it is the first process there, holds no capability, and can change nothing of the system.
const QUESTION: &str = "[ \"$$\" = 1 ] && ! touch /.lap-probe /usr/.lap-probe 2>/dev/null && \
                        ! grep -q '^CapEff:.*[1-9a-f]' /proc/self/status && echo isolated";

/// Why this machine cannot isolate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    reasons: Vec<String>,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons.join("; "))
    }
}

impl std::error::Error for Unavailable {}

/// Tries, with a process that does nothing, what sandboxes would run in: bubblewrap, else util-linux's `unshare`.
/// Blocking, for some dozen milliseconds; at most a few seconds where a program hangs.
///
/// # Errors
/// What is missing or refused, for each of the two.
pub fn available() -> Result<Means, Unavailable> {
    let mut reasons = Vec::new();
    for tool in [Tool::Bubblewrap, Tool::Unshare] {
        match Means::find(tool).and_then(Means::tried) {
            Ok(means) => return Ok(means),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(Unavailable { reasons })
}

/// As [`available`], with `unshare` even where bubblewrap is installed.
///
/// # Errors
/// As [`available`].
pub fn available_without_bubblewrap() -> Result<Means, Unavailable> {
    let tried = Means::find(Tool::Unshare).and_then(Means::tried);
    tried.map_err(|reason| Unavailable {
        reasons: vec![reason],
    })
}

impl Means {
    fn find(tool: Tool) -> Result<Self, String> {
        let name = match tool {
            Tool::Bubblewrap => "bwrap",
            Tool::Unshare => "unshare",
        };
        Ok(Self {
            tool,
            program: find(name)?,
            setpriv: find("setpriv")?,
            prlimit: find("prlimit")?,
            is_root: geteuid().is_root(),
        })
    }

    fn tried(self) -> Result<Self, String> {
        let nobody = SandboxId::from_uuid(uuid::Uuid::nil());
        let tenant = Tenant::of(nobody, self.is_root);
        let inner = ["/bin/sh", "-c", QUESTION].map(Into::into).to_vec();
        let (program, arguments) = self.around(&View::of_system(), &tenant, Some(4096), inner);
        let mut command = Command::new(&program);
        command.args(arguments).env_clear().current_dir("/");
        let shown = program.display();
        match answer(command) {
            Ok((true, said)) if said.contains("isolated") => Ok(self),
            Ok((_, said)) if said.is_empty() => Err(format!("{shown} does not isolate here")),
            Ok((_, said)) => Err(format!("{shown} is refused here ({said})")),
            Err(error) => Err(format!("{shown} cannot be run: {error}")),
        }
    }
}

/// Whether it succeeded, and what it said in one line.
fn answer(mut command: Command) -> std::io::Result<(bool, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                child.kill()?;
                child.wait()?;
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let mut said = Vec::new();
    // Both are bounded: nobody writes into these pipes any more, and they hold little.
    let output = child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read>);
    let errors = child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read>);
    for pipe in output.into_iter().chain(errors) {
        pipe.take(4096).read_to_end(&mut said)?;
    }
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    Ok((status.success(), line.unwrap_or_default().to_owned()))
}

fn find(name: &str) -> Result<PathBuf, String> {
    let is_program = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(is_program)
        .ok_or_else(|| format!("{name} is not installed"))
}
