//! The form of a snapshot: a tar archive in which every entry is a gzip member of its own, so that its size is known
//! before it is taken in.
//!
//! Reading trusts nothing: the sizes after decompression, the number of entries, their kinds and their paths are all
//! bounded or checked, whoever wrote the archive.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use tar::EntryType;

/// All entries together, after decompression.
pub(super) const MAX_UNPACKED_BYTES: u64 = 256 << 20;
/// How many files a snapshot has at most.
pub(super) const MAX_ENTRIES: usize = 20_000;
const MAX_PATH_BYTES: u64 = 4096;
/// What a header and the end of an archive cost at most, after decompression.
const OVERHEAD: u64 = 4096;

/// What an entry holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    /// A file with its permissions.
    File(u32, &'a [u8]),
    /// A symlink with its target.
    Link(&'a Path),
}

/// Collects entries as long as there is room.
#[derive(Debug)]
pub(super) struct Packer {
    bytes: Vec<u8>,
    limit: usize,
    unpacked: u64,
    entries: usize,
}

impl Packer {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
            unpacked: 0,
            entries: 0,
        }
    }

    /// Allows some more room for what must be there.
    pub(super) const fn extend_limit(&mut self, by: usize) {
        self.limit = self.limit.saturating_add(by);
    }

    /// False when there is no room for the entry; the archive is then as it was.
    pub(super) fn add(&mut self, path: &Path, content: Content<'_>) -> io::Result<bool> {
        let size = match content {
            Content::File(_, bytes) => bytes.len() as u64,
            Content::Link(_) => 0,
        };
        let unpacked = self.unpacked + size + OVERHEAD;
        if unpacked > MAX_UNPACKED_BYTES || self.entries >= MAX_ENTRIES {
            return Ok(false);
        }
        let mut room = Room {
            bytes: Vec::new(),
            limit: self.limit.saturating_sub(self.bytes.len()),
            full: false,
        };
        match write_member(&mut room, path, content) {
            _ if room.full => Ok(false),
            Err(error) => Err(error),
            Ok(()) => {
                self.bytes.append(&mut room.bytes);
                self.unpacked = unpacked;
                self.entries += 1;
                Ok(true)
            }
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn write_member(room: &mut Room, path: &Path, content: Content<'_>) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    let mut builder = tar::Builder::new(GzEncoder::new(room, Compression::fast()));
    match content {
        Content::File(mode, bytes) => {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(mode & 0o777);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, bytes)?;
        }
        Content::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            builder.append_link(&mut header, path, target)?;
        }
    }
    builder.into_inner()?.finish()?;
    Ok(())
}

/// A buffer that takes no more than its limit.
struct Room {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Write for &mut Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            self.full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One entry of an archive.
pub(super) enum Found<'a> {
    /// A file with its permissions, its size and its content.
    File(u32, u64, &'a mut dyn Read),
    /// A symlink with its target.
    Link(PathBuf),
}

/// Why an archive is refused.
pub(super) type Invalid = String;

/// Gives every entry to `each`, in order. Nothing is to be believed before the end was reached. `limit` is for all
/// entries together, after decompression.
pub(super) fn unpack(
    archive: &[u8],
    limit: u64,
    mut each: impl FnMut(&Path, Found<'_>) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    let metered = Metered {
        inner: MultiGzDecoder::new(archive),
        left: limit,
    };
    let mut archive = tar::Archive::new(metered);
    // Every member ends with the zeros that end an archive.
    archive.set_ignore_zeros(true);
    let broken = |error: io::Error| format!("the snapshot is damaged: {error}");
    let mut long = Long::default();
    let mut seen = HashSet::new();
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let (kind, size) = (entry.header().entry_type(), entry.size());
        match kind {
            EntryType::GNULongName => long.path = Some(long_path(&mut entry, size)?),
            EntryType::GNULongLink => long.target = Some(long_path(&mut entry, size)?),
            EntryType::Regular | EntryType::Symlink => {
                let path = long.path.take();
                let path = path.unwrap_or_else(|| to_path(&entry.header().path_bytes()));
                check_path(&path)?;
                if seen.len() >= MAX_ENTRIES || !seen.insert(path.clone()) {
                    return Err("the snapshot has too many entries or one twice".to_owned());
                }
                let target = long.target.take();
                if kind == EntryType::Symlink {
                    let target =
                        target.or_else(|| entry.header().link_name_bytes().map(|name| to_path(&name)));
                    each(&path, Found::Link(check_target(target)?))?;
                } else {
                    let mode = entry.header().mode().map_err(broken)? & 0o777;
                    each(&path, Found::File(mode, size, &mut entry))?;
                }
            }
            other => {
                return Err(format!(
                    "the snapshot has an entry of the kind {:?}",
                    other.as_byte()
                ));
            }
        }
    }
    Ok(())
}

/// Names that do not fit a header come in entries before it.
#[derive(Default)]
struct Long {
    path: Option<PathBuf>,
    target: Option<PathBuf>,
}

fn long_path(entry: &mut impl Read, size: u64) -> Result<PathBuf, Invalid> {
    if size > MAX_PATH_BYTES + 1 {
        return Err("the snapshot has a path that is too long".to_owned());
    }
    let mut bytes = Vec::new();
    let read = entry.take(MAX_PATH_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("the snapshot is damaged: {error}"))?;
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(to_path(&bytes))
}

fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// A path that stays below its folder and touches no repository's inside.
fn check_path(path: &Path) -> Result<(), Invalid> {
    let bytes = path.as_os_str().as_bytes();
    let plain = !bytes.is_empty()
        && bytes.len() as u64 <= MAX_PATH_BYTES
        && !bytes.contains(&0)
        // `components` would hide them.
        && bytes.split(|byte| *byte == b'/').all(|name| !name.is_empty() && name != b".")
        && path.components().all(|part| match part {
            Component::Normal(name) => name.len() <= 255 && !name.eq_ignore_ascii_case(".git"),
            _ => false,
        });
    if plain {
        Ok(())
    } else {
        Err(format!(
            "the snapshot has the path {path:?}, which is not allowed"
        ))
    }
}

fn check_target(target: Option<PathBuf>) -> Result<PathBuf, Invalid> {
    target
        .filter(|target| {
            let bytes = target.as_os_str().as_bytes();
            !bytes.is_empty() && bytes.len() as u64 <= MAX_PATH_BYTES && !bytes.contains(&0)
        })
        .ok_or_else(|| "the snapshot has a symlink without a valid target".to_owned())
}

/// Fails instead of giving more than it may: an end would look like the archive's own.
struct Metered<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("it is too large when unpacked"))?;
        Ok(count)
    }
}
