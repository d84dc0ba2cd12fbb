//! The one place where the database's errors become the platform's.

use std::time::Duration;

use lap_core::error::{Error, ErrorKind, Retry};
use sqlx::error::DatabaseError;

/// What a statement or a method's inside gives.
pub(crate) type Answer<T> = Result<T, Failure>;

/// Why a method did not come to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The database said so, or could not be asked.
    Sql(sqlx::Error),
    /// Somebody else was faster in a way that this attempt could not see. Nothing was changed; the next attempt sees it.
    Race,
    /// A hold was lost in the middle of a transaction, which must not stay. The method answers that it was late.
    Stale,
    /// The server only reads.
    ReadOnly,
    /// The platform's own answer.
    Refused(Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// A stored value that this version cannot read.
#[derive(Debug)]
pub(crate) struct Unreadable(pub(crate) String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

impl Failure {
    fn database(&self) -> Option<&dyn DatabaseError> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => Some(&**error),
            _ => None,
        }
    }

    /// Whether the attempt certainly changed nothing and another one at once may succeed: a lost race, a deadlock,
    /// a serialisation failure, or a plan that a migration made invalid.
    pub(crate) fn is_lost_race(&self) -> bool {
        let is_race = |code: &str| matches!(code, "40001" | "40P01");
        matches!(self, Self::Race)
            || self
                .database()
                .is_some_and(|error| error.code().as_deref().is_some_and(is_race))
    }

    /// Whether the connection can serve no longer.
    pub(crate) fn is_disconnection(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error
                .code()
                .is_some_and(|code| code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "57P03")),
            Self::Sql(
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed,
            ) => true,
            _ => false,
        }
    }

    /// Whether another server may answer better: the one asked can only read.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::ReadOnly)
            || self.database().and_then(DatabaseError::code).as_deref() == Some("25006")
    }

    /// Whether one of these unique indexes refused a row.
    pub(crate) fn is_duplicate_in(&self, indexes: &[&str]) -> bool {
        let is_named = |name: &str| indexes.contains(&name);
        self.database()
            .is_some_and(|error| error.is_unique_violation() && error.constraint().is_some_and(is_named))
    }

    /// Whether the statement has undone itself.
    pub(crate) fn is_division_by_zero(&self) -> bool {
        self.database().and_then(DatabaseError::code).as_deref() == Some("22012")
    }

    /// The platform's error during `operation`.
    pub(crate) fn explain(self, operation: &'static str) -> Error {
        match self {
            Self::Sql(error) => from_sqlx(operation, error),
            Self::Race => Error::new(
                ErrorKind::Unavailable,
                operation,
                "too many others changed the same thing at the same time",
            ),
            Self::Stale => Error::new(ErrorKind::Stale, operation, "a newer owner has taken over"),
            Self::ReadOnly => Error::new(ErrorKind::Unavailable, operation, READ_ONLY),
            Self::Refused(error) => error,
        }
    }
}

/// The platform's error for what went wrong with the database during `operation`.
pub(crate) fn from_sqlx(operation: &'static str, error: sqlx::Error) -> Error {
    let (kind, message) = match &error {
        sqlx::Error::Database(database) => from_code(database.code().as_deref().unwrap_or_default()),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => (
            ErrorKind::Unavailable,
            "the connection to the database broke or could not be made",
        ),
        sqlx::Error::Tls(_) => (
            ErrorKind::Unavailable,
            "no secure connection to the database could be made; check sslmode and sslrootcert in its address",
        ),
        sqlx::Error::PoolTimedOut => (
            ErrorKind::Unavailable,
            "every connection to the database is in use",
        ),
        sqlx::Error::PoolClosed => (ErrorKind::Unavailable, "the store is closed"),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => (
            ErrorKind::Corrupt,
            "a stored value cannot be read; it is damaged or a newer version wrote it",
        ),
        _ => (ErrorKind::Internal, "the database refused a statement"),
    };
    Error::new(kind, operation, message).with_source(error)
}

const READ_ONLY: &str = "the database is read-only now; it may be a standby during a fail-over";

/// SQLSTATE codes (<https://www.postgresql.org/docs/current/errcodes-appendix.html>), by code, then by class.
fn from_code(code: &str) -> (ErrorKind, &'static str) {
    let unavailable = |message| (ErrorKind::Unavailable, message);
    match code {
        "25006" => unavailable(READ_ONLY),
        "28P01" | "28000" => unavailable("the database does not accept the user or the password"),
        "3D000" => unavailable("the server has no database of this name"),
        "42501" => (
            ErrorKind::Forbidden,
            "the database user lacks a right that the store needs; see the cause",
        ),
        "53100" => unavailable("the disk of the database is full; free some space"),
        "53200" => unavailable("the database has not enough memory"),
        "53300" => {
            unavailable("the database accepts no more connections; raise max_connections or use fewer")
        }
        "55P03" => unavailable("a lock was not free in time"),
        "57014" => unavailable("the statement took longer than statement_timeout"),
        "25P03" | "25P04" => unavailable("the transaction was idle or open for too long and was ended"),
        "42P01" | "42703" | "3F000" | "42883" => (
            ErrorKind::Corrupt,
            "the database lacks a part of the schema; start the server anew or run its migrations",
        ),
        "22P05" | "22021" => (
            ErrorKind::Invalid,
            "a text has a character that the database cannot keep",
        ),
        _ => match code.get(..2).unwrap_or_default() {
            "08" => unavailable("the connection to the database broke or could not be made"),
            "40" => unavailable("others changed the same rows at the same time"),
            "53" => unavailable("the database is short of a resource"),
            "57" => unavailable("the database is shutting down or starting"),
            "58" => unavailable("the disk of the database reported an error"),
            "XX" => (
                ErrorKind::Corrupt,
                "the database reports damaged data; restore it from a backup",
            ),
            "23" => (ErrorKind::Internal, "the write breaks a rule of the schema"),
            _ => (ErrorKind::Internal, "the database refused a statement"),
        },
    }
}

/// The store was closed, or this process ends.
pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "the store is closed").with_retry(Retry::Never)
}

/// The database did not answer in time.
pub(crate) fn silent(operation: &'static str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        operation,
        "the database did not answer in time",
    )
    .with_retry(Retry::After(Duration::from_secs(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_may_be_repeated_and_what_does_not_may_not() {
        for code in [
            "25006", "53100", "53300", "57014", "57P01", "57P03", "08006", "40P01", "40001", "58030", "55P03",
        ] {
            assert_eq!(from_code(code).0, ErrorKind::Unavailable, "{code}");
        }
        for code in ["42601", "23505", "22003", ""] {
            assert_eq!(from_code(code).0, ErrorKind::Internal, "{code}");
        }
        assert_eq!(from_code("42P01").0, ErrorKind::Corrupt);
        assert_eq!(from_code("42501").0, ErrorKind::Forbidden);
    }
}
