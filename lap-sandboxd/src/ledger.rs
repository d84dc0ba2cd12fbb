//! Which turns this sandbox has ever seen, so that none runs twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lap_harness::turn::{TurnState, TurnStatus};
use uuid::Uuid;

/// A file with one line per change of a turn; the last line of a turn counts.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: File,
    turns: HashMap<Uuid, TurnStatus>,
}

impl Ledger {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let content = match std::fs::read_to_string(path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        // A crash can leave the last line unfinished; that change then never happened.
        let records = content
            .lines()
            .filter_map(|line| serde_json::from_str::<TurnStatus>(line).ok());
        let turns = records.map(|record| (record.turn, record)).collect();
        let mut file = File::options().create(true).append(true).mode(0o600).open(path)?;
        if !content.is_empty() && !content.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(Self { file, turns })
    }

    pub(crate) fn get(&self, turn: Uuid) -> Option<TurnStatus> {
        self.turns.get(&turn).copied()
    }

    /// Records a turn as it is now. An error leaves the ledger unchanged.
    pub(crate) fn put(&mut self, record: TurnStatus) -> io::Result<()> {
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.turns.insert(record.turn, record);
        Ok(())
    }

    /// Records the end of a turn. It counts in this life even when the file cannot be written.
    pub(crate) fn end(&mut self, record: TurnStatus) -> io::Result<()> {
        let written = self.put(record);
        self.turns.insert(record.turn, record);
        written
    }

    /// Turns an earlier life of sandboxd left running.
    pub(crate) fn running(&self) -> Vec<TurnStatus> {
        self.turns
            .values()
            .filter(|record| record.state == TurnState::Running)
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_of_a_turn_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("turns.jsonl");
        let record = |turn, state| TurnStatus {
            turn: Uuid::from_u128(turn),
            state,
            first_seq: 1,
            last_seq: 2,
        };
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.put(record(1, TurnState::Running)).unwrap();
        ledger.put(record(1, TurnState::Completed)).unwrap();
        ledger.put(record(2, TurnState::Running)).unwrap();
        drop(ledger);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"turn\":\"0000").unwrap();

        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(
            ledger.get(Uuid::from_u128(1)).unwrap().state,
            TurnState::Completed
        );
        assert_eq!(ledger.running(), [record(2, TurnState::Running)]);
        ledger.put(record(3, TurnState::Running)).unwrap();
        assert_eq!(Ledger::open(&path).unwrap().running().len(), 2);
    }
}
