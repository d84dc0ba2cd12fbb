//! The engine on memory backends: what it does, what it survives, and that a test would notice if it did not.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod matrix;
mod paused;
mod scenarios;
