//! Can the database be used?

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use lap_core::error::chain;
use lap_core::secret::Secret;
use lap_store_postgres::{PostgresOptions, PostgresStore};
use rustix::fs::{Access, access};

use super::folder::nearest_existing;
use super::{Finding, bytes};

/// How every SQLite file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

pub(super) fn look(file: &Path) -> Vec<Finding> {
    let shown = file.display();
    let content = File::open(file).and_then(|mut file| {
        let mut head = Vec::new();
        file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut head)?;
        Ok((head, file.metadata()?.len()))
    });
    vec![match content {
        Ok((head, _)) if !head.is_empty() && head != MAGIC => {
            Finding::bad("database", format!("{shown} is not a SQLite database"))
                .advise("name another file in DATABASE_URL")
        }
        Ok(_) if access(file, Access::WRITE_OK).is_err() => {
            Finding::bad("database", format!("{shown} is not writable"))
                .advise("give this user the right to write it")
        }
        Ok((_, size)) => Finding::good("database", format!("{shown}, {}", bytes(size))),
        Err(error) if error.kind() == ErrorKind::NotFound => missing(file),
        Err(error) => Finding::bad("database", format!("{shown} cannot be read: {error}")),
    }]
}

/// Changes nothing.
pub(super) async fn ask(address: &Secret) -> Finding {
    match PostgresStore::look(&PostgresOptions::new(address.clone())).await {
        Ok(seen) => Finding::good("database", seen.to_string()),
        Err(error) => Finding::bad("database", chain(&error)).advise("see DATABASE_URL in lap-server --help"),
    }
}

fn missing(file: &Path) -> Finding {
    let shown = file.display();
    let folder = file.parent().and_then(nearest_existing);
    match folder {
        Some(folder) if folder.is_dir() && access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok() => {
            Finding::good("database", format!("{shown} will be made"))
        }
        _ => Finding::bad(
            "database",
            format!("{shown} cannot be made: its folder is not writable"),
        )
        .advise("name another file in DATABASE_URL"),
    }
}
