//! The table of processes, as far as this user may see it.

use std::fs;
use std::io;

use super::identity::Identity;

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) identity: Identity,
    pub(super) parent: u32,
    pub(super) group: u32,
    pub(super) session: u32,
    /// It has ended and waits for its parent to take notice.
    pub(super) is_over: bool,
    /// Pages of memory it has at hand, shared ones included.
    pub(super) resident_pages: u64,
}

impl Row {
    /// The line of this number, or nothing when there is no such process.
    pub(super) fn read(pid: u32) -> io::Result<Option<Self>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => Ok(Self::parse(pid, &stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // A process that ends between opening and reading answers "no such process".
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(pid: u32, stat: &[u8]) -> Option<Self> {
        // The second field is the program's name in parentheses and may contain anything, parentheses included.
        let rest = stat.rsplit(|byte| *byte == b')').next()?;
        let rest = std::str::from_utf8(rest).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u32>().ok());
        Some(Self {
            identity: Identity {
                pid,
                started: fields.get(22 - 3)?.parse().ok()?,
            },
            parent: number(4)?,
            group: number(5)?,
            session: number(6)?,
            is_over: matches!(*fields.first()?, "Z" | "X" | "x"),
            resident_pages: number(24).map_or(0, u64::from),
        })
    }
}

/// The group of this process's parent, if that is in the same session.
pub(crate) fn parent_group() -> io::Result<Option<u32>> {
    let Some(own) = Row::read(std::process::id())? else {
        return Ok(None);
    };
    let parent = Row::read(own.parent)?;
    Ok(parent
        .filter(|parent| parent.session == own.session && parent.group != 0)
        .map(|parent| parent.group))
}

/// Every process there is. Those that end while the table is read may be missing.
pub(super) fn rows() -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        rows.extend(Row::read(pid)?);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_cannot_forge_fields() {
        let stat = b"42 (a) Z 1 1 1 (b) S 7 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0";
        let row = Row::parse(42, stat).unwrap();
        assert_eq!(
            (row.parent, row.group, row.session, row.identity.started),
            (7, 8, 9, 12345)
        );
        assert!(!row.is_over);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = std::process::id();
        assert!(
            rows()
                .unwrap()
                .iter()
                .any(|row| row.identity.pid == own && !row.is_over)
        );
    }
}
