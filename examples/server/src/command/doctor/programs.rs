//! Which harnesses are installed, and git.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::Finding;
use crate::config::Config;

/// How long a program may take to say its version. Some start a JavaScript engine for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program and how to get it.
struct Program {
    name: &'static str,
    /// The harness it is, by its id.
    harness: Option<&'static str>,
    install: &'static str,
}

const PROGRAMS: [Program; 4] = [
    Program {
        name: "opencode",
        harness: Some("opencode"),
        install: "npm install -g opencode-ai",
    },
    Program {
        name: "claude",
        harness: Some("claude-code"),
        install: "npm install -g @anthropic-ai/claude-code",
    },
    Program {
        name: "codex",
        harness: Some("codex"),
        install: "npm install -g @openai/codex",
    },
    Program {
        name: "git",
        harness: None,
        install: "apt-get install git, or the package manager of your system",
    },
];

pub(super) async fn look(config: Option<&Config>) -> Vec<Finding> {
    let mut findings = vec![Finding::good(
        "builtin",
        "the built-in harness needs nothing installed",
    )];
    for program in &PROGRAMS {
        findings.push(match find(program.name) {
            Some(path) => present(program, &path).await,
            None => missing(program, config),
        });
    }
    findings
}

fn missing(program: &Program, config: Option<&Config>) -> Finding {
    let is_default = config.is_some_and(|config| program.harness == Some(config.default_harness.as_str()));
    let clones = config.is_some_and(|config| config.preinstalled_repo.is_some());
    let finding = match program.harness {
        Some(id) if is_default => Finding::bad(program.name, format!("not found, but LAP_HARNESS is {id}")),
        Some(id) => Finding::note(
            program.name,
            format!("not found: sessions with the harness {id} will fail"),
        ),
        None if clones => Finding::bad(
            program.name,
            "not found, but PREINSTALLED_GITHUB_REPO is to be cloned",
        ),
        None => Finding::note(program.name, "not found: repositories cannot be cloned"),
    };
    finding.advise(program.install)
}

async fn present(program: &Program, path: &Path) -> Finding {
    match version(path).await {
        Ok(version) => Finding::good(program.name, format!("{version} ({})", path.display())),
        Err(why) => Finding::note(program.name, format!("{} is there, but {why}", path.display()))
            .advise(program.install),
    }
}

async fn version(path: &Path) -> Result<String, String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.map_err(|_| format!("--version took more than {} s", PATIENCE.as_secs()))?;
    let output = output.map_err(|error| format!("cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("--version ended with {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    first
        .map(str::to_owned)
        .ok_or_else(|| "--version printed nothing".into())
}

/// The program as a shell would find it.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let is_program = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(is_program)
}
