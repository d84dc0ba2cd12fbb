//! What outlives a sandbox, on the wire.
//!
//! `GET /lap/snapshot?limit_bytes=N` answers with one line of JSON ([`SnapshotHead`]) and then the archive, which only
//! sandboxd reads. `POST /lap/restore?fence=N` takes the archive as its body and answers [`Restored`].

use serde::{Deserialize, Serialize};

/// What precedes the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// What is not in the archive, in words.
    #[serde(default)]
    pub lost: Vec<String>,
}

/// The answer of `POST /lap/restore`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// What could not be restored, in words.
    #[serde(default)]
    pub lost: Vec<String>,
}

/// The longest head, in bytes: a full list of the longest entries, every character escaped.
pub const MAX_HEAD_BYTES: usize = 256 * 1024;
/// The most entries of a list of what was lost; the last one then tells how many more there are.
pub const MAX_LOST: usize = 50;
const MAX_LOST_CHARS: usize = 300;

/// The list with no more and no longer entries than the protocol allows.
pub fn bounded(mut lost: Vec<String>) -> Vec<String> {
    if lost.len() > MAX_LOST {
        let more = lost.len() - (MAX_LOST - 1);
        lost.truncate(MAX_LOST - 1);
        lost.push(format!("and {more} more"));
    }
    for entry in &mut lost {
        if let Some((end, _)) = entry.char_indices().nth(MAX_LOST_CHARS) {
            entry.truncate(end);
            entry.push('…');
        }
    }
    lost
}

/// Puts the head before the archive.
///
/// # Errors
/// Never for a list of strings; the signature leaves it to the caller.
pub fn join(lost: Vec<String>, archive: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(&SnapshotHead { lost: bounded(lost) })?;
    bytes.push(b'\n');
    bytes.extend_from_slice(archive);
    Ok(bytes)
}

/// Takes the head off; `None` when there is none or it is too long.
pub fn split(answer: &[u8]) -> Option<(SnapshotHead, &[u8])> {
    let searched = &answer[..answer.len().min(MAX_HEAD_BYTES)];
    let end = searched.iter().position(|byte| *byte == b'\n')?;
    let head: SnapshotHead = serde_json::from_slice(&answer[..end]).ok()?;
    let head = SnapshotHead {
        lost: bounded(head.lost),
    };
    Some((head, &answer[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_archive_come_apart_again() {
        let lost = vec!["a\nfile".to_owned()];
        let joined = join(lost.clone(), b"\n\x1f\x8b\n").unwrap();
        assert_eq!(
            split(&joined),
            Some((SnapshotHead { lost }, b"\n\x1f\x8b\n".as_slice()))
        );
        assert_eq!(split(b"no head"), None);
        assert_eq!(split(b"{}}\nx"), None);
        assert_eq!(split(&vec![b' '; 2 * MAX_HEAD_BYTES]), None);
    }

    #[test]
    fn lists_are_bounded_and_the_longest_head_fits() {
        let lost = bounded(vec!["\u{1}".repeat(1000); 500]);
        assert_eq!(lost.len(), MAX_LOST);
        assert_eq!(lost[MAX_LOST - 1], "and 451 more");
        assert!(join(lost, b"").unwrap().len() < MAX_HEAD_BYTES);
    }
}
