//! The real programs that tests run against: opencode from npm and the LiteLLM proxy from PyPI, in pinned versions,
//! installed once into a folder below `target`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The versions that the tests were written for. `docs/harnesses.md` states what else works.
const OPENCODE_VERSION: &str = "1.18.33";
const LITELLM_VERSION: &str = "1.106.2";

/// The variables by which tests find the programs.
pub(crate) const OPENCODE: &str = "LAP_TEST_OPENCODE";
pub(crate) const LITELLM: &str = "LAP_TEST_LITELLM";

/// Finds or installs both. The variables for the tests, and what is missing, in words.
pub(crate) fn find_or_install() -> (Vec<(&'static str, String)>, Vec<String>) {
    let folder = folder();
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for (variable, program) in [
        (OPENCODE, find(OPENCODE).map_or_else(|| opencode(&folder), Ok)),
        (LITELLM, find(LITELLM).map_or_else(|| litellm(&folder), Ok)),
    ] {
        match program {
            Ok(path) => {
                println!("xtask: {variable} is {}", path.display());
                found.push((variable, path.display().to_string()));
            }
            Err(why) => missing.push(format!("{variable}: {why}")),
        }
    }
    (found, missing)
}

/// What the environment names already.
fn find(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_file())
}

fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    target.join("test-tools")
}

fn opencode(folder: &Path) -> Result<PathBuf, String> {
    let home = folder.join(format!("opencode-{OPENCODE_VERSION}"));
    let program = home.join("node_modules/.bin/opencode");
    install(&home, &program, |home| {
        let package = format!("opencode-ai@{OPENCODE_VERSION}");
        run(Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix"])
            .arg(home)
            .arg(package))
    })
}

fn litellm(folder: &Path) -> Result<PathBuf, String> {
    let home = folder.join(format!("litellm-{LITELLM_VERSION}"));
    let program = home.join("bin/litellm");
    install(&home, &program, |home| {
        let package = format!("litellm[proxy]=={LITELLM_VERSION}");
        run(Command::new("python3").args(["-m", "venv"]).arg(home))?;
        run(Command::new(home.join("bin/pip")).args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            &package,
        ]))
    })
}

/// Installs into an empty folder, and marks it when all of it is there, so that half an installation is done again.
fn install(
    home: &Path,
    program: &Path,
    install: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let mark = home.join("complete");
    if !(mark.is_file() && program.is_file()) {
        let _ = fs::remove_dir_all(home);
        fs::create_dir_all(home).map_err(|error| format!("{} cannot be made: {error}", home.display()))?;
        install(home)?;
        if !program.is_file() {
            return Err(format!(
                "{} is not there after the installation",
                program.display()
            ));
        }
        fs::write(&mark, "").map_err(|error| format!("{} cannot be written: {error}", mark.display()))?;
    }
    // Tests run in other folders. The program itself may be a link, whose name matters.
    let rest = program.strip_prefix(home).map_err(|error| error.to_string())?;
    let home = fs::canonicalize(home).map_err(|error| error.to_string())?;
    Ok(home.join(rest))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments: Vec<_> = command
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    println!("xtask: {program} {}", arguments.join(" "));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} failed: {status}")),
        Err(error) => Err(format!("{program} cannot be started: {error}")),
    }
}
