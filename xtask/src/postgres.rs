//! A PostgreSQL for the tests: the one that `LAP_TEST_POSTGRES_URL` names, else one made of this machine's programs,
//! else of the system's package manager.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The variable by which tests find the database.
pub(crate) const URL: &str = "LAP_TEST_POSTGRES_URL";

/// Where Debian, Red Hat, Homebrew and the PostgreSQL project put the programs of a server.
const FOLDERS: [&str; 5] = [
    "/usr/lib/postgresql",
    "/usr/pgsql-17",
    "/usr/pgsql-16",
    "/opt/homebrew/opt",
    "/usr/local/pgsql",
];

/// A database for the tests. One that was made here ends with this value and leaves nothing.
pub(crate) struct Database {
    url: String,
    // Kept until the tests have ended.
    _made: Option<Server>,
}

impl Database {
    /// Finds or makes one.
    ///
    /// # Errors
    /// In words, when there is none and none can be made.
    pub(crate) fn find_or_make() -> Result<Self, String> {
        if let Some(url) = std::env::var(URL).ok().filter(|url| !url.is_empty()) {
            println!("xtask: PostgreSQL as {URL} names it");
            return Ok(Self { url, _made: None });
        }
        let programs = match programs() {
            Some(programs) => programs,
            None => {
                install()?;
                programs()
                    .ok_or("the package manager installed PostgreSQL, but its programs are not to be found")?
            }
        };
        println!("xtask: PostgreSQL made with {}", programs.display());
        let server = Server::start(&programs)?;
        Ok(Self {
            url: server.url(),
            _made: Some(server),
        })
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// A server in a temporary folder, run by a user without rights where this process is root, because a PostgreSQL
/// server refuses to run as root.
struct Server {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    user: Option<User>,
}

#[derive(Clone)]
struct User {
    uid: u32,
    gid: u32,
}

impl Server {
    fn start(programs: &Path) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("lap-test-postgres-{}", std::process::id()));
        fs::create_dir_all(&folder)
            .map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
        let user = unprivileged()?;
        if let Some(user) = &user {
            chown(&folder, Some(user.uid), Some(user.gid)).map_err(|error| error.to_string())?;
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(|error| error.to_string())?;
        let server = Self {
            programs: programs.to_owned(),
            folder,
            port: free_port()?,
            user,
        };
        server.make()?;
        Ok(server)
    }

    fn url(&self) -> String {
        format!("postgres://lap@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn make(&self) -> Result<(), String> {
        let data = self.data().display().to_string();
        self.run(
            "initdb",
            &[
                "-D",
                &data,
                "-U",
                "lap",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
        )?;
        // Nothing here outlives a power cut, so nothing waits for the disk.
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nfsync = off\n\
             synchronous_commit = off\nfull_page_writes = off\nmax_connections = 400\nshared_buffers = 256MB\n\
             autovacuum_naptime = 5s\n",
            self.port,
            self.folder.display(),
        );
        fs::OpenOptions::new()
            .append(true)
            .open(self.data().join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .map_err(|error| format!("its settings cannot be written: {error}"))?;
        let log = self.folder.join("log").display().to_string();
        self.run("pg_ctl", &["-D", &data, "-l", &log, "-w", "-t", "60", "start"])
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let path = self.programs.join(program);
        let mut command = match &self.user {
            // `setpriv` is a part of util-linux and changes the user without a log-in session.
            Some(user) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={}", user.uid))
                    .arg(format!("--regid={}", user.gid))
                    .arg("--clear-groups")
                    .arg(&path);
                command
            }
            None => Command::new(&path),
        };
        // The server inherits the output of pg_ctl, and would keep a pipe open.
        let status = command
            .args(arguments)
            .current_dir(&self.folder)
            .env("HOME", &self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{} failed: {status}", path.display())),
            Err(error) => Err(format!("{} could not be started: {error}", path.display())),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data().display().to_string();
        if let Err(error) = self.run("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]) {
            eprintln!("xtask: the test database was not stopped: {error}");
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("xtask: {} was not removed: {error}", self.folder.display());
        }
    }
}

/// Where `initdb` and `pg_ctl` are: on the path, or in the newest of the usual folders.
fn programs() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    for root in FOLDERS {
        let mut versions: Vec<_> = fs::read_dir(root)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        versions.sort();
        folders.extend(versions.into_iter().rev().map(|version| version.join("bin")));
        folders.push(Path::new(root).join("bin"));
    }
    folders
        .into_iter()
        .find(|folder| folder.join("initdb").is_file() && folder.join("pg_ctl").is_file())
        // A link on the path leads to the folder where the other programs are.
        .map(|folder| fs::canonicalize(folder.join("initdb")).map_or(folder, |program| program.with_file_name("")))
}

fn install() -> Result<(), String> {
    let has_apt = Path::new("/usr/bin/apt-get").exists();
    if !has_apt || !is_root() {
        return Err(format!(
            "there is no PostgreSQL: set {URL}, or install the server's programs (initdb, pg_ctl), for example with \
             apt-get install postgresql, dnf install postgresql-server or brew install postgresql"
        ));
    }
    println!("xtask: apt-get install postgresql");
    let install = || {
        Command::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends", "postgresql"])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let update = || {
        Command::new("apt-get")
            .arg("update")
            .stdout(Stdio::null())
            .status()
    };
    if install() || (update().is_ok_and(|status| status.success()) && install()) {
        Ok(())
    } else {
        Err("apt-get could not install postgresql".to_owned())
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Who runs the server; `None`: this process's own user, who is not root.
fn unprivileged() -> Result<Option<User>, String> {
    if !is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").map_err(|error| error.to_string())?;
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| users.lines().find_map(|line| user(line, name)))
        .map(Some)
        .ok_or_else(|| "this is root, and there is no user postgres or nobody to run a server as".to_owned())
}

fn user(line: &str, name: &str) -> Option<User> {
    let mut fields = line.split(':');
    fields.next().filter(|found| *found == name)?;
    // The password comes between.
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { uid, gid })
}

fn free_port() -> Result<u16, String> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("no port is free: {error}"))
}
