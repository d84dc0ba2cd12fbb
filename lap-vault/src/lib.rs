//! The vault: real credentials stay outside the sandbox.
//!
//! A sandbox holds stub keys only. Its model calls go to the **model relay** of the vault, which checks whose
//! stub it is, swaps it for the real key in that one header, forwards to the configured gateway and to
//! nothing else, and masks the key should the answer echo it.
//!
//! Three layers: [`redeem`] decides and rewrites and is pure; [`relay`] moves bytes; [`service`] holds the tables,
//! the state file and the control socket.

pub mod host;
pub mod redeem;
pub mod rehearsal;
pub mod relay;
pub mod service;

pub use host::{LocalVault, LocalVaultConfig, VaultCommand, VaultProcessConfig};
pub use service::{ServeConfig, serve};
