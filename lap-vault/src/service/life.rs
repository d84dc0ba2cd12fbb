use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::VaultService;

/// How often the folder and the use are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Names one folder for as long as it exists.
fn folder_id(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Ends when the vault is of no more use, and says why.
pub(super) async fn end_of_use(
    folder: &Path,
    service: &VaultService,
    servers: &AtomicUsize,
    idle_exit: Duration,
    orphan_exit: Duration,
) -> &'static str {
    let original = folder_id(folder);
    let (mut idle_since, mut orphan_since) = (Instant::now(), Instant::now());
    let mut requests = 0;
    loop {
        tokio::time::sleep(TICK.min(idle_exit)).await;
        if folder_id(folder) != original {
            return "its folder was removed";
        }
        let now = Instant::now();
        let has_server = servers.load(Ordering::SeqCst) > 0;
        if has_server || service.attached() > 0 {
            idle_since = now;
        }
        if has_server || std::mem::replace(&mut requests, service.requests()) != service.requests() {
            orphan_since = now;
        }
        if now - idle_since >= idle_exit {
            return "no server is connected and no sandbox is attached";
        }
        if now - orphan_since >= orphan_exit {
            return "no server came back and no sandbox asks";
        }
    }
}
