//! The vault as a process of its own: started, adopted, killed, replaced, ended.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{CANARY, Upstream, body, client, eventually, fresh_sandbox, key_grant, refusal, whole};
use http::Request;
use lap_core::id::SandboxId;
use lap_core::secret::Secret;
use lap_core::vault::{Attach, Attachment, Vault as _};
use lap_vault::{LocalVault, LocalVaultConfig, ServeConfig, VaultCommand, VaultProcessConfig};

const SEALING_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// Not a test: the other tests start this binary again with this name as their vault process.
#[test]
#[ignore = "the other tests run it as their vault process"]
fn vault_child() {
    let Ok(config) = ServeConfig::from_reader(std::io::stdin()) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(lap_vault::serve(config)).unwrap();
}

pub(crate) fn process(folder: &Path) -> VaultProcessConfig {
    let args = ["process::vault_child", "--exact", "--ignored", "--nocapture"];
    let command = VaultCommand {
        program: std::env::current_exe().unwrap(),
        args: args.map(Into::into).to_vec(),
        env: Vec::new(),
    };
    let mut config = VaultProcessConfig::new(folder, command);
    config.sealing_key = Some(Secret::new(SEALING_KEY));
    config.idle_exit = Some(Duration::from_secs(60));
    config
}

pub(crate) async fn host(folder: &Path, upstream: &Upstream) -> LocalVault {
    let config = LocalVaultConfig {
        gateway: upstream.base(),
        gateway_roots: None,
    };
    LocalVault::process(config, process(folder)).await.unwrap()
}

pub(crate) fn attach(sandbox: SandboxId) -> Attach {
    Attach {
        sandbox,
        secrets: ["GITHUB_TOKEN".to_owned()].into(),
        allow_out: Vec::new(),
        deny_out: Vec::new(),
    }
}

pub(crate) fn pid(folder: &Path) -> Option<u64> {
    let text = std::fs::read(folder.join("vault.json")).ok()?;
    serde_json::from_slice::<serde_json::Value>(&text).ok()?["pid"].as_u64()
}

/// The state letter and the session of a process; nothing when it is gone.
pub(crate) fn stat(pid: u64) -> Option<(String, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.to_owned();
    (state != "Z").then_some(())?;
    Some((state, fields.nth(2)?.parse().ok()?))
}

fn kill(pid: u64) {
    assert!(
        Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

pub(crate) async fn gone(pid: u64) {
    eventually("the process is gone", async || stat(pid).is_none()).await;
}

/// Ends the vault of a folder when a test ends, however it ends.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.0.path().join("vault")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(pid) = pid(&self.path()).filter(|pid| stat(*pid).is_some()) {
            kill(pid);
        }
    }
}

fn models(attachment: &Attachment) -> Request<crate::support::AnyBody> {
    Request::get(format!("{}/v1/models", attachment.gateway.base))
        .header("x-api-key", &attachment.gateway.key)
        .body(body(""))
        .unwrap()
}

pub(crate) async fn works(attachment: &Attachment) -> bool {
    match client().request(models(attachment)).await {
        Ok(response) => whole(response).await.0 == 200,
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_killed_vault_comes_back_with_everything() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let host = host(&folder.path(), &upstream).await;
    let sandbox = fresh_sandbox();
    let attachment = host.attach(&attach(sandbox)).await.unwrap();
    assert!(attachment.gateway.key.starts_with("stub_LITELLM_API_KEY_"));
    assert_eq!(attachment.env.keys().collect::<Vec<_>>(), ["GITHUB_TOKEN"]);
    host.grant(sandbox, &[key_grant()]).await.unwrap();
    assert!(works(&attachment).await);
    assert_eq!(upstream.seen()[0].headers["x-api-key"], CANARY);

    let old = pid(&folder.path()).unwrap();
    assert_eq!(stat(old).unwrap().1, old, "it leads a session of its own");
    kill(old);
    eventually("another vault runs", async || {
        pid(&folder.path()).is_some_and(|new| new != old)
    })
    .await;
    // The values were pushed again, so nobody has to grant anything.
    eventually("the stub works", async || works(&attachment).await).await;
    assert_eq!(
        host.attach(&attach(sandbox)).await.unwrap(),
        attachment,
        "same port, same stubs"
    );
    let receipts = host.receipts(sandbox, 0, 10).await.unwrap();
    assert!(
        receipts
            .iter()
            .all(|receipt| receipt.verdict == "swapped" && receipt.status == 200)
    );
    host.detach(sandbox).await.unwrap();
    assert!(host.attached().await.unwrap().is_empty());
    let new = pid(&folder.path()).unwrap();
    host.shutdown().await.unwrap();
    assert!(
        stat(new).is_none() && pid(&folder.path()).is_none(),
        "it is gone when the call returns"
    );
}

#[tokio::test]
async fn the_next_server_adopts_the_vault() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let first = host(&folder.path(), &upstream).await;
    let sandbox = fresh_sandbox();
    let attachment = first.attach(&attach(sandbox)).await.unwrap();
    first.grant(sandbox, &[key_grant()]).await.unwrap();
    let old = pid(&folder.path()).unwrap();
    drop(first);
    assert!(works(&attachment).await, "it serves without a server");
    let path = folder.path();
    let (second, third) = tokio::join!(host(&path, &upstream), host(&path, &upstream));
    assert_eq!(pid(&folder.path()), Some(old));
    assert_eq!(second.attach(&attach(sandbox)).await.unwrap(), attachment);
    assert_eq!(
        third.attached().await.unwrap()[&sandbox],
        ["LITELLM_API_KEY".to_owned()].into()
    );
    assert!(works(&attachment).await, "the values are still there");
}

