use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use lap_core::id::SandboxId;
use lap_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Kept per sandbox; a sandbox that floods pushes out its own receipts only.
const PER_SANDBOX: usize = 512;
/// Sandboxes whose receipts are kept after they were detached.
const DETACHED: usize = 64;

/// What remains of one exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Grows; also across restarts of the vault.
    pub number: u64,
    /// When it began, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Whose it is; nothing when the credential was not known.
    pub sandbox: Option<Uuid>,
    /// HTTP method.
    pub method: String,
    /// Path with the names of its query, without their values.
    pub path: String,
    /// Host it went to or would have gone to.
    pub host: String,
    /// `swapped` or `refused`.
    pub verdict: String,
    /// Why it was refused or ended early.
    pub reason: Option<String>,
    /// Names of the credentials, never values.
    pub credentials: Vec<String>,
    /// Header in which the credential was presented.
    pub position: Option<String>,
    /// Status the client saw; 499 when it left before.
    pub status: u16,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the head of the request to the end of the answer.
    pub duration_ms: u64,
}

#[derive(Debug, Default)]
struct Rings {
    next: u64,
    by_sandbox: HashMap<Option<Uuid>, VecDeque<Receipt>>,
    detached: VecDeque<Uuid>,
}

/// The receipts of the latest exchanges, bounded.
#[derive(Debug)]
pub struct Receipts(Mutex<Rings>);

impl Receipts {
    /// Receipts of a vault that starts now. The numbers begin at the time, so that they go on growing after
    /// a restart without a write per exchange.
    pub fn new(now: Timestamp) -> Self {
        let next = now.unix_millis().unsigned_abs().saturating_mul(1000);
        Self(Mutex::new(Rings {
            next,
            ..Rings::default()
        }))
    }

    fn rings(&self) -> std::sync::MutexGuard<'_, Rings> {
        // A panic elsewhere leaves counters and queues whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files a receipt and numbers it.
    pub fn file(&self, mut receipt: Receipt) {
        let mut rings = self.rings();
        rings.next += 1;
        receipt.number = rings.next;
        let ring = rings.by_sandbox.entry(receipt.sandbox).or_default();
        if ring.len() == PER_SANDBOX {
            ring.pop_front();
        }
        ring.push_back(receipt);
    }

    /// A sandbox was detached; its receipts stay readable until enough others were.
    pub fn detached(&self, sandbox: SandboxId) {
        let mut rings = self.rings();
        rings.detached.push_back(sandbox.as_uuid());
        while rings.detached.len() > DETACHED {
            if let Some(oldest) = rings.detached.pop_front() {
                rings.by_sandbox.remove(&Some(oldest));
            }
        }
    }

    /// Receipts of a sandbox, or of unknown callers, after a number, oldest first.
    pub fn after(&self, sandbox: Option<SandboxId>, after: u64, limit: usize) -> Vec<Receipt> {
        let rings = self.rings();
        let ring = rings.by_sandbox.get(&sandbox.map(|id| id.as_uuid()));
        ring.into_iter()
            .flatten()
            .filter(|receipt| receipt.number > after)
            .take(limit)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(sandbox: Option<Uuid>) -> Receipt {
        Receipt {
            number: 0,
            at: 0,
            sandbox,
            method: "POST".to_owned(),
            path: "/v1/messages".to_owned(),
            host: "gateway".to_owned(),
            verdict: "swapped".to_owned(),
            reason: None,
            credentials: vec!["LITELLM_API_KEY".to_owned()],
            position: None,
            status: 200,
            bytes_in: 0,
            bytes_out: 0,
            duration_ms: 0,
        }
    }

    #[test]
    fn a_flood_pushes_out_only_its_own_receipts() {
        let receipts = Receipts::new(Timestamp::from_unix_millis(5));
        let quiet = SandboxId::from_uuid(Uuid::from_u128(1));
        receipts.file(receipt(Some(quiet.as_uuid())));
        for _ in 0..2 * PER_SANDBOX {
            receipts.file(receipt(None));
        }
        assert_eq!(receipts.after(None, 0, usize::MAX).len(), PER_SANDBOX);
        let kept = receipts.after(Some(quiet), 0, 10);
        assert_eq!(kept.len(), 1);
        assert!(kept[0].number > 5000);
        assert!(receipts.after(Some(quiet), kept[0].number, 10).is_empty());
    }

    #[test]
    fn receipts_of_detached_sandboxes_are_bounded() {
        let receipts = Receipts::new(Timestamp::from_unix_millis(0));
        for number in 0..=DETACHED {
            let sandbox = SandboxId::from_uuid(Uuid::from_u128(number as u128));
            receipts.file(receipt(Some(sandbox.as_uuid())));
            receipts.detached(sandbox);
        }
        assert!(
            receipts
                .after(Some(SandboxId::from_uuid(Uuid::from_u128(0))), 0, 1)
                .is_empty()
        );
        assert_eq!(
            receipts
                .after(Some(SandboxId::from_uuid(Uuid::from_u128(1))), 0, 1)
                .len(),
            1
        );
    }
}
