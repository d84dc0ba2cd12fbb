//! The engine on memory backends: what it does, what it survives, and that a test would notice if it did not.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![expect(clippy::print_stdout, reason = "a test says how much it has covered")]

mod behaviour;
mod defects;
mod distorted;
mod matrix;
mod paused;
mod scenarios;
mod simulation;
