//! git on a workspace that an agent may have prepared: no hook, no filter, no external program of its configuration is
//! run, and nothing takes longer than its deadline.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::Instant;

use crate::processes::Processes;

/// The longest message of git that is kept.
const MAX_MESSAGE: u64 = 4000;
/// How many filters of a repository's configuration are switched off; more are an attack.
const MAX_FILTERS: usize = 200;

/// Settings that make git run nothing but itself.
const SETTINGS: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.pager", "cat"),
    ("core.quotePath", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("diff.external", ""),
    ("submodule.recurse", "false"),
    ("fetch.fsckObjects", "true"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
];

/// A repository.
#[derive(Debug)]
pub(super) struct Git {
    workspace: PathBuf,
    base: BTreeMap<String, String>,
    processes: Arc<Processes>,
    settings: Vec<(OsString, OsString)>,
    deadline: Instant,
}

/// What git said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) output: Vec<u8>,
    /// There was more than was to be read; git was ended.
    pub(super) cut: bool,
}

impl Said {
    /// The output as one line of text.
    pub(super) fn line(&self) -> Option<String> {
        let line = std::str::from_utf8(&self.output).ok()?.trim();
        (!line.is_empty()).then(|| line.to_owned())
    }

    /// The output as a list of paths that end with NUL.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let whole = self.output.iter().rposition(|byte| *byte == 0).unwrap_or(0);
        self.output[..whole]
            .split(|byte| *byte == 0)
            .filter(|path| !path.is_empty())
            .map(|path| PathBuf::from(OsStr::from_bytes(path)))
    }
}

impl Git {
    /// A repository in this workspace, existing or about to be made.
    pub(super) fn new(
        workspace: &Path,
        base: &BTreeMap<String, String>,
        processes: &Arc<Processes>,
        patience: Duration,
    ) -> Self {
        let settings = SETTINGS
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Self {
            workspace: workspace.to_owned(),
            base: base.clone(),
            processes: Arc::clone(processes),
            settings: settings.collect(),
            deadline: Instant::now() + patience,
        }
    }

    /// Whether the workspace has a repository of its own. A `.git` that leads elsewhere is none.
    pub(super) fn exists(workspace: &Path) -> bool {
        std::fs::symlink_metadata(workspace.join(".git")).is_ok_and(|found| found.is_dir())
    }

    /// Switches off the filters the repository's configuration knows, which are programs.
    pub(super) async fn disarm(&mut self) -> Result<(), String> {
        let pattern = r"^(filter\..*\.(clean|smudge|process|required)|diff\..*\.(command|textconv))$";
        let arguments = ["config", "-z", "--name-only", "--get-regexp", pattern];
        // It fails when there is none.
        let Ok(said) = self.read(arguments, 1 << 20).await else {
            return Ok(());
        };
        let names: Vec<_> = said.paths().collect();
        if said.cut || names.len() > MAX_FILTERS {
            return Err("the repository's configuration has too many filters".to_owned());
        }
        for name in names {
            let name = name.into_os_string();
            let value = if name.as_bytes().ends_with(b".required") {
                "false"
            } else {
                ""
            };
            self.settings.push((name, value.into()));
        }
        Ok(())
    }

    /// Runs git and reads at most `limit` bytes of its output.
    pub(super) async fn read<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        limit: u64,
    ) -> Result<Said, String> {
        let mut command = self.command(arguments);
        let mut git = self
            .processes
            .spawn(&mut command)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => "git is not installed in this sandbox".to_owned(),
                _ => format!("git cannot be started: {error}"),
            })?;
        let (stdout, stderr) = (git.child.stdout.take(), git.child.stderr.take());
        let (Some(stdout), Some(mut stderr)) = (stdout, stderr) else {
            return Err("git's output cannot be read".to_owned());
        };
        let (mut output, mut message) = (Vec::new(), Vec::new());
        let finished = tokio::time::timeout_at(self.deadline, async {
            let mut bounded = stdout.take(limit + 1);
            let mut complaint = (&mut stderr).take(MAX_MESSAGE);
            let (read, _) = tokio::join!(
                bounded.read_to_end(&mut output),
                complaint.read_to_end(&mut message)
            );
            read.map_err(|error| format!("git's output cannot be read: {error}"))?;
            if output.len() as u64 > limit {
                return Ok(None);
            }
            // A pipe nobody reads would keep it from ending.
            drop(stderr);
            let exit = git.child.wait().await;
            exit.map(Some)
                .map_err(|error| format!("git cannot be waited for: {error}"))
        });
        match finished.await {
            Err(_) => Err("git did not finish in time".to_owned()),
            Ok(Err(reason)) => Err(reason),
            Ok(Ok(Some(exit))) if !exit.success() => {
                Err(String::from_utf8_lossy(&message).trim().replace('\n', "; "))
            }
            Ok(Ok(exit)) => {
                let cut = exit.is_none();
                output.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                Ok(Said { output, cut })
            }
        }
    }

    /// Runs git for what it does.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<(), String> {
        self.read(arguments, 1 << 20).await.map(drop)
    }

    /// The first line git says; `None` when it fails.
    pub(super) async fn ask<const N: usize>(&self, arguments: [&str; N]) -> Option<String> {
        self.read(arguments, 64 * 1024).await.ok()?.line()
    }

    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(&self.workspace)
            .env_clear()
            .envs(&self.base)
            .env("LC_ALL", "C")
            .env("GIT_DIR", self.workspace.join(".git"))
            // Stronger than a setting of the repository that names another folder.
            .env("GIT_WORK_TREE", &self.workspace)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_ALLOW_PROTOCOL", "file")
            .env("GIT_LITERAL_PATHSPECS", "1")
            .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "LAP")))
            .envs(["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "agent@lap.invalid")));
        command.env("GIT_CONFIG_COUNT", self.settings.len().to_string());
        for (index, (name, value)) in self.settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        command.arg("--no-pager").args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Cuts the output of `git diff --no-renames` into the changes of one file each. A line of a change never begins like
/// a header: text lines have a mark before them, and the letters of binary data have no blanks.
pub(super) fn sections(diff: &[u8]) -> Vec<&[u8]> {
    const HEADER: &[u8] = b"diff --git ";
    let mut starts = Vec::new();
    let mut at = 0;
    for line in diff.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(HEADER) {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([diff.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| &diff[*start..end])
        .collect()
}

/// The path a section is about, for people.
pub(super) fn subject(section: &[u8]) -> String {
    let line = section.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let names = line.trim_start_matches("diff --git ");
    // Without renames both names are the same, one after `a/` and one after `b/`.
    let half = names.get(..names.len().saturating_sub(1) / 2).unwrap_or(names);
    half.trim_matches('"').trim_start_matches("a/").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_cut_at_its_headers() {
        let diff = b"diff --git a/one b/one\n--- a/one\n+++ b/one\n@@ -1 +1 @@\n-x\n+diff --git a/z b/z\ndiff --git a/two words b/two words\nindex 1..2\n";
        let all = sections(diff);
        assert_eq!(all.len(), 2);
        assert_eq!(subject(all[0]), "one");
        assert_eq!(subject(all[1]), "two words");
        assert_eq!(all.concat(), diff);
        assert!(sections(b"").is_empty());
        assert_eq!(subject(b"diff --git \"a/\\303\" \"b/\\303\"\n"), "\\303");
    }
}
