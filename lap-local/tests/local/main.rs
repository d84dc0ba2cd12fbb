//! The local runtime against real processes. A program of the tests plays sandboxd.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod launch;
mod laws;
mod stop;
mod support;
mod survivors;
