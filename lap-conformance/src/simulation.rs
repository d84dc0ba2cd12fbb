//! Seeded schedules: several engines on one store, faulty backends, clients that do what they like, sandboxes that
//! die, processes that crash and come back. Everything random comes from one seed and time is tokio's, so in a
//! single-threaded runtime with paused time a seed reproduces a schedule exactly.
//!
//! The [invariants](crate::crash::Invariants) are checked all along and when everything is over. Clients check what
//! they are promised: a key has one answer, an accepted turn is never lost, a stream tells every event once.

mod client;
mod coverage;
mod dice;
mod nature;
mod plan;
mod process;
mod reader;
mod schedule;

pub use coverage::Coverage;
pub use dice::Dice;
pub use plan::Plan;
pub use schedule::{Report, simulate};
