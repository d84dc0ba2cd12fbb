//! What of a memory sandbox outlives it: its conversation.

use serde_json::Value;

use super::Agent;
use crate::error::{Error, ErrorKind, Result};
use crate::harness::Snapshot;

impl Agent {
    /// The newest messages that fit, when no turn runs.
    pub(in crate::memory) fn snapshot(&self, limit_bytes: usize) -> Result<Snapshot> {
        let inside = self.inside();
        let refused = |why| Error::new(ErrorKind::WrongState, "take snapshot", why);
        if inside.bound.is_none() {
            return Err(refused("there is no conversation yet"));
        }
        if inside.running.is_some() {
            return Err(refused("a turn is running"));
        }
        let (mut bytes, mut oldest) = (Vec::new(), inside.messages.len());
        for from in (0..inside.messages.len()).rev() {
            let longer = Value::from(inside.messages[from..].to_vec())
                .to_string()
                .into_bytes();
            if longer.len() > limit_bytes {
                break;
            }
            (bytes, oldest) = (longer, from);
        }
        if bytes.is_empty() {
            bytes = b"[]".to_vec();
        }
        let lost = (oldest > 0).then(|| format!("the {oldest} oldest messages of the conversation"));
        Ok(Snapshot {
            bytes,
            lost: lost.into_iter().collect(),
        })
    }

    /// Takes the conversation of a snapshot before one is opened; the same snapshot again is fine.
    pub(in crate::memory) fn restore(&self, fence: u64, snapshot: &Snapshot) -> Result<()> {
        const OPERATION: &str = "restore snapshot";
        let mut inside = self.inside();
        if fence < inside.fence {
            return Err(Error::new(ErrorKind::Stale, OPERATION, "a newer fence was seen"));
        }
        if inside.restored.as_ref() == Some(&snapshot.bytes) {
            return Ok(());
        }
        if inside.bound.is_some() {
            return Err(Error::new(
                ErrorKind::WrongState,
                OPERATION,
                "a session holds the sandbox",
            ));
        }
        let messages = serde_json::from_slice(&snapshot.bytes)
            .map_err(|_| Error::new(ErrorKind::Invalid, OPERATION, "this is not a snapshot"))?;
        inside.fence = fence;
        inside.messages = messages;
        inside.restored = Some(snapshot.bytes.clone());
        Ok(())
    }
}
