//! LAP's Store on PostgreSQL, for one process or many.
//!
//! Every method is one commit, and the hot ones are one statement, hence one round trip. The database's clock decides what
//! is due, lapsed or idle. Tables live in a schema of their own with a migrations table of their own, so the store can share
//! a host's database, and use the host's pool ([`PostgresStore::on_pool`]).
//!
//! ```no_run
//! # use lap_core::{secret::Secret, store::Installation as _};
//! # use lap_store_postgres::{PostgresOptions, PostgresStore};
//! # async fn example() -> lap_core::Result<()> {
//! let address = Secret::new("postgres://lap:password@localhost/lap");
//! let store = PostgresStore::connect(PostgresOptions::new(address)).await?;
//! store.ping().await?;
//! store.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Writes lock in one order: the work of a session, the head of its log, then its other rows; several sessions by id.
//! Where PostgreSQL ends one of two transactions that wait for each other all the same, that one is repeated.

mod accept;
mod advance;
mod agents;
mod append;
mod connections;
mod ending;
mod error;
mod events;
mod finish;
mod hints;
mod idempotency;
mod installation;
mod link;
mod migrate;
mod names;
mod open;
mod perform;
mod pooler;
mod records;
mod revive;
mod row;
mod sandboxes;
mod sessions;
mod settings;
mod store;
mod turns;
mod work;

pub use link::Counts;
pub use migrate::Migrated;
pub use store::{PostgresOptions, PostgresStore, Seen};
