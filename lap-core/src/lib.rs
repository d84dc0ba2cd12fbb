//! Nouns, contracts, engine and memory backends of the LiteLLM Agent Platform.

pub mod caller;
pub mod error;
pub mod id;
pub mod seal;
pub mod secret;
pub mod time;
pub mod token;

pub use error::{Error, ErrorKind, Result};
