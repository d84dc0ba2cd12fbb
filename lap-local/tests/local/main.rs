//! The local runtime against real processes. A program of the tests plays sandboxd. Every test runs once for each thing
//! that can be around a sandbox.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![expect(
    clippy::duplicate_mod,
    reason = "the same tests, with other walls around the sandboxes"
)]

mod bubblewrap;
mod support;
mod unisolated;
mod unshare;
