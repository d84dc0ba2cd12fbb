//! What is looked at before a file is opened for writing, so that a refused file stays as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoKind, Read as _};
use std::path::Path;
use std::sync::Arc;

use lap_core::error::{Error, ErrorKind, Result};
use sqlx::ConnectOptions as _;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::error::{Answer, from_sqlx};
use crate::link::{Counters, Link, sql};
use crate::migrate;

const OPERATION: &str = "open store";
/// The first bytes of every SQLite database (<https://www.sqlite.org/fileformat.html>).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Files up to this size are checked whole at the start. That takes a fraction of a second; damage in a larger
/// file shows when it is read.
const CHECKED_BYTES: u64 = 64 << 20;

/// What is at the path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing yet.
    Nothing,
    /// A file that begins like a database.
    Database { checked: bool },
}

/// Makes the folder, and looks at the file without a database connection. Blocks the thread.
pub(crate) fn look(path: &Path) -> Result<Found> {
    let refused = |what: &str, error: std::io::Error| {
        Error::invalid(OPERATION, "path", format!("{what}: {error}")).with_source(error)
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)
            .map_err(|error| refused(&format!("the folder {} cannot be made", folder.display()), error))?;
    }
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) if error.kind() == IoKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(refused(&format!("the database {shown} cannot be read"), error)),
        Ok(found) if !found.is_file() => {
            return Err(Error::invalid(
                OPERATION,
                "path",
                format!("the database path {shown} is not a file"),
            ));
        }
        Ok(_) => {}
    }
    OpenOptions::new()
        .append(true)
        .open(path)
        .map_err(|error| refused(&format!("the database {shown} cannot be written"), error))?;
    header(path).map_err(|error| refused(&format!("the database {shown} cannot be read"), error))?
}

/// Makes the file when there is none, for its owner's eyes only: conversations are in it in the clear. SQLite gives
/// the files it keeps beside it the same rights. Blocks the thread.
pub(crate) fn create(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let made = options.open(path);
    made.map(drop).map_err(|error| {
        let message = format!("the database {} cannot be made: {error}", path.display());
        Error::invalid(OPERATION, "path", message).with_source(error)
    })
}

/// An empty file is as good as none.
fn header(path: &Path) -> std::io::Result<Result<Found>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size == 0 {
        return Ok(Ok(Found::Nothing));
    }
    let mut magic = Vec::new();
    file.by_ref().take(16).read_to_end(&mut magic)?;
    if magic != MAGIC {
        let message = format!(
            "the file {} is not a SQLite database; choose another path or restore a backup. Nothing was changed",
            path.display()
        );
        return Ok(Err(Error::new(ErrorKind::Corrupt, OPERATION, message)));
    }
    Ok(Ok(Found::Database {
        checked: size <= CHECKED_BYTES,
    }))
}

/// Refuses a damaged file and a newer schema, through a connection that cannot write.
pub(crate) async fn refuse(connect: &SqliteConnectOptions, path: &Path, checked: bool) -> Result<()> {
    let connect = connect.clone().read_only(true).create_if_missing(false);
    let connection = connect.connect().await.map_err(|error| damaged(path, error))?;
    let mut link = Link::new(connection, Arc::new(Counters::default()));
    let problem = if checked {
        problem(&mut link).await
    } else {
        Ok(None)
    };
    let answer = match problem {
        Ok(None) => migrate::check(&mut link, &path.display().to_string()).await,
        Ok(Some(problem)) => Err(damaged(path, sqlx::Error::Protocol(problem))),
        Err(error) => Err(damaged(path, error)),
    };
    // Nothing can be lost by a connection that only reads.
    let _ = sqlx::Connection::close(link.connection).await;
    answer
}

async fn problem(link: &mut Link) -> Answer<Option<String>> {
    let answer: String = link.one(sql("PRAGMA quick_check(1)")).await?.try_get(0)?;
    Ok((answer != "ok").then_some(answer))
}

fn damaged(path: &Path, error: sqlx::Error) -> Error {
    let mapped = from_sqlx(OPERATION, error);
    if mapped.kind() == ErrorKind::Unavailable {
        return mapped;
    }
    let message = format!(
        "the database {} is damaged; restore a backup. Nothing was changed",
        path.display()
    );
    Error::new(ErrorKind::Corrupt, OPERATION, message).with_source(mapped)
}
