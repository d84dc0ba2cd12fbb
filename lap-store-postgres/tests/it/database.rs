//! A schema of its own for each test, whose clock the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lap_conformance::StoreUnderTest;
use lap_core::secret::Secret;
use lap_store_postgres::{PostgresOptions, PostgresStore};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};

const VARIABLE: &str = "LAP_TEST_POSTGRES_URL";

/// The address of the database for tests.
pub(crate) fn url() -> String {
    match std::env::var(VARIABLE) {
        Ok(url) if !url.is_empty() => url,
        _ => panic!("these tests need a PostgreSQL: run `cargo xtask test`, or set {VARIABLE}"),
    }
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A schema that is removed at the end.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) schema: String,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("lap_t_{}_{number}", std::process::id());
        let place = Self { schema };
        place
            .run(&format!("DROP SCHEMA IF EXISTS {} CASCADE", place.schema))
            .await;
        place
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        let mut options = PostgresOptions::new(Secret::new(url()));
        options.schema.clone_from(&self.schema);
        options.connections = Some(8);
        options
    }

    pub(crate) async fn connect(&self) -> PostgresStore {
        PostgresStore::connect(self.options()).await.unwrap()
    }

    /// A store whose clock stands still until the test moves it.
    pub(crate) async fn subject(self) -> StoreUnderTest {
        let store = self.connect().await;
        self.stop_clock().await;
        let schema = self.schema.clone();
        let advance = move |by: Duration| {
            let schema = schema.clone();
            async move { pass(&schema, by).await }
        };
        StoreUnderTest::new(Arc::new(store), advance).keeping(self)
    }

    /// The schema's clock shows what its table says.
    pub(crate) async fn stop_clock(&self) {
        let schema = &self.schema;
        self.run(&format!(
            "CREATE TABLE {schema}.test_clock (ms bigint NOT NULL); \
             INSERT INTO {schema}.test_clock VALUES (1767225600000); \
             CREATE OR REPLACE FUNCTION {schema}.now_ms() RETURNS bigint LANGUAGE sql STABLE \
             AS $$ SELECT ms FROM {schema}.test_clock $$"
        ))
        .await;
    }

    pub(crate) async fn run(&self, text: &str) {
        run(text).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema);
        // A runtime of its own, because this may run inside one, or after it.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                // Whatever the store had running loses its locks first, at most a second later.
                let mut connection = link().await;
                let set = "SET lock_timeout = '5s'; SET client_min_messages = warning";
                connection.execute(set).await.unwrap();
                let _ = connection.execute(AssertSqlSafe(drop)).await;
                let _ = connection.close().await;
            });
        });
        let _ = removing.join();
    }
}

/// A plain connection.
pub(crate) async fn link() -> PgConnection {
    url()
        .parse::<PgConnectOptions>()
        .unwrap()
        .disable_statement_logging()
        .connect()
        .await
        .unwrap()
}

/// Moves the stopped clock of a schema.
pub(crate) async fn pass(schema: &str, by: Duration) {
    run(&format!(
        "UPDATE {schema}.test_clock SET ms = ms + {}",
        by.as_millis()
    ))
    .await;
}

async fn run(text: &str) {
    let mut connection = link().await;
    let text = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
    connection.execute(text).await.unwrap();
    connection.close().await.unwrap();
}
