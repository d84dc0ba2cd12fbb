//! The service: configuration, the state file, the control socket, the life of the process.

mod config;
mod control;
mod files;
mod identity;
mod life;
mod serve;
mod state;
mod vault;
pub(crate) mod wire;

pub use config::ServeConfig;
pub use identity::PROTOCOL;
pub use serve::serve;
pub use vault::{Parts, Stubs, VaultService};

pub(crate) use config::ConfigDocument;
pub(crate) use control::kind;
pub(crate) use files::{ensure_folder, lock, read, socket_path, write_atomically};
pub(crate) use identity::{PidFile, prove, started};
