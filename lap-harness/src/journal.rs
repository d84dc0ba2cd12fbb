//! Events as sandboxd's journal keeps and sends them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The type of the event that ends every turn.
pub const TURN_FINISHED: &str = "turn.finished";

/// The type of the event that begins every turn.
pub const TURN_STARTED: &str = "turn.started";

/// The type of the event that says retention removed what a reader asked for. Its `seq` is that of the last
/// event removed, its property `oldest` the first one that is left.
pub const JOURNAL_RESET: &str = "journal.reset";

/// The type of a piece of streamed text.
pub const PART_DELTA: &str = "message.part.delta";

/// One event. Sequences have no gaps and are never used twice in the life of a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEvent {
    /// Its place in the journal, from 1.
    pub seq: u64,
    /// The turn it belongs to.
    pub turn: Option<Uuid>,
    /// The opencode type, or one of `turn.started`, `turn.finished`, `journal.reset`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The opencode properties.
    #[serde(default)]
    pub properties: Value,
}

/// The properties of [`PART_DELTA`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartDelta {
    /// The conversation.
    #[serde(rename = "sessionID")]
    pub session_id: String,
    /// The message the part belongs to.
    #[serde(rename = "messageID")]
    pub message_id: String,
    /// The part that grows.
    #[serde(rename = "partID")]
    pub part_id: String,
    /// The field that grows: `text`.
    pub field: String,
    /// What is added.
    pub delta: String,
    /// How many bytes the field had before.
    pub offset: u64,
}
