//! LAP's HTTP API as a tower service.
//!
//! [`router`] turns an [`Engine`](lap_core::engine::Engine) into an [`axum::Router`] that is served on its own or
//! mounted in a host's application. Who may call it is the host's choice: see [`Authenticator`].
//!
//! Paths, names and shapes are those of the original system, so its clients go on working; `docs/compat.md` lists
//! every deviation. The API describes itself under `/api/openapi.json` ([`openapi_json`]).

mod admin;
mod agents;
mod answers;
mod app;
mod attempts;
mod auth;
mod body;
mod catalog;
mod events;
mod idempotency;
mod inspect;
mod messages;
mod openapi;
mod opencode;
mod options;
mod origin;
mod path;
mod peer;
mod phase;
mod problem;
mod query;
mod request;
mod router;
mod service;
mod sessions;
mod turns;
mod wire;

pub use attempts::WrongKeys;
pub use auth::{Authenticator, MasterKey, Refusal};
pub use catalog::ModelCatalog;
pub use options::{HttpOptions, RenderMetrics};
pub use peer::{Network, NotANetwork};
pub use request::RequestId;
pub use router::{openapi_json, router};
