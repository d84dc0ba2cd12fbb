//! Integration tests of sandboxd: the real client, real git, real processes, a scripted model.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod opencode;
mod process;
mod protocol;
mod real_opencode;
mod snapshot;
mod support;
mod turns;
mod workspace;
