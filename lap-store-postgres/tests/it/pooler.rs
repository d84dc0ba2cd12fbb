//! A transaction pooler in front of the server is refused; one in session mode is not. Needs PgBouncer.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lap_core::error::ErrorKind;
use lap_core::secret::Secret;
use lap_core::store::Installation as _;
use lap_store_postgres::{PostgresOptions, PostgresStore};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use crate::database::{Place, url};

struct Pooler {
    child: Child,
    port: u16,
    options: PgConnectOptions,
    _folder: tempfile::TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    [
        "/usr/sbin/pgbouncer",
        "/usr/bin/pgbouncer",
        "/usr/local/bin/pgbouncer",
        "/opt/homebrew/bin/pgbouncer",
    ]
    .iter()
    .map(PathBuf::from)
    .find(|path| path.exists())
}

impl Pooler {
    /// `None` when this machine has no PgBouncer.
    #[expect(clippy::print_stderr, reason = "a test that was left out says so")]
    async fn start(mode: &str) -> Option<Self> {
        let Some(program) = program() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "install pgbouncer: CI tests the refusal of poolers"
            );
            eprintln!("NOT TESTED: there is no pgbouncer on this machine");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let options = url()
            .parse::<PgConnectOptions>()
            .unwrap()
            .extra_float_digits(None);
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let settings = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = any\npool_mode = {mode}\nunix_socket_dir =\nmax_client_conn = 100\n\
             default_pool_size = 5\nserver_tls_sslmode = disable\n",
            options.get_host(),
            options.get_port(),
        )
        .replace(
            "[databases]\n* = ",
            &format!("[databases]\n* = user={} ", options.get_username()),
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        let mut command = Command::new(program);
        // It refuses to run as root.
        if fs::metadata("/root/.").is_ok() {
            let all = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
            fs::set_permissions(folder.path(), all).unwrap();
            command.args(["-u", "nobody"]);
        }
        let child = command
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pooler = Self {
            child,
            port,
            options,
            _folder: folder,
        };
        pooler.answers().await;
        Some(pooler)
    }

    fn connect_options(&self) -> PgConnectOptions {
        self.options.clone().host("127.0.0.1").port(self.port)
    }

    async fn answers(&self) {
        for _ in 0..300 {
            if self.connect_options().connect().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("pgbouncer does not answer");
    }

    fn store_options(&self, place: &Place) -> PostgresOptions {
        let database = self.options.get_database().unwrap_or("postgres");
        let user = self.options.get_username();
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

async fn is_refused(pooler: &Pooler, place: &Place) {
    let error = PostgresStore::connect(pooler.store_options(place))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.message().contains("pool_mode = session"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_pooler_is_refused_idle_and_busy() {
    let place = Place::new().await;
    let Some(pooler) = Pooler::start("transaction").await else {
        return;
    };
    is_refused(&pooler, &place).await;
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let options = pooler.connect_options();
            tokio::spawn(async move {
                let mut connection = options.connect().await.unwrap();
                loop {
                    connection
                        .execute(sqlx::raw_sql("SELECT pg_sleep(0.002)"))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..5 {
        is_refused(&pooler, &place).await;
    }
    for task in busy {
        task.abort();
    }
}

#[tokio::test]
async fn a_session_pooler_serves() {
    let place = Place::new().await;
    let Some(pooler) = Pooler::start("session").await else {
        return;
    };
    let mut options = pooler.store_options(&place);
    options.connections = Some(2);
    let store = PostgresStore::connect(options).await.unwrap();
    store.ping().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_plain_server_is_no_pooler() {
    let place = Place::new().await;
    let store = place.connect().await;
    store.ping().await.unwrap();
    let mut connection = crate::database::link().await;
    connection.ping().await.unwrap();
}
