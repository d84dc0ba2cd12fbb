//! The agent's working directory: a clone, or an empty folder.

mod clone;
mod remote;

use std::fs;
use std::io;
use std::sync::Arc;

use lap_core::secret::Secret;

use crate::environment::Environment;
use crate::layout::{Layout, replace_file};
use crate::processes::Processes;
use crate::status::Status;

pub(crate) use remote::Remote;

/// Says in the state folder that the workspace is whole, so that a restart neither clones again nor trusts half a
/// clone.
const MARKER: &str = "workspace.json";

/// What to put into the workspace.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) remote: Remote,
    pub(crate) branch: Option<String>,
    pub(crate) token: Option<Secret>,
}

/// Prepares the workspace unless an earlier life did.
///
/// # Errors
/// The reason for people, without any secret.
pub(crate) async fn prepare(
    source: Option<Source>,
    layout: &Layout,
    environment: &Environment,
    processes: &Arc<Processes>,
    status: &Status,
) -> Result<(), String> {
    let marker = layout.state().join(MARKER);
    if marker.exists() {
        return Ok(());
    }
    write_git_identity(layout).map_err(|error| format!("the home folder cannot be written: {error}"))?;
    if let Some(source) = source {
        status.phase("cloning_repo");
        empty(layout).map_err(|error| format!("the workspace cannot be emptied: {error}"))?;
        clone::run(&source, layout, environment, processes, status).await?;
    }
    replace_file(&marker, b"{}").map_err(|error| format!("the state folder cannot be written: {error}"))
}

/// A commit needs an author. The file is the agent's to change; a repository's own setting wins over it.
fn write_git_identity(layout: &Layout) -> io::Result<()> {
    let path = layout.home().join(".gitconfig");
    if path.exists() {
        return Ok(());
    }
    fs::write(
        path,
        "[user]\n\tname = LAP agent\n\temail = agent@lap.invalid\n[init]\n\tdefaultBranch = main\n",
    )
}

fn empty(layout: &Layout) -> io::Result<()> {
    fs::remove_dir_all(layout.workspace())?;
    fs::create_dir(layout.workspace())
}
