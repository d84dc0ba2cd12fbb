//! The server's side: finding, starting, watching and steering the vault.

mod client;
mod door;
mod local;
mod process;

pub use local::{LocalVault, LocalVaultConfig};
pub use process::{VaultCommand, VaultProcessConfig};
