//! Benchmarks of LAP: a platform in this process, a model that answers at once, and honest figures.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on ends, and it prints"
)]
#![expect(clippy::missing_panics_doc, reason = "a benchmark that cannot go on ends")]

mod figure;
mod platform;

pub use figure::Figure;
pub use platform::{Client, Platform, server_binary};
