//! Gives a sandbox that replaces another one what the session remembers.

use std::sync::Arc;

use super::core::Core;
use super::messages;
use super::snapshot::{self, Kept};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::event::NewEvent;
use crate::harness::Contact;
use crate::id::SessionId;
use crate::store::{Append, WorkItem};
use serde_json::Value;

/// What a fresh sandbox was given.
pub(super) struct Memory {
    /// The conversation as context, when its own state could not be restored.
    pub(super) history: Vec<Value>,
    lost: Vec<String>,
    reason: String,
}

/// Restores the snapshot into the sandbox; without one, or when it does not take it, the conversation is given as
/// context from the log.
///
/// # Errors
/// `Stale` when the hold is lost; `Unavailable`.
pub(super) async fn restore(
    core: &Core,
    item: &WorkItem,
    session: SessionId,
    at: &Contact,
) -> Result<Memory> {
    let found = match snapshot::load(core, session).await {
        Ok(found) => found.ok_or_else(|| "no snapshot of the earlier sandbox exists".to_owned()),
        Err(error) if error.kind() == ErrorKind::Corrupt => Err(chain(&error)),
        Err(error) => return Err(error),
    };
    let reason = match found {
        Ok(kept) => match core
            .parts
            .harness
            .restore(at, item.hold.fence, &kept.snapshot)
            .await
        {
            Ok(lost) => return restored(core, session, kept, lost).await,
            Err(error) if is_refusal(&error) => chain(&error),
            Err(error) => return Err(error),
        },
        Err(reason) => reason,
    };
    let history = messages::from_log(core, session).await?;
    let mut lost = vec!["uncommitted files".to_owned()];
    if !history.is_empty() {
        lost.push("details of the conversation, such as tool calls".to_owned());
    }
    Ok(Memory {
        history,
        lost,
        reason,
    })
}

/// What the sandbox has after a restoration that left out `lost`.
async fn restored(core: &Core, session: SessionId, kept: Kept, mut lost: Vec<String>) -> Result<Memory> {
    lost.extend(kept.snapshot.lost);
    if kept.is_current {
        return Ok(Memory {
            history: Vec::new(),
            lost,
            reason: "the snapshot does not hold everything".to_owned(),
        });
    }
    // The log knows what was said later, so it stands in place of the older conversation.
    lost.push("uncommitted files changed since the last snapshot".to_owned());
    lost.push("details of the conversation, such as tool calls".to_owned());
    Ok(Memory {
        history: messages::from_log(core, session).await?,
        lost,
        reason: "turns came after the last snapshot, before the sandbox was gone".to_owned(),
    })
}

/// Tells what was lost, if anything was.
pub(super) async fn tell(
    core: &Arc<Core>,
    item: &WorkItem,
    session: SessionId,
    memory: &Memory,
) -> Result<()> {
    if memory.lost.is_empty() {
        return Ok(());
    }
    let lost: Vec<_> = memory.lost.iter().map(String::as_str).collect();
    let events = vec![NewEvent::memory_degraded(&lost, &memory.reason)];
    let hold = Some(item.hold.clone());
    core.flusher
        .append(Append {
            session,
            hold,
            ingest: None,
            running: None,
            events,
        })
        .await?;
    Ok(())
}

const fn is_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unsupported | ErrorKind::Invalid | ErrorKind::NotFound
    )
}
