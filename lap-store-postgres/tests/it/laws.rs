//! The laws every store obeys, on PostgreSQL, each in a schema of its own.

use crate::database::Place;

lap_conformance::store_suite!(async { Place::new().await.subject().await });
