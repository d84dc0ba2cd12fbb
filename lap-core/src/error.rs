//! The one error of the engine and of every backend.
//!
//! An error answers the caller's questions: what kind is it, during what, may I repeat the call and when,
//! and what was the cause. Expected outcomes (an empty pool, a lost race) are variants of results instead.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// The result of every fallible operation of the contracts.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The named thing does not exist.
    NotFound,
    /// The input is wrong; [`Error::field`] names the part when it is known.
    Invalid,
    /// The caller may not do this.
    Forbidden,
    /// The thing exists but is in a state that does not allow this.
    WrongState,
    /// The thing has ended for good; only an explicit restart revives it.
    Gone,
    /// The idempotency key was used before with another body.
    KeyReused,
    /// Too much is waiting already; try again after [`Retry::After`].
    Busy,
    /// A newer owner has taken over (a fence was older than the stored one).
    Stale,
    /// The backend lacks the capability.
    Unsupported,
    /// A dependency cannot be reached or is overloaded. Whether the call had an effect is unknown.
    Unavailable,
    /// The operation took longer than its deadline. Whether it had an effect is unknown.
    TimedOut,
    /// Stored data cannot be read or was made by a newer version.
    Corrupt,
    /// A defect in the platform.
    Internal,
}

/// Whether repeating the call can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Repeating the same call gives the same error.
    Never,
    /// The call may be repeated after this long.
    After(Duration),
}

type Source = Box<dyn StdError + Send + Sync>;

/// See the [module](self).
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    message: String,
    field: Option<String>,
    retry: Retry,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind` during `operation`. The message names the thing and the next step, never a secret.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        let retry = match kind {
            ErrorKind::Unavailable | ErrorKind::Busy => Retry::After(Duration::from_secs(1)),
            _ => Retry::Never,
        };
        Self {
            kind,
            operation,
            message: message.into(),
            field: None,
            retry,
            source: None,
        }
    }

    /// The input field `field` is wrong.
    pub fn invalid(operation: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::new(ErrorKind::Invalid, operation, message)
        }
    }

    /// `noun` with this id does not exist.
    pub fn not_found(operation: &'static str, noun: &str, id: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, operation, format!("there is no {noun} {id}"))
    }

    /// The implementer cannot do this.
    pub fn unsupported(operation: &'static str, implementer: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::Unsupported,
            operation,
            format!("{implementer} cannot do this"),
        )
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says when a repetition makes sense.
    #[must_use]
    pub const fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// What the caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// During what it happened, in a few words.
    pub const fn operation(&self) -> &'static str {
        self.operation
    }

    /// The message alone, without the operation.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The input field at fault, for [`ErrorKind::Invalid`].
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Whether and when to repeat the call.
    pub const fn retry(&self) -> Retry {
        self.retry
    }

    /// The error was caused by a dependency or by load, so the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self.retry, Retry::After(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("operation", &self.operation)
            .field("message", &self.message)
            .field("field", &self.field)
            .field("retry", &self.retry)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// The error and its causes in one line, for a log at the boundary where the error is handled.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_each_cause_once() {
        let error = Error::new(
            ErrorKind::Unavailable,
            "open session",
            "the store does not answer",
        )
        .with_source("connection refused");
        assert_eq!(
            chain(&error),
            "open session: the store does not answer: connection refused"
        );
        assert!(error.is_retryable());
    }
}
