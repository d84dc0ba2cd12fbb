//! The journal's files: one line per event, a new file when one is full.
//!
//! A line is the event's JSON, or, for a delta that continues the one before it, only the text it adds as a
//! JSON string. The sequence of a line is the number in its file's name plus the lines before it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lap_harness::journal::{JournalEvent, PART_DELTA, PartDelta};
use uuid::Uuid;

use super::Retention;

#[derive(Debug)]
struct Segment {
    first: u64,
    bytes: u64,
}

#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    retention: Retention,
    segments: VecDeque<Segment>,
    file: Option<File>,
    /// The delta that a short line would continue.
    previous: Option<(Uuid, PartDelta)>,
}

impl Disk {
    /// Opens the folder; also returns the next sequence.
    pub(super) fn open(folder: &Path, retention: Retention) -> io::Result<(Self, u64)> {
        fs::create_dir_all(folder)?;
        let mut segments = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let first = name
                .to_str()
                .and_then(|name| name.strip_suffix(".jsonl"))
                .and_then(|n| n.parse().ok());
            if let Some(first) = first {
                segments.push(Segment {
                    first,
                    bytes: entry.metadata()?.len(),
                });
            }
        }
        segments.sort_by_key(|segment| segment.first);
        let segments = VecDeque::from(segments);
        let mut disk = Self {
            folder: folder.to_owned(),
            retention,
            segments,
            file: None,
            previous: None,
        };
        let next = disk.continue_last()?;
        Ok((disk, next))
    }

    /// Cuts a line that a crash left unfinished and finds the next sequence.
    fn continue_last(&mut self) -> io::Result<u64> {
        let Some(first) = self.segments.back().map(|segment| segment.first) else {
            return Ok(1);
        };
        let path = self.path(first);
        let content = fs::read(&path)?;
        let whole = content
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        if whole < content.len() {
            File::options().write(true).open(&path)?.set_len(whole as u64)?;
        }
        let lines = content[..whole].iter().filter(|byte| **byte == b'\n').count() as u64;
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes = whole as u64;
        }
        self.file = Some(File::options().append(true).open(&path)?);
        Ok(first + lines)
    }

    /// The first sequence that is still here.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.segments.front().map(|segment| segment.first)
    }

    /// Makes sure there is a file that takes event `seq`.
    pub(super) fn begin_event(&mut self, seq: u64) -> io::Result<()> {
        let room = self
            .segments
            .back()
            .is_some_and(|last| last.bytes < self.retention.segment_bytes);
        if room && self.file.is_some() {
            return Ok(());
        }
        let mut options = File::options();
        let file = options
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.path(seq))?;
        self.file = Some(file);
        self.previous = None;
        self.segments.push_back(Segment { first: seq, bytes: 0 });
        while self.segments.len() > 1 && self.total_bytes() > self.retention.disk_bytes {
            if let Some(oldest) = self.segments.pop_front() {
                fs::remove_file(self.path(oldest.first))?;
            }
        }
        Ok(())
    }

    pub(super) fn write_event(&mut self, json: &str) -> io::Result<()> {
        self.previous = None;
        self.write_line(json)
    }

    pub(super) fn write_delta(&mut self, turn: Uuid, delta: &PartDelta, json: &str) -> io::Result<()> {
        let continues = self
            .previous
            .as_ref()
            .is_some_and(|(of, before)| *of == turn && follows(before, delta));
        if continues {
            let text = serde_json::to_string(&delta.delta)?;
            self.write_line(&text)?;
        } else {
            self.write_line(json)?;
        }
        self.previous = Some((turn, delta.clone()));
        Ok(())
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("no journal file is open"));
        };
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        let written = file.write_all(&bytes);
        if written.is_err() {
            // A torn line must stay the last one of its file, so the next event begins another.
            self.file = None;
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += bytes.len() as u64;
        }
        written
    }

    /// Events after `after` from the one file that holds the next, about `budget` bytes of them.
    pub(super) fn read_after(&self, after: u64, budget: usize) -> io::Result<Vec<JournalEvent>> {
        let holds = self
            .segments
            .iter()
            .rev()
            .find(|segment| segment.first <= after + 1);
        let Some(segment) = holds else {
            return Ok(Vec::new());
        };
        let content = fs::read_to_string(self.path(segment.first))?;
        let mut events = Vec::new();
        let mut previous: Option<JournalEvent> = None;
        let mut taken = 0;
        for (seq, line) in (segment.first..).zip(content.lines()) {
            let event = decode(seq, line, previous.as_ref())?;
            previous = Some(event.clone());
            if seq > after {
                taken += line.len() + 200;
                events.push(event);
            }
            if taken > budget {
                break;
            }
        }
        Ok(events)
    }

    fn total_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn path(&self, first: u64) -> PathBuf {
        self.folder.join(format!("{first:020}.jsonl"))
    }
}

fn follows(before: &PartDelta, delta: &PartDelta) -> bool {
    before.part_id == delta.part_id
        && before.field == delta.field
        && before.message_id == delta.message_id
        && before.session_id == delta.session_id
        && before.offset + before.delta.len() as u64 == delta.offset
}

fn decode(seq: u64, line: &str, previous: Option<&JournalEvent>) -> io::Result<JournalEvent> {
    if !line.starts_with('"') {
        let event: JournalEvent = serde_json::from_str(line)?;
        return if event.seq == seq {
            Ok(event)
        } else {
            Err(io::Error::other("a journal file misses events"))
        };
    }
    let text: String = serde_json::from_str(line)?;
    let previous = previous.filter(|event| event.kind == PART_DELTA);
    let Some(previous) = previous else {
        return Err(io::Error::other("a journal line continues nothing"));
    };
    let mut delta: PartDelta = serde_json::from_value(previous.properties.clone())?;
    delta.offset += delta.delta.len() as u64;
    delta.delta = text;
    let properties = serde_json::to_value(&delta)?;
    Ok(JournalEvent {
        seq,
        turn: previous.turn,
        kind: PART_DELTA.to_owned(),
        properties,
    })
}
