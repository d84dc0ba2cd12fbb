//! A database that cannot be used for a while: clear errors meanwhile, nothing acknowledged lost, and everything
//! works again by itself afterwards.

use std::sync::Arc;
use std::time::Duration;

use lap_core::error::{Error, ErrorKind, Retry};
use lap_core::secret::Secret;
use lap_core::store::{Installation as _, Opened, Sessions as _};
use lap_store_postgres::{PostgresOptions, PostgresStore};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::database::{Place, link, url};
use crate::scene::Scene;

/// What the proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Ends those there are, and new ones at once.
    Cut,
    /// Keeps them and passes nothing on.
    Hold,
}

/// A proxy in front of the server that breaks at command.
struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    async fn start() -> Self {
        let options: PgConnectOptions = url().parse().unwrap();
        let server = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, watched) = watch::channel(Mode::Pass);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *watched.borrow() == Mode::Cut {
                    continue;
                }
                let (server, watched) = (server.clone(), watched.clone());
                tokio::spawn(async move { pass(client, server, watched).await });
            }
        });
        Self { port, mode }
    }

    fn options(&self, place: &Place) -> PostgresOptions {
        let options: PgConnectOptions = url().parse().unwrap();
        let (user, database) = (
            options.get_username(),
            options.get_database().unwrap_or("postgres"),
        );
        let url = format!(
            "postgres://{user}@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        );
        PostgresOptions {
            url: Secret::new(url),
            ..place.options()
        }
    }
}

async fn pass(mut client: TcpStream, server: (String, u16), mut mode: watch::Receiver<Mode>) {
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    loop {
        let now = *mode.borrow_and_update();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server), if now == Mode::Pass => return,
            changed = mode.changed() => {
                if changed.is_err() || *mode.borrow() == Mode::Cut {
                    return;
                }
            }
        }
    }
}

fn passes(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(matches!(error.retry(), Retry::After(_)), "{error:?}");
}

/// Waits until the store answers again.
async fn recovers(store: &PostgresStore) {
    let answers = async {
        while store.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answers)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_nothing_that_was_acknowledged() {
    let place = Place::new().await;
    let proxy = Proxy::start().await;
    let scene = Arc::new(Scene::new(PostgresStore::connect(proxy.options(&place)).await.unwrap()).await);
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move {
                let (mut acknowledged, mut refused) = (Vec::new(), 0);
                let end = tokio::time::Instant::now() + Duration::from_secs(4);
                while tokio::time::Instant::now() < end {
                    let open = scene.new_open();
                    let id = open.session;
                    match scene.store.open(open.clone()).await {
                        Ok(_) => acknowledged.push(id),
                        Err(error) => {
                            passes(&error);
                            refused += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            // A repetition finds the session of the first call, or makes it.
                            if let Ok(Opened::Warm(again) | Opened::Cold(again)) =
                                scene.store.open(open).await
                            {
                                acknowledged.push(again.session.id);
                            }
                        }
                    }
                }
                (acknowledged, refused)
            })
        })
        .collect();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        proxy.mode.send(Mode::Cut).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        proxy.mode.send(Mode::Pass).unwrap();
    }
    let (mut sessions, mut all_refused) = (0, 0);
    for caller in callers {
        let (acknowledged, refused) = caller.await.unwrap();
        for id in &acknowledged {
            assert!(scene.store.session(*id).await.unwrap().is_some(), "{id} is lost");
        }
        sessions += acknowledged.len();
        all_refused += refused;
    }
    assert!(
        sessions > 20 && all_refused > 0,
        "{sessions} sessions, {all_refused} refused"
    );
}

/// The client's own deadline ends a call when the server does not even break the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_not_waited_for_for_ever() {
    let place = Place::new().await;
    let proxy = Proxy::start().await;
    let store = PostgresStore::connect(proxy.options(&place)).await.unwrap();
    store.ping().await.unwrap();
    proxy.mode.send(Mode::Hold).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(60), store.ping())
        .await
        .unwrap();
    passes(&answer.unwrap_err());
    proxy.mode.send(Mode::Pass).unwrap();
    recovers(&store).await;
}

#[tokio::test]
async fn no_server_is_an_error_that_passes() {
    let place = Place::new().await;
    let proxy = Proxy::start().await;
    proxy.mode.send(Mode::Cut).unwrap();
    passes(&PostgresStore::connect(proxy.options(&place)).await.unwrap_err());
    let mut options = place.options();
    // A port that nobody listens on.
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    options.url = Secret::new(format!("postgres://lap@127.0.0.1:{free}/postgres"));
    passes(&PostgresStore::connect(options).await.unwrap_err());
}

#[tokio::test]
async fn a_lock_that_is_held_too_long_is_an_error_that_passes() {
    let place = Place::new().await;
    let mut options = place.options();
    options.statement_timeout = Duration::from_millis(300);
    let scene = Scene::new(PostgresStore::connect(options).await.unwrap()).await;
    let mut holder = link().await;
    let lock = format!("BEGIN; LOCK TABLE {}.sessions", place.schema);
    holder.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await.unwrap();
    let error = scene.store.open(scene.new_open()).await.unwrap_err();
    passes(&error);
    assert!(error.message().contains("statement_timeout"), "{error}");
    holder.close().await.unwrap();
    scene.open(scene.new_open()).await;
}

/// A fail-over leaves the old server read-only: writes pass to the caller, and work again afterwards.
#[tokio::test]
async fn a_read_only_database_is_an_error_that_passes() {
    let place = Place::new().await;
    let role = format!("{}_role", place.schema);
    let schema = &place.schema;
    PostgresStore::migrate(&place.options()).await.unwrap();
    place
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA {schema} TO {role}; \
             GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {role}"
        ))
        .await;
    let options: PgConnectOptions = url().parse().unwrap();
    let at = format!(
        "{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or("postgres")
    );
    let own = PostgresOptions {
        url: Secret::new(format!("postgres://{role}@{at}?sslmode=disable")),
        ..place.options()
    };
    let scene = Scene::new(PostgresStore::connect(own.clone()).await.unwrap()).await;
    place
        .run(&format!(
            "ALTER ROLE {role} SET default_transaction_read_only = on"
        ))
        .await;
    // The connections there are do not know yet; a fail-over ends them.
    place
        .run(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
        ))
        .await;
    let mut last = None;
    for _ in 0..3 {
        last = scene.store.open(scene.new_open()).await.err();
    }
    let error = last.unwrap();
    passes(&error);
    assert!(error.message().contains("read-only"), "{error:?}");
    passes(&scene.store.ping().await.unwrap_err());
    place
        .run(&format!("ALTER ROLE {role} RESET default_transaction_read_only"))
        .await;
    recovers(&scene.store).await;
    scene.open(scene.new_open()).await;
    // Too many connections: the role may have no more than it has.
    place.run(&format!("ALTER ROLE {role} CONNECTION LIMIT 1")).await;
    let error = PostgresStore::connect(own).await.unwrap_err();
    passes(&error);
    assert!(error.message().contains("no more connections"), "{error:?}");
    scene.store.close().await;
    drop(scene);
    place
        .run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}
