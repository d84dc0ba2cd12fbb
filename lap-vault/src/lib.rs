//! The vault: real credentials stay outside the sandbox.
//!
//! A sandbox holds stub keys only. Its model calls go to the **model relay** of the vault, which checks whose
//! stub it is, swaps it for the real key in that one header, forwards to the configured gateway and to
//! nothing else, and masks the key should the answer echo it. Model traffic needs no interception for that,
//! and works with gateways that are plain HTTP or private.
//!
//! Three layers: [`redeem`] decides and rewrites and is pure; [`relay`] moves bytes; [`service`] holds the
//! tables, the state file, the control socket and the life of the process. [`host`] is the server's side.
//!
//! # What the relay forwards
//! `POST` of `chat/completions`, `completions`, `responses`, `messages`, `messages/count_tokens`, `embeddings`,
//! `moderations`, `rerank`, `audio/...` and `images/...`, `GET` of `models`, `responses/{id}` and `model/info`, all
//! with and without `/v1`; the gateway's MCP endpoint `/mcp/...`, `GET /v1/mcp/server`, `GET /v1/mcp/tools`,
//! `GET /mcp-rest/tools/list` and `POST /mcp-rest/tools/call`. Everything else on a gateway administers it and is
//! refused with a reason code, as are targets that two readers could read differently.
//!
//! # What the vault keeps
//! In its folder, readable by the owner only: `state.json` (port, sealed root key of the stubs, names per
//! sandbox), `control.token` (sealed), `control.sock`, `vault.json` (process), `vault.log` and two lock files.
//! Values are never on disk: after a restart requests wait until they were granted again.
//!
//! # In your own process
//! ```no_run
//! # async fn example() -> lap_core::Result<()> {
//! use lap_core::seal::Sealer;
//! use lap_vault::relay::Limits;
//! use lap_vault::{LocalVault, LocalVaultConfig};
//!
//! let config = LocalVaultConfig { gateway: "https://gateway.example.com".into(), gateway_roots: None };
//! let vault = LocalVault::in_process(config, None, Sealer::plaintext(), Limits::default()).await?;
//! # Ok(())
//! # }
//! ```
//! A server uses [`LocalVault::process`] instead, and a subcommand of its own that calls [`serve`].

pub mod host;
pub mod redeem;
pub mod rehearsal;
pub mod relay;
pub mod service;

pub use host::{LocalVault, LocalVaultConfig, VaultCommand, VaultProcessConfig};
pub use service::{ServeConfig, serve};
