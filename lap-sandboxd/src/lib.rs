//! What runs inside every LAP sandbox.
//!
//! `lap-sandboxd` prepares the workspace (a clone made with a token that is gone afterwards), runs the harness, keeps
//! a journal of its events, and serves both over HTTP to whoever holds a token signed by the instance. A turn
//! lives here and not in the request that started it: a closed connection changes nothing, and even after a
//! `kill -9` of sandboxd every turn it accepted reaches exactly one `turn.finished`.
//!
//! [`run`] is the whole program; [`Sandboxd`] is the same as a value, for embedding and for tests.

mod adapter;
mod binding;
mod builtin;
mod daemon;
mod endpoint;
mod environment;
mod http;
mod journal;
mod launch;
mod layout;
mod ledger;
mod processes;
mod sandbox;
mod snapshot;
mod status;
mod turns;
mod workspace;

pub use daemon::{Sandboxd, Surroundings, run};
pub use endpoint::Endpoint;
pub use launch::{GatewayAddress, LaunchDocument};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. The data behind every mutex here is whole between statements, so a panic elsewhere does not
/// make it unusable.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
