//! Gives the binary its build id: `LAP_BUILD_ID`, else what git says of the checkout, else nothing.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LAP_BUILD_ID");
    let version = env!("CARGO_PKG_VERSION");
    let version = match build_id() {
        Some(id) => format!("{version} ({id})"),
        None => version.to_owned(),
    };
    println!("cargo::rustc-env=LAP_VERSION={version}");
}

fn build_id() -> Option<String> {
    let given = std::env::var("LAP_BUILD_ID").ok().filter(|id| !id.is_empty());
    if given.is_some() {
        return given;
    }
    // While developing, an id per commit would rebuild the server at every commit.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return Some("debug build".into());
    }
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        println!("cargo::rerun-if-changed={path}");
    }
    git(&["describe", "--always", "--tags", "--dirty"])
}

/// What git prints; nothing when git is missing or this is no checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
