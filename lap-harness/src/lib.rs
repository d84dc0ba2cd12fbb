//! The harness protocol: types and client.
//!
//! `lap-sandboxd` runs inside every sandbox and serves this protocol over HTTP/1.1: `/lap/*` for the
//! platform, eight opencode calls for plain clients. [`SandboxdHarness`] is the platform's side. Every call
//! carries a token signed by the instance, every answer is untrusted input: sizes are bounded, JSON is checked,
//! and the sandbox must say who it is.

pub mod health;
pub mod journal;
pub mod limits;
pub mod names;
pub mod opening;
pub mod problem;
pub mod snapshot;
pub mod sse;
pub mod turn;

mod client;

pub use client::{EventStream, SandboxdHarness};
pub use health::{Health, Readiness};
pub use journal::JournalEvent;
pub use opening::{OpenRequest, Skill};
pub use problem::Problem;
pub use turn::{Outcome, TurnFailure, TurnFinished, TurnRequest, TurnState, TurnStatus, Usage};

/// The version of the protocol both sides must speak.
pub const PROTOCOL_VERSION: u32 = 1;