#[tokio::test]
async fn without_a_server_to_grant_again_requests_wait() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let first = host(&folder.path(), &upstream).await;
    let sandbox = fresh_sandbox();
    let attachment = first.attach(&attach(sandbox)).await.unwrap();
    first.grant(sandbox, &[key_grant()]).await.unwrap();
    drop(first);
    let old = pid(&folder.path()).unwrap();
    kill(old);
    gone(old).await;
    let mut config = process(&folder.path());
    config.grant_wait = Some(Duration::from_secs(2));
    let gateway = LocalVaultConfig {
        gateway: upstream.base(),
        gateway_roots: None,
    };
    let second = LocalVault::process(gateway, config).await.unwrap();
    let response = client().request(models(&attachment)).await.unwrap();
    assert_eq!(refusal(response).await, (503, "not_granted".to_owned()));
    let waiting = tokio::spawn(client().request(models(&attachment)));
    second.grant(sandbox, &[key_grant()]).await.unwrap();
    let mut status = waiting.await.unwrap().unwrap().status();
    if status == 503 {
        // Only a very slow machine grants later than a request waits.
        status = client().request(models(&attachment)).await.unwrap().status();
    }
    assert_eq!(status, 200);
}

#[tokio::test]
async fn values_and_the_root_key_are_nowhere_on_disk_or_in_the_process_table() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let host = host(&folder.path(), &upstream).await;
    let sandbox = fresh_sandbox();
    let attachment = host.attach(&attach(sandbox)).await.unwrap();
    host.grant(sandbox, &[key_grant()]).await.unwrap();
    assert!(works(&attachment).await);
    let mut files = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        files += 1;
        let text = String::from_utf8_lossy(&bytes);
        for secret in [CANARY, &CANARY[3..], SEALING_KEY, &attachment.gateway.key] {
            assert!(!text.contains(secret), "{}", path.display());
        }
    }
    assert!(files >= 4, "state, token, pid file and log were looked at");
    let token = std::fs::read_to_string(folder.path().join("control.token")).unwrap();
    assert!(token.starts_with("aes256gcm:"));
    let pid = pid(&folder.path()).unwrap();
    for file in ["environ", "cmdline"] {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains(CANARY) && !text.contains(SEALING_KEY), "{file}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&folder.path()), mode(&folder.path().join("control.sock"))),
        (0o700, 0o600)
    );
}

#[tokio::test]
async fn a_hundred_megabytes_stream_in_bounded_memory() {
    const CHUNK: usize = 64 << 10;
    const CHUNKS: usize = 1600;
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let host = host(&folder.path(), &upstream).await;
    let sandbox = fresh_sandbox();
    let attachment = host.attach(&attach(sandbox)).await.unwrap();
    host.grant(sandbox, &[key_grant()]).await.unwrap();
    assert!(works(&attachment).await);
    let statm = format!("/proc/{}/statm", pid(&folder.path()).unwrap());
    let resident = || {
        let statm = std::fs::read_to_string(&statm).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    let highest = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for mode in ["", "big"] {
        let chunk = bytes::Bytes::from(vec![b'y'; CHUNK]);
        let chunks =
            futures_util::stream::iter((0..CHUNKS).map(move |_| Ok(http_body::Frame::data(chunk.clone()))));
        let request = Request::post(format!("{}/v1/responses", attachment.gateway.base))
            .header("x-api-key", &attachment.gateway.key)
            .header("x-mode", mode)
            .body(http_body_util::BodyExt::boxed(http_body_util::StreamBody::new(
                chunks,
            )))
            .unwrap();
        let sending = tokio::spawn(async move { whole(client().request(request).await.unwrap()).await });
        while !sending.is_finished() {
            highest.fetch_max(resident(), std::sync::atomic::Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(sending.await.unwrap().0, 200);
        assert_eq!(
            upstream.seen().last().unwrap().body_bytes,
            (CHUNK * CHUNKS) as u64
        );
    }
    let grown = highest
        .load(std::sync::atomic::Ordering::Relaxed)
        .saturating_sub(before);
    assert!(grown < 12 << 20, "the vault grew by {grown} bytes");
}

#[tokio::test]
async fn a_folder_may_be_deeper_than_a_socket_address() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let deep = folder
        .path()
        .join("a-rather-long-name-of-a-folder".repeat(5))
        .join("vault");
    let host = host(&deep, &upstream).await;
    let sandbox = fresh_sandbox();
    let attachment = host.attach(&attach(sandbox)).await.unwrap();
    host.grant(sandbox, &[key_grant()]).await.unwrap();
    assert!(works(&attachment).await);
    host.shutdown().await.unwrap();
}
