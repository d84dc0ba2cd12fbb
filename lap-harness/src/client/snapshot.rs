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

#[cfg(test)]
mod tests {
    use super::*;
    use lap_core::harness::Harness;
    use lap_core::id::SandboxId;
    use lap_core::secret::Secret;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use uuid::Uuid;

    /// A sandbox that gives every call this answer.
    async fn answering(status: &str, body: Vec<u8>) -> Contact {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let contact = Contact {
            sandbox: SandboxId::from_uuid(Uuid::from_u128(1)),
            address: listener.local_addr().unwrap().to_string(),
            token: Secret::new("token"),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&body).await;
            }
        });
        contact
    }

    fn snapshot(bytes: &[u8]) -> Snapshot {
        Snapshot {
            bytes: bytes.to_vec(),
            lost: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_snapshot_is_split_bounded_and_checked() {
        let client = SandboxdHarness::new();
        let at = answering("200 OK", b"{\"lost\":[\"a\"]}\n0123456789".to_vec()).await;
        let taken = client.snapshot(&at, 10).await.unwrap();
        assert_eq!(
            (&*taken.bytes, taken.lost),
            (b"0123456789".as_slice(), vec!["a".to_owned()])
        );
        // More than was asked for, no head, and more than is read at all.
        let endless = [b"{}\n".to_vec(), vec![0; MAX_HEAD_BYTES + 100]].concat();
        assert_eq!(
            client.snapshot(&at, 9).await.unwrap_err().kind(),
            ErrorKind::Unavailable
        );
        for body in [b"no head".to_vec(), endless] {
            let at = answering("200 OK", body).await;
            let refused = client.snapshot(&at, 50).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unavailable);
        }
    }

    #[tokio::test]
    async fn refusals_have_the_kinds_of_the_contract() {
        let client = SandboxdHarness::new();
        for (status, body, kind) in [
            ("404 Not Found", "{}", ErrorKind::Unsupported),
            ("422 Unprocessable Entity", "{}", ErrorKind::Unsupported),
            ("400 Bad Request", "{}", ErrorKind::Invalid),
            (
                "409 Conflict",
                "{\"status\":409,\"title\":\"\",\"code\":\"bound\"}",
                ErrorKind::WrongState,
            ),
            ("503 Service Unavailable", "{}", ErrorKind::Unavailable),
        ] {
            let at = answering(status, body.as_bytes().to_vec()).await;
            let restored = client.restore(&at, 1, &snapshot(b"x")).await.unwrap_err();
            assert_eq!(restored.kind(), kind, "{status}");
            let taken = client.snapshot(&at, 10).await.unwrap_err();
            assert_eq!(taken.kind(), kind, "{status}");
        }
        let stale = "{\"status\":409,\"title\":\"\",\"code\":\"stale_fence\"}"
            .as_bytes()
            .to_vec();
        let at = answering("409 Conflict", stale).await;
        let refused = client.restore(&at, 1, &snapshot(b"x")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Stale);
        let at = answering("200 OK", b"{}".to_vec()).await;
        let refused = client.restore(&at, 1, &snapshot(b"")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert_eq!(
            client.restore(&at, 1, &snapshot(b"x")).await.unwrap(),
            Vec::<String>::new()
        );
    }
}
