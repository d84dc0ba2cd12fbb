//! What outlives a sandbox: taking it, and giving it to another one.

use std::time::Duration;

use http::{HeaderValue, Method, header};
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::harness::{Contact, Snapshot};

use super::{Refused, SandboxdHarness, answer, request};
use crate::limits::MAX_SNAPSHOT_BYTES;
use crate::problem;
use crate::snapshot::{self, MAX_HEAD_BYTES, Restored};

/// A sandbox looks through its workspace first.
const TAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Large changes are applied file by file when the branch has moved.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(120);

impl SandboxdHarness {
    /// What of the sandbox outlives it, at most `limit_bytes` (and never more than [`MAX_SNAPSHOT_BYTES`]).
    ///
    /// # Errors
    /// `Unsupported` when the sandbox knows no snapshots, `WrongState` while a turn runs, `Unavailable`.
    pub(super) async fn take_snapshot(&self, at: &Contact, limit_bytes: usize) -> Result<Snapshot> {
        const OPERATION: &str = "take the sandbox's snapshot";
        let limit = limit_bytes.min(MAX_SNAPSHOT_BYTES);
        let path = format!("/lap/snapshot?limit_bytes={limit}");
        let answer = self
            .get(OPERATION, at, &path, TAKE_TIMEOUT)
            .await
            .map_err(|error| unsupported_if_unknown(OPERATION, error))?;
        let body = answer::body_within(OPERATION, answer, limit + MAX_HEAD_BYTES).await?;
        let (head, archive) =
            snapshot::split(&body).ok_or_else(|| answer::invalid(OPERATION, "it is not a snapshot"))?;
        if archive.len() > limit {
            return Err(answer::invalid(OPERATION, "it is larger than was asked for"));
        }
        Ok(Snapshot {
            bytes: archive.to_vec(),
            lost: head.lost,
        })
    }

    /// Gives the snapshot to a fresh sandbox; returns what could not be restored.
    ///
    /// # Errors
    /// `Unsupported` when the sandbox knows no snapshots, `Invalid` when this is none, `Stale` for an old fence,
    /// `WrongState` when the sandbox belongs to a session already, `Unavailable`.
    pub(super) async fn restore_snapshot(
        &self,
        at: &Contact,
        fence: u64,
        snapshot: &Snapshot,
    ) -> Result<Vec<String>> {
        const OPERATION: &str = "restore a snapshot";
        if snapshot.bytes.is_empty() || snapshot.bytes.len() > MAX_SNAPSHOT_BYTES {
            return Err(Error::new(
                ErrorKind::Invalid,
                OPERATION,
                "the snapshot has no valid size",
            ));
        }
        let path = format!("/lap/restore?fence={fence}");
        let mut request = request(OPERATION, at, Method::POST, &path, snapshot.bytes.clone())?;
        let archive = HeaderValue::from_static("application/gzip");
        request.headers_mut().insert(header::CONTENT_TYPE, archive);
        let answer = self.exchange(OPERATION, request, RESTORE_TIMEOUT).await?;
        match answer::accept(OPERATION, answer).await {
            Ok(answer) => {
                let restored: Restored = answer::json(OPERATION, answer).await?;
                Ok(snapshot::bounded(restored.lost))
            }
            Err(Refused::Code(code, error)) if code == problem::STALE_FENCE => {
                Err(Error::new(ErrorKind::Stale, OPERATION, error.message()))
            }
            Err(refused) => Err(unsupported_if_unknown(OPERATION, refused.into())),
        }
    }
}

/// A sandbox of an earlier version does not know the path.
fn unsupported_if_unknown(operation: &'static str, error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(
            ErrorKind::Unsupported,
            operation,
            "the sandbox knows no snapshots",
        )
        .with_source(error),
        _ => error,
    }
}
