//! The store on a real PostgreSQL. `cargo xtask test` finds or makes one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod agreement;
mod cost;
mod database;
mod figures;
mod hints;
mod history;
mod laws;
mod migrations;
mod outages;
mod plans;
mod pooler;
mod scene;
