//! LAP's Store in one SQLite file.
//!
//! One process uses a file at a time; a lock file next to the database sees to it. Every method of the contract
//! that may change something is one job of the one writer, hence one atomic commit; methods that only read use a
//! few reading connections that never wait. Tables begin with `lap_`, so the file can be shared with a host's own
//! tables.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use lap_core::{store::Installation as _, time::SystemClock};
//! # use lap_store_sqlite::{SqliteOptions, SqliteStore};
//! # async fn example() -> lap_core::Result<()> {
//! let store = SqliteStore::open(SqliteOptions::new("data/lap.db", Arc::new(SystemClock))).await?;
//! store.ping().await?;
//! store.close().await;
//! # Ok(())
//! # }
//! ```

mod accept;
mod advance;
mod agents;
mod ending;
mod error;
mod events;
mod idempotency;
mod inspect;
mod installation;
mod link;
mod lock;
mod migrate;
mod open;
mod readers;
mod records;
mod revive;
mod row;
mod sandboxes;
mod sessions;
mod store;
mod turns;
mod work;
mod writer;

pub use link::Counts;
pub use store::{SqliteOptions, SqliteStore};
