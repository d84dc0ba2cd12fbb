//! Asks git what a workspace has that its remote does not.

use std::path::PathBuf;

use super::git::Git;
use super::lost::Lost;
use super::manifest::Position;

/// Diffs that are longer are cut.
const MAX_DIFF: u64 = 64 << 20;
const MAX_LIST: u64 = 16 << 20;

/// What there is to keep of a repository.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) position: Position,
    /// The commit the remote has too, on which own commits are based.
    pub(super) base: Option<String>,
    /// Commits the remote does not have.
    pub(super) commits: Option<Vec<u8>>,
    /// The difference between `position.head` and the files.
    pub(super) changes: Vec<u8>,
    /// The difference between `base` and the files, when there are own commits.
    pub(super) squashed: Vec<u8>,
    /// Files git does not have and does not ignore; a nested repository is one path.
    pub(super) untracked: Vec<PathBuf>,
}

/// Looks at the repository of the workspace. `branch` is the one a fresh clone gets; `None` for the remote's own choice.
pub(super) async fn survey(
    git: &Git,
    remote: bool,
    branch: Option<&str>,
    room: usize,
    lost: &mut Lost,
) -> Result<Survey, String> {
    let mut survey = Survey::default();
    let position = &mut survey.position;
    position.head = git.ask(["rev-parse", "--verify", "-q", "HEAD^{commit}"]).await;
    position.branch = git.ask(["symbolic-ref", "-q", "--short", "HEAD"]).await;
    let mut list = vec!["ls-files", "-z", "--others", "--exclude-standard"];
    if position.head.is_none() {
        // Nothing is committed, so there is nothing to compare with.
        list.push("--cached");
    }
    let listed = git.read(&list, MAX_LIST).await?;
    survey.untracked = listed.paths().collect();
    if listed.cut {
        lost.add("some untracked files: there are too many");
    }
    let Some(head) = survey.position.head.clone() else {
        return Ok(survey);
    };
    if remote {
        let clone = format!("refs/remotes/origin/{}", branch.unwrap_or("HEAD"));
        survey.base = git.ask(["merge-base", &head, &clone]).await;
    }
    survey.changes = diff(git, &head, lost).await?;
    own_commits(git, &mut survey, room, lost).await?;
    if submodules(git).await {
        lost.add("changes inside of submodules");
    }
    Ok(survey)
}

async fn own_commits(git: &Git, survey: &mut Survey, room: usize, lost: &mut Lost) -> Result<(), String> {
    let mut range = vec!["HEAD", "--branches"];
    if let Some(base) = &survey.base {
        range.extend(["--not", base]);
    }
    let mut count = vec!["rev-list", "--count"];
    count.extend(&range);
    let counted = git.read(&count, 1000).await?.line();
    survey.position.own_commits = counted.and_then(|count| count.parse().ok()).unwrap_or(0);
    if survey.position.own_commits == 0 {
        return Ok(());
    }
    let mut bundle = vec!["bundle", "create", "-q", "-"];
    bundle.extend(&range);
    match git.read(&bundle, room as u64).await {
        Ok(said) if !said.cut => survey.commits = Some(said.output),
        Ok(_) => {}
        Err(reason) => lost.add(format!("own commits as commits: {reason}")),
    }
    if let Some(base) = survey.base.clone() {
        survey.squashed = diff(git, &base, lost).await?;
    }
    Ok(())
}

async fn diff(git: &Git, from: &str, lost: &mut Lost) -> Result<Vec<u8>, String> {
    let arguments = [
        "diff",
        "--binary",
        "--no-renames",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--ignore-submodules=all",
        "--src-prefix=a/",
        "--dst-prefix=b/",
        from,
        "--",
    ];
    let mut said = git.read(arguments, MAX_DIFF).await?;
    if said.cut {
        lost.add("some changes to files of the repository: they are too long together");
        // The last one is not whole.
        let whole = super::git::sections(&said.output);
        let last = whole.last().map_or(0, |last| last.len());
        said.output.truncate(said.output.len() - last);
    }
    Ok(said.output)
}

/// Whether a submodule is checked out.
async fn submodules(git: &Git) -> bool {
    let staged = git.read(["ls-files", "--stage"], MAX_LIST).await;
    staged.is_ok_and(|said| {
        said.output
            .split(|byte| *byte == b'\n')
            .any(|line| line.starts_with(b"160000 "))
    })
}
