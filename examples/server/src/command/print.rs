//! The one place where a command writes to the terminal.
//!
//! A reader that goes away early (`lap-server config | head`) is no reason to fail, so errors are dropped.

use std::fmt::Display;
use std::io::{Write as _, stderr, stdout};

/// Writes a line to standard output.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(stdout().lock(), "{text}");
}

/// Writes text to standard output as it is.
pub(crate) fn text(text: impl Display) {
    let mut out = stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// Writes a line to standard error.
pub(crate) fn error(text: impl Display) {
    let _ = writeln!(stderr().lock(), "{text}");
}
