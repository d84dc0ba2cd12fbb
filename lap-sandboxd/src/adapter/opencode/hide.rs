//! Takes a repository's own opencode configuration out of the workspace.
//!
//! `OPENCODE_DISABLE_PROJECT_CONFIG` is not enough: a newer half of opencode 1.18 reads these files without looking at it,
//! and loads the plugins they name. What is not there cannot be read. Git is told that the files are as they should be, so
//! they neither show up as changes nor get lost in a commit.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::adapter::Tools;

/// What opencode looks for at the root of a work tree.
const NAMES: [&str; 3] = ["opencode.json", "opencode.jsonc", ".opencode"];
/// Where they go, below the state folder.
const HIDDEN: &str = "opencode-of-the-repository";
/// Files named in one call of git.
const BATCH: usize = 200;

/// The workspace has none of them. The files themselves stay in the state folder.
///
/// # Errors
/// In words, when one of them cannot be taken away.
pub(super) async fn project_configuration(tools: &Tools) -> Result<(), String> {
    let workspace = tools.layout.workspace();
    // A link counts as itself, wherever it leads.
    let is_there = |name: &&str| fs::symlink_metadata(workspace.join(name)).is_ok();
    let found: Vec<&str> = NAMES.into_iter().filter(is_there).collect();
    if found.is_empty() {
        return Ok(());
    }
    if workspace.join(".git").exists() {
        expect_absence(tools, &workspace, &found).await?;
    }
    take_away(&workspace, &tools.layout.state().join(HIDDEN), &found)
        .map_err(|error| format!("the repository's opencode configuration cannot be taken away: {error}"))?;
    tracing::info!(?found, "the repository's opencode configuration is not used");
    Ok(())
}

fn take_away(workspace: &Path, hidden: &Path, names: &[&str]) -> io::Result<()> {
    fs::create_dir_all(hidden)?;
    for name in names {
        let mut place = hidden.join(name);
        for number in 2.. {
            if fs::symlink_metadata(&place).is_err() {
                break;
            }
            place = hidden.join(format!("{name}.{number}"));
        }
        fs::rename(workspace.join(name), place)?;
    }
    Ok(())
}

async fn expect_absence(tools: &Tools, workspace: &Path, names: &[&str]) -> Result<(), String> {
    let listed = git(tools, workspace, &["ls-files", "-z", "--"], names).await?;
    let listed: Vec<&str> = listed.split('\0').filter(|name| !name.is_empty()).collect();
    for batch in listed.chunks(BATCH) {
        git(
            tools,
            workspace,
            &["update-index", "--skip-worktree", "--"],
            batch,
        )
        .await?;
    }
    Ok(())
}

async fn git(tools: &Tools, workspace: &Path, arguments: &[&str], paths: &[&str]) -> Result<String, String> {
    let broken = |error: io::Error| format!("git cannot be asked about the repository's files: {error}");
    let mut command = Command::new("git");
    command
        .args([
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "core.fsmonitor=false",
            "--literal-pathspecs",
        ])
        .args(arguments)
        .args(paths)
        .current_dir(workspace)
        .env_clear()
        .envs(tools.environment.base())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut owned = tools.processes.spawn(&mut command).map_err(broken)?;
    let mut text = Vec::new();
    if let Some(mut stdout) = owned.child.stdout.take() {
        tokio::io::AsyncReadExt::read_to_end(&mut stdout, &mut text)
            .await
            .map_err(broken)?;
    }
    let status = owned.child.wait().await.map_err(broken)?;
    if !status.success() {
        return Err(format!("git cannot tell the repository's files: {status}"));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
