//! The one place where the database's errors become the platform's.

use lap_core::error::{Error, ErrorKind, Retry};
use sqlx::error::DatabaseError;

/// What a statement gives.
pub(crate) type Answer<T> = Result<T, sqlx::Error>;

/// A stored value that this version cannot read.
#[derive(Debug)]
pub(crate) struct Unreadable(pub(crate) String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// The platform's error for what went wrong with the database during `operation`.
pub(crate) fn from_sqlx(operation: &'static str, error: sqlx::Error) -> Error {
    let (kind, message) = match &error {
        sqlx::Error::Database(database) => from_code(&**database),
        sqlx::Error::Io(_) => (
            ErrorKind::Unavailable,
            "the database file cannot be read or written",
        ),
        sqlx::Error::WorkerCrashed => (ErrorKind::Unavailable, "the connection to the database has ended"),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => (
            ErrorKind::Corrupt,
            "a stored value cannot be read; it is damaged or a newer version wrote it",
        ),
        _ => (ErrorKind::Internal, "the database refused a statement"),
    };
    Error::new(kind, operation, message).with_source(error)
}

/// SQLite's primary result codes (<https://www.sqlite.org/rescode.html>): the low byte of what sqlx reports.
fn from_code(error: &dyn DatabaseError) -> (ErrorKind, &'static str) {
    let code = error
        .code()
        .and_then(|code| code.parse::<i64>().ok())
        .unwrap_or(1)
        & 0xff;
    match code {
        5 | 6 => (
            ErrorKind::Unavailable,
            "another program holds the database file; it may let go soon",
        ),
        7 => (
            ErrorKind::Unavailable,
            "there is not enough memory for the database",
        ),
        8 => (
            ErrorKind::Unavailable,
            "the database file is read-only; make it and its folder writable",
        ),
        9 => (ErrorKind::Unavailable, "the statement was interrupted"),
        10 => (
            ErrorKind::Unavailable,
            "the disk of the database reported an error",
        ),
        11 => (
            ErrorKind::Corrupt,
            "the database file is damaged; restore it from a backup",
        ),
        13 => (
            ErrorKind::Unavailable,
            "the disk of the database is full; free some space",
        ),
        14 => (ErrorKind::Unavailable, "the database file cannot be opened"),
        26 => (ErrorKind::Corrupt, "the file is not a SQLite database"),
        19 => (ErrorKind::Internal, "the write breaks a rule of the schema"),
        _ => (ErrorKind::Internal, "the database refused a statement"),
    }
}

/// The store was closed or its writer ended.
pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "the store is closed").with_retry(Retry::Never)
}
