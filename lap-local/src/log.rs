//! What sandboxes print.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::OFlags;

use crate::files::open_file;

/// The file below `log/`.
pub(crate) const NAME: &str = "sandboxd.log";
const FOLDER: &str = "log";
/// Above this size the older part is dropped.
const LIMIT: u64 = 4 * 1024 * 1024;
/// How much is kept then, and the most that is ever read.
const KEPT: u64 = 1024 * 1024;

/// The file as standard output of a sandbox. A file, not a pipe: a pipe would break when the server dies.
pub(crate) fn open_for_append(folder: &Path) -> io::Result<File> {
    open_file(
        folder,
        &[FOLDER, NAME],
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE,
    )
}

/// The last lines, as text without control characters other than tab and line feed.
pub(crate) fn last_lines(folder: &Path, lines: usize, limit: u64) -> io::Result<String> {
    let mut file = open_file(folder, &[FOLDER, NAME], OFlags::RDONLY)?;
    let tail = read_tail(&mut file, limit.min(KEPT))?;
    let text = String::from_utf8_lossy(&tail);
    let text = text.trim_end_matches('\n');
    let start = text
        .rmatch_indices('\n')
        .nth(lines.saturating_sub(1))
        .map_or(0, |(at, _)| at + 1);
    let kept = if lines == 0 { "" } else { &text[start..] };
    Ok(kept
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect())
}

fn read_tail(file: &mut File, limit: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(limit)))?;
    let mut tail = Vec::new();
    file.take(limit).read_to_end(&mut tail)?;
    Ok(tail)
}

/// Keeps the file bounded. The sandbox writes at the end wherever that is, so it need not know. What it writes while
/// this runs may be lost.
pub(crate) fn trim(folder: &Path) -> io::Result<()> {
    let mut file = open_file(folder, &[FOLDER, NAME], OFlags::RDWR)?;
    if file.metadata()?.len() <= LIMIT {
        return Ok(());
    }
    let tail = read_tail(&mut file, KEPT)?;
    // Beginning in the middle of a line would show half a sentence first.
    let start = tail.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&tail[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(log: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
        open_for_append(folder.path()).unwrap().write_all(log).unwrap();
        folder
    }

    #[test]
    fn the_last_lines_are_bounded_both_ways() {
        let folder = folder_with(b"one\ntwo\x1b[31m\nthree\n");
        let last = |lines, limit| last_lines(folder.path(), lines, limit).unwrap();
        assert_eq!(last(2, 1000), "two[31m\nthree");
        assert_eq!(last(0, 1000), "");
        assert_eq!(last(9, 1000), "one\ntwo[31m\nthree");
        assert_eq!(last(9, 8), "m\nthree");
    }

    #[test]
    fn a_large_log_keeps_its_end_and_takes_more() {
        let line = format!("{}\n", "x".repeat(99));
        let folder = folder_with(line.repeat(60_000).as_bytes());
        let mut writer = open_for_append(folder.path()).unwrap();
        writer.write_all(b"the end\n").unwrap();
        trim(folder.path()).unwrap();
        writer.write_all(b"and more\n").unwrap();
        let size = writer.metadata().unwrap().len();
        assert!(size <= KEPT + 9, "{size}");
        assert_eq!(last_lines(folder.path(), 2, 1000).unwrap(), "the end\nand more");
    }
}
