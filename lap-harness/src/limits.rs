//! The sizes and times both sides of the protocol keep to.

use std::time::Duration;

/// The longest line of an event stream, in bytes. A longer one ends the stream with an error.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// The largest event sandboxd writes, in bytes of JSON: a line with its field name still fits
/// [`MAX_LINE_BYTES`].
pub const MAX_EVENT_BYTES: usize = MAX_LINE_BYTES - 64 * 1024;

/// The largest body of a request or of an answer that is not a stream, in bytes.
pub const MAX_BODY_BYTES: usize = 16 << 20;

/// The largest snapshot, in bytes as it is stored.
pub const MAX_SNAPSHOT_BYTES: usize = 64 << 20;

/// The longest a caller may ask `/lap/health` to wait.
pub const MAX_HEALTH_WAIT: Duration = Duration::from_secs(60);

/// How long sandboxd waits for the head of the next request on a connection, the idle time before it included.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client keeps an idle connection: shorter than [`HEADER_TIMEOUT`], so that no request is sent into a
/// connection that is being closed.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(20);

/// How often an idle stream carries a comment, so that both sides notice a dead connection.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
