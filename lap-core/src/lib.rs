//! Nouns, contracts, engine and memory backends of the LiteLLM Agent Platform.

pub mod agent;
pub mod backends;
pub mod blueprint;
pub mod caller;
pub mod capability;
pub mod engine;
pub mod environment;
pub mod error;
pub mod event;
pub mod harness;
pub mod id;
pub mod memory;
pub mod opening;
pub mod runtime;
pub mod sandbox;
pub mod seal;
pub mod secret;
pub mod session;
pub mod store;
pub mod time;
pub mod token;
pub mod turn;
pub mod vault;

pub use error::{Error, ErrorKind, Result};
