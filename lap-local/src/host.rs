//! The id of this machine.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lap_core::error::{Error, ErrorKind, Result};
use lap_core::id::{Entropy, HostId, fresh_uuid};
use lap_core::time::Clock;

use crate::failure::unavailable;

const OPERATION: &str = "read the host id";

/// The id kept in the data folder, made at the first call. Callers that race get the same one.
pub(crate) fn host_id(data: &Path, entropy: &dyn Entropy, clock: &dyn Clock) -> Result<HostId> {
    let path = data.join("host-id");
    let shown = path.display();
    if let Some(id) = read(&path)? {
        return Ok(id);
    }
    let fresh = fresh_uuid(entropy, clock.now());
    let draft = data.join(format!("host-id.{fresh}"));
    write_draft(&draft, &format!("{fresh}\n")).map_err(|error| unavailable(OPERATION, &shown, error))?;
    // Unlike a rename, a link never replaces: whoever comes second reads the first one's id.
    let linked = fs::hard_link(&draft, &path);
    fs::remove_file(&draft).map_err(|error| unavailable(OPERATION, &shown, error))?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(unavailable(OPERATION, &shown, error));
        }
        _ => {}
    }
    read(&path)?.ok_or_else(|| Error::new(ErrorKind::Unavailable, OPERATION, format!("{shown} vanished")))
}

fn read(path: &Path) -> Result<Option<HostId>> {
    let corrupt = || {
        let message = format!(
            "{} does not hold a UUID; restore it, or remove it to become a new host",
            path.display()
        );
        Error::new(ErrorKind::Corrupt, OPERATION, message)
    };
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| corrupt()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(corrupt()),
        Err(error) => Err(unavailable(OPERATION, path.display(), error)),
    }
}

fn write_draft(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    // An id that a power failure empties would make this machine's sandboxes nobody's.
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lap_core::id::SystemEntropy;
    use lap_core::time::SystemClock;

    #[test]
    fn callers_that_race_get_one_id() {
        let data = tempfile::tempdir().unwrap();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let racer = || scope.spawn(|| host_id(data.path(), &SystemEntropy::new(), &SystemClock).unwrap());
            let racers: Vec<_> = (0..8).map(|_| racer()).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(
            fs::read_dir(data.path()).unwrap().count(),
            1,
            "no drafts are left"
        );
    }

    #[test]
    fn a_damaged_file_is_told_and_kept() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("host-id"), "gibberish").unwrap();
        let error = host_id(data.path(), &SystemEntropy::new(), &SystemClock).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(
            fs::read_to_string(data.path().join("host-id")).unwrap(),
            "gibberish"
        );
    }
}
