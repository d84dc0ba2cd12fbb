//! What outlives a sandbox: uncommitted work and the conversation, sealed with the session.

use std::time::Duration;

use serde_json::{Value, json};

use super::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::harness::Snapshot;
use crate::id::{RecordId, SessionId};
use crate::seal::Sealed;
use crate::session::{Session, SessionState};
use crate::store::{NewRecord, Put, Record, RecordQuery};

const KIND: &str = "snapshot";
const LATEST: &str = "latest";
/// Events read from the store at once.
const PAGE: u32 = 100;
/// How long a sandbox may take to give its snapshot. A session that is being restarted waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A stored snapshot.
pub(super) struct Kept {
    pub(super) snapshot: Snapshot,
    /// No turn came after it.
    pub(super) is_current: bool,
}

/// The snapshot of a ready session is stored in place of an earlier one. `false` when there is none to take.
///
/// # Errors
/// `Unavailable`, `TimedOut`; the session is as it was.
pub(super) async fn take(core: &Core, session: &Session) -> Result<bool> {
    let (SessionState::Ready, Some(sandbox), Some(address)) =
        (session.state, session.sandbox, &session.address)
    else {
        return Ok(false);
    };
    let contact = core.contact(sandbox, address);
    let limit = core.config.snapshot_limit_bytes;
    // Read first: what comes meanwhile counts as later.
    let page = core.parts.store.events(session.id, u64::MAX, 1).await?;
    let head = page.map_or(0, |page| page.head);
    let taken = tokio::time::timeout(PATIENCE, core.parts.harness.snapshot(&contact, limit)).await;
    let snapshot = match taken {
        Ok(Ok(snapshot)) => snapshot,
        Ok(Err(error)) if error.kind() == ErrorKind::Unsupported => return Ok(false),
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            return Err(Error::new(
                ErrorKind::TimedOut,
                "take snapshot",
                "the sandbox did not give it in time",
            ));
        }
    };
    if snapshot.bytes.len() > limit {
        return Err(Error::new(
            ErrorKind::Invalid,
            "take snapshot",
            "the sandbox gave more than was asked for",
        ));
    }
    store(core, session.id, &snapshot, head).await?;
    Ok(true)
}

/// The latest snapshot of a session.
///
/// # Errors
/// `Corrupt` when it was sealed with another key or is damaged; `Unavailable`.
pub(super) async fn load(core: &Core, session: SessionId) -> Result<Option<Kept>> {
    let Some(record) = find(core, session).await? else {
        return Ok(None);
    };
    let damaged = || {
        Error::new(
            ErrorKind::Corrupt,
            "read snapshot",
            "the stored snapshot is damaged",
        )
    };
    let sealed = record
        .body
        .get("sealed")
        .and_then(|sealed| sealed.as_str())
        .ok_or_else(damaged)?;
    let bytes = core
        .parts
        .sealer
        .open(&context(session), &Sealed::from_text(sealed))?;
    let lost = record.body.get("lost").and_then(|lost| lost.as_array());
    let lost = lost
        .into_iter()
        .flatten()
        .filter_map(|what| what.as_str().map(str::to_owned))
        .collect();
    let head = record.body.get("head").and_then(Value::as_u64).unwrap_or(0);
    Ok(Some(Kept {
        snapshot: Snapshot { bytes, lost },
        is_current: !turns_after(core, session, head).await?,
    }))
}

/// Whether anything happened to a turn after this event.
async fn turns_after(core: &Core, session: SessionId, mut after: u64) -> Result<bool> {
    loop {
        let page = core.parts.store.events(session, after, PAGE).await?;
        let events = page.map(|page| page.events).unwrap_or_default();
        let Some(last) = events.last() else {
            return Ok(false);
        };
        if events.iter().any(|event| event.turn.is_some()) {
            return Ok(true);
        }
        after = last.id;
    }
}

async fn store(core: &Core, session: SessionId, snapshot: &Snapshot, head: u64) -> Result<()> {
    let sealed = core
        .parts
        .sealer
        .seal(&context(session), &snapshot.bytes, &*core.parts.entropy)?;
    let body = json!({ "sealed": sealed.as_text(), "lost": snapshot.lost, "head": head });
    for _ in 0..4 {
        let before = find(core, session).await?;
        let fresh = || RecordId::fresh(&*core.parts.entropy, core.parts.clock.now());
        let record = NewRecord {
            id: before.as_ref().map_or_else(fresh, |before| before.id),
            kind: KIND.to_owned(),
            owner: session.to_string(),
            unique_key: Some(LATEST.to_owned()),
            body: body.clone(),
            expected_version: before.map_or(0, |before| before.version),
        };
        if let Put::Done(_) = core.parts.store.put_record(record).await? {
            return Ok(());
        }
    }
    Err(Error::new(
        ErrorKind::Busy,
        "store snapshot",
        "others keep storing snapshots of this session",
    ))
}

async fn find(core: &Core, session: SessionId) -> Result<Option<Record>> {
    let query = RecordQuery {
        kind: KIND.to_owned(),
        owner: Some(session.to_string()),
        unique_key: Some(LATEST.to_owned()),
        limit: 1,
        ..RecordQuery::default()
    };
    Ok(core.parts.store.list_records(query).await?.pop())
}

fn context(session: SessionId) -> String {
    format!("session/{session}/snapshot")
}
