//! Puts what was staged into a fresh workspace.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::git::{Git, subject};
use super::lost::Lost;
use super::manifest::Position;
use super::place::Place;
use super::stage::{Staged, StagedContent};

/// When the changes do not apply together, only so many are tried one by one.
const MAX_SINGLE: usize = 500;

/// Where things are during a restoration.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) git: &'a Git,
    pub(super) workspace: &'a Path,
    /// Where the patch of what could not be applied is kept.
    pub(super) rejected: &'a Path,
}

/// Brings the repository to where it stood, as far as the commits for that are there.
pub(super) async fn repository(site: &Site<'_>, staged: &Staged, lost: &mut Lost) -> Result<(), String> {
    let Some(position) = &staged.manifest.git else {
        return Ok(());
    };
    let git = site.git;
    if !Git::exists(site.workspace) {
        git.run(["init", "-q"]).await?;
        // The folder is where it is; a setting that says so breaks when it moves.
        let _ = git.run(["config", "--unset", "core.worktree"]).await;
    }
    let Some(head) = &position.head else {
        return name_unborn_branch(git, position).await;
    };
    let own = position.own_commits;
    if let Some(bundle) = &staged.commits {
        match fetch(git, bundle).await {
            Ok(()) if check_out(git, head, position).await.is_ok() => {
                return changes(site, &staged.changes, lost).await;
            }
            Ok(()) => lost.add(format!("{own} commits as such: the commit {head} is not among them")),
            Err(reason) => lost.add(format!(
                "{own} commits as such, because the branch has moved; their changes are uncommitted now ({reason})"
            )),
        }
        return changes(site, &staged.squashed, lost).await;
    }
    let tip = git.ask(["rev-parse", "--verify", "-q", "HEAD^{commit}"]).await;
    if tip.as_ref() == Some(head) {
        check_out(git, head, position).await?;
    }
    changes(site, &staged.changes, lost).await
}

async fn name_unborn_branch(git: &Git, position: &Position) -> Result<(), String> {
    let is_unborn = git.ask(["rev-parse", "--verify", "-q", "HEAD"]).await.is_none();
    match &position.branch {
        Some(branch) if is_unborn => {
            git.run(["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")])
                .await
        }
        _ => Ok(()),
    }
}

async fn fetch(git: &Git, bundle: &Path) -> Result<(), String> {
    let from = |refs: &'static str| {
        [
            OsStr::new("fetch"),
            OsStr::new("-q"),
            OsStr::new("--force"),
            OsStr::new("--update-head-ok"),
            OsStr::new("--no-tags"),
            OsStr::new("--no-write-fetch-head"),
            OsStr::new("--no-recurse-submodules"),
            bundle.as_os_str(),
            OsStr::new(refs),
        ]
    };
    git.run(from("refs/heads/*:refs/heads/*")).await?;
    // A head without a branch is kept under a name until it is checked out. One that is not ahead is not in there.
    let _ = git.run(from("HEAD:refs/lap/restored")).await;
    Ok(())
}

async fn check_out(git: &Git, head: &str, position: &Position) -> Result<(), String> {
    match &position.branch {
        Some(branch) => {
            let name = format!("refs/heads/{branch}");
            git.run(["check-ref-format", &name]).await?;
            git.run(["update-ref", "--no-deref", &name, head]).await?;
            git.run(["symbolic-ref", "HEAD", &name]).await?;
        }
        None => git.run(["update-ref", "--no-deref", "HEAD", head]).await?,
    }
    let _ = git.run(["update-ref", "-d", "refs/lap/restored"]).await;
    git.run(["reset", "-q", "--hard", head]).await
}

