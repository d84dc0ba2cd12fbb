//! A server process on a data folder of its own.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use tempfile::TempDir;

use crate::client::{Client, PATIENCE, eventually};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_lap-server");

pub(crate) struct Server {
    child: Child,
    environment: BTreeMap<String, String>,
    open_files: Option<u32>,
    folder: TempDir,
    pub(crate) client: Client,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(environment: &[(&str, &str)]) -> Self {
        Self::start_limited(environment, None).await
    }

    /// Starts a server that may have only so many files open.
    pub(crate) async fn start_limited(environment: &[(&str, &str)], open_files: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let (child, base) = spawn(folder.path(), &environment, open_files);
        let key = std::fs::read_to_string(folder.path().join("data/master-key")).unwrap();
        let client = Client::new(&base, key.trim());
        Self {
            child,
            environment,
            open_files,
            folder,
            client,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let done = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(done.success());
        self.child.wait().unwrap().code()
    }

    pub(crate) fn start_again(&mut self) {
        let (child, base) = spawn(self.folder.path(), &self.environment, self.open_files);
        self.child = child;
        self.client = Client::new(&base, &self.client.key);
    }

    /// Ids of processes that belong to a sandbox of this server, whoever their parent is.
    pub(crate) fn sandbox_processes(&self) -> Vec<u32> {
        let folder = self.data().join("sandboxes");
        processes(|process| {
            let cwd = std::fs::read_link(process.join("cwd")).unwrap_or_default();
            let environ = std::fs::read(process.join("environ")).unwrap_or_default();
            let environ = String::from_utf8_lossy(&environ).into_owned();
            cwd.starts_with(&folder) || environ.contains(&*folder.to_string_lossy())
        })
    }

    pub(crate) fn sandbox_folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data().join("sandboxes"));
        entries
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    }

    /// No process and no folder of any sandbox is left.
    pub(crate) async fn nothing_left(&self) {
        eventually("nothing of a sandbox is left", async || {
            let (processes, folders) = (self.sandbox_processes(), self.sandbox_folders());
            if processes.is_empty() && folders.is_empty() {
                return Ok(());
            }
            Err(format!("processes {processes:?}, folders {folders:?}"))
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Whatever a failed test left: everything that works in this folder, the vault included.
        let folder = self.folder.path().to_owned();
        for pid in processes(|process| {
            let cmdline = std::fs::read(process.join("cmdline")).unwrap_or_default();
            let ours = String::from_utf8_lossy(&cmdline).contains("lap-server");
            let files = std::fs::read_dir(process.join("fd"))
                .into_iter()
                .flatten()
                .flatten();
            ours && files
                .flat_map(|file| std::fs::read_link(file.path()))
                .any(|file| file.starts_with(&folder))
        }) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

fn processes(belongs: impl Fn(&Path) -> bool) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbered =
        entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    numbered
        .filter(|(_, path)| belongs(path))
        .map(|(pid, _): (u32, _)| pid)
        .collect()
}

/// Starts the server and reads its address from what it prints.
fn spawn(folder: &Path, environment: &BTreeMap<String, String>, open_files: Option<u32>) -> (Child, String) {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("server.log"))
        .unwrap();
    let mut command = Command::new(if open_files.is_some() { "sh" } else { BINARY });
    if let Some(files) = open_files {
        let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, BINARY]);
    }
    let mut child = command
        .args(["--dev", "--port", "0", "--data-dir"])
        .arg(folder.join("data"))
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let said = lines(child.stdout.take().unwrap());
    if let Some(base) = address(&said) {
        return (child, base);
    }
    let _ = child.kill();
    let _ = child.wait();
    let log = std::fs::read_to_string(folder.join("server.log")).unwrap_or_default();
    panic!("the server did not start:\n{log}");
}

/// Everything it says, read to the end, so that the server never writes into a closed pipe.
fn lines(output: std::process::ChildStdout) -> mpsc::Receiver<String> {
    let (lines, said) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    said
}

fn address(said: &mpsc::Receiver<String>) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let line = said
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .ok()?;
        if let Some((_, base)) = line.split_once("serves on ") {
            return Some(base.trim().to_owned());
        }
    }
}
