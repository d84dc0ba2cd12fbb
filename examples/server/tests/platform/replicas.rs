//! Three server processes on one PostgreSQL database, of which one is killed again and again. `cargo xtask test` finds
//! or makes the database.

use std::time::Duration;

use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};

use crate::model::Model;
use crate::server::Server;

const VARIABLE: &str = "LAP_TEST_POSTGRES_URL";
/// Secrets in the database are sealed with it, so all processes share it.
const ENCRYPTION_KEY: &str = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LWNhbmE=";

/// A database of its own, removed at the end.
struct Database {
    options: PgConnectOptions,
    name: String,
}

impl Database {
    /// `None` when there is no server for tests, which is red in CI.
    #[expect(clippy::print_stderr, reason = "a test that was left out says so")]
    async fn make() -> Option<Self> {
        let Ok(url) = std::env::var(VARIABLE) else {
            assert!(std::env::var_os("CI").is_none(), "{VARIABLE} is not set");
            eprintln!("NOT TESTED: {VARIABLE} is not set; run cargo xtask test");
            return None;
        };
        let options: PgConnectOptions = url.parse().unwrap();
        let database = Self {
            options,
            name: format!("lap_replicas_{}", std::process::id()),
        };
        database.run(&format!("CREATE DATABASE {}", database.name)).await;
        Some(database)
    }

    async fn connect(&self, options: &PgConnectOptions) -> PgConnection {
        options
            .clone()
            .disable_statement_logging()
            .connect()
            .await
            .unwrap()
    }

    async fn run(&self, text: &str) {
        let mut connection = self.connect(&self.options).await;
        connection.execute(AssertSqlSafe(text.to_owned())).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn count(&self, text: &'static str) -> i64 {
        let mut connection = self.connect(&self.options.clone().database(&self.name)).await;
        let found = sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        found
    }

    /// No session has two sandboxes, and no turn two outcomes.
    async fn is_sound(&self) {
        let twice = "SELECT count(*) FROM (SELECT session FROM lap.sandboxes WHERE state = 'claimed' \
                     GROUP BY session HAVING count(*) > 1) AS owners";
        assert_eq!(self.count(twice).await, 0, "sessions with two sandboxes");
        let outcomes = "SELECT count(*) FROM (SELECT turn FROM lap.events WHERE kind = 'turn.finished' \
                        GROUP BY turn HAVING count(*) > 1) AS turns";
        assert_eq!(self.count(outcomes).await, 0, "turns with two outcomes");
    }

    fn url(&self) -> String {
        let options = &self.options;
        let (user, host, port) = (options.get_username(), options.get_host(), options.get_port());
        format!("postgres://{user}@{host}:{port}/{}?sslmode=disable", self.name)
    }

    async fn remove(self) {
        self.run(&format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_share_a_database_and_one_is_killed() {
    let Some(database) = Database::make().await else {
        return;
    };
    let (model, url) = (Model::start().await, database.url());
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("ENCRYPTION_KEY", ENCRYPTION_KEY),
        ("LITELLM_API_BASE", &model.base),
        ("LITELLM_API_KEY", "sk-real-gateway-key"),
    ];
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Server::start_with(&environment).await);
    }
    let agent = servers[0].client.agent(json!({"model": "some/model"})).await;
    let mut sessions = Vec::new();
    for round in 0..2 {
        for (number, server) in servers.iter().enumerate() {
            let body = json!({"initial_prompt": format!("first {round} {number}")});
            sessions.push((number, server.client.session(&agent, body).await));
        }
    }
    for round in 0..2 {
        for (number, session) in &sessions {
            let text = json!({"text": format!("SLOW 6 round {round}")});
            let path = format!("/sessions/{session}/turns");
            servers[*number].client.post(&path, &text).await;
        }
        // This is the moment of the crash and not a wait for a state.
        tokio::time::sleep(Duration::from_millis(300 + 500 * round)).await;
        servers[1].kill_9();
        servers[1].start_again();
    }
    shown_by_another(&servers, &sessions).await;
    database.is_sound().await;
    for (number, session) in &sessions {
        servers[*number]
            .client
            .delete(&format!("/sessions/{session}"))
            .await;
    }
    for server in &servers {
        server.nothing_left().await;
    }
    drop(servers);
    database.remove().await;
}

/// The process of a session runs its turns; another one shows them.
async fn shown_by_another(servers: &[Server], sessions: &[(usize, String)]) {
    for (number, session) in sessions {
        let other = &servers[(number + 1) % 3].client;
        other
            .turns_are(session, &["completed", "completed", "completed"])
            .await;
        let frames = other
            .events_until(session, 0, {
                let mut finished = 0;
                move |frame| {
                    finished += usize::from(frame.is("turn.finished"));
                    finished == 3
                }
            })
            .await;
        let ids: Vec<_> = frames.iter().filter_map(|frame| frame.id).collect();
        assert_eq!(
            ids,
            (1..=ids.len() as u64).collect::<Vec<_>>(),
            "ids without gaps"
        );
    }
}