/// Applies the changes together, else one file after the other. What conflicts leaves the branch's file as it is and is
/// kept as a patch.
async fn changes(site: &Site<'_>, sections: &[PathBuf], lost: &mut Lost) -> Result<(), String> {
    if sections.is_empty() || together(site, sections).await.is_ok() {
        return Ok(());
    }
    let mut failed = Vec::new();
    for (number, section) in sections.iter().enumerate() {
        if number >= MAX_SINGLE || site.git.is_late() {
            failed.push((section, "there was no time for it".to_owned()));
        } else if let Err(reason) = single(site.git, section).await {
            failed.push((section, reason));
        }
    }
    let mut kept = Vec::new();
    for (section, reason) in &failed {
        let patch = fs::read(section).map_err(|error| format!("the snapshot cannot be read: {error}"))?;
        lost.add(format!("the changes to {}: {reason}", subject(&patch)));
        kept.extend_from_slice(&patch);
    }
    if !kept.is_empty() {
        crate::layout::replace_file(site.rejected, &kept)
            .map_err(|error| format!("the patch cannot be kept: {error}"))?;
        lost.add(format!(
            "(what could not be applied is kept as a patch in {})",
            site.rejected.display()
        ));
    }
    Ok(())
}

/// All or nothing.
async fn together(site: &Site<'_>, sections: &[PathBuf]) -> Result<(), String> {
    let unreadable = |error: io::Error| format!("the snapshot cannot be read: {error}");
    let mut all = Vec::new();
    for section in sections {
        all.extend(fs::read(section).map_err(unreadable)?);
    }
    fs::write(site.rejected, all).map_err(unreadable)?;
    let applied = apply(site.git, site.rejected, false).await;
    fs::remove_file(site.rejected).map_err(unreadable)?;
    applied
}

async fn single(git: &Git, section: &Path) -> Result<(), String> {
    let Err(reason) = apply(git, section, false).await else {
        return Ok(());
    };
    if apply(git, section, true).await.is_ok() {
        return Ok(());
    }
    // A conflict leaves marks in the file and in the index.
    let named = git.read(
        [
            OsStr::new("apply"),
            OsStr::new("--numstat"),
            OsStr::new("-z"),
            section.as_os_str(),
        ],
        1 << 16,
    );
    if let Ok(named) = named.await
        && let Some(path) = named.paths().next().as_deref().and_then(numstat_path)
    {
        let _ = git
            .run([
                OsStr::new("reset"),
                OsStr::new("-q"),
                OsStr::new("HEAD"),
                OsStr::new("--"),
                path,
            ])
            .await;
        let _ = git
            .run([
                OsStr::new("checkout"),
                OsStr::new("-q"),
                OsStr::new("HEAD"),
                OsStr::new("--"),
                path,
            ])
            .await;
    }
    let line = reason.split("; ").next().unwrap_or_default();
    Err(format!("they conflict with the branch ({line})"))
}

/// The path after the two counts of `git apply --numstat`.
fn numstat_path(line: &Path) -> Option<&OsStr> {
    use std::os::unix::ffi::OsStrExt;
    let line = line.as_os_str().as_bytes();
    line.splitn(3, |byte| *byte == b'\t')
        .nth(2)
        .map(OsStr::from_bytes)
}

async fn apply(git: &Git, patch: &Path, merge: bool) -> Result<(), String> {
    let mut arguments = vec![OsStr::new("apply"), OsStr::new("--whitespace=nowarn")];
    if merge {
        arguments.push(OsStr::new("--3way"));
    }
    arguments.extend([OsStr::new("--"), patch.as_os_str()]);
    git.run(arguments).await
}

/// Moves files into the workspace. Nothing that is there already is replaced.
pub(super) fn files(staged: &Staged, workspace: &Path, lost: &mut Lost) {
    let place = match Place::open(workspace) {
        Ok(place) => place,
        Err(error) => return lost.add(format!("untracked files: {error}")),
    };
    for file in &staged.files {
        let placed = match &file.content {
            StagedContent::File(from) => place.receive(from, &file.path),
            StagedContent::Link(target) => place.link(target, &file.path),
        };
        match placed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                lost.file(&file.path, "the branch has a file there now");
            }
            Err(error) => lost.file(&file.path, error),
        }
    }
}
