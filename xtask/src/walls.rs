//! bubblewrap, with which the tests build the walls of local sandboxes.

use std::path::Path;
use std::process::Command;

use crate::step::have;

/// Finds or installs bubblewrap.
///
/// # Errors
/// What to do, where this machine's package manager is not ours to use.
pub(crate) fn find_or_install() -> Result<(), String> {
    if have("bwrap") {
        return Ok(());
    }
    let advice = "bubblewrap is missing; install it, e.g. with apt-get install bubblewrap";
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(advice.to_owned());
    }
    println!("xtask: apt-get install bubblewrap");
    let apt = |arguments: &[&str]| {
        let done = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status();
        done.is_ok_and(|status| status.success())
    };
    // The lists of a fresh machine are empty, and an update that fails may still leave usable ones.
    let _ = apt(&["update", "-q"]);
    if apt(&["install", "-q", "-y", "bubblewrap"]) && have("bwrap") {
        return Ok(());
    }
    Err(advice.to_owned())
}
