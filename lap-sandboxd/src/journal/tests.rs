use std::path::Path;

use super::*;
use lap_harness::sse::SseParser;
use serde_json::json;

fn small() -> Retention {
    Retention {
        segment_bytes: 2000,
        disk_bytes: 8000,
        memory_events: 8,
        memory_bytes: 1 << 20,
    }
}

fn delta(part: &str, text: &str, offset: u64) -> PartDelta {
    PartDelta {
        session_id: "ses".to_owned(),
        message_id: "msg".to_owned(),
        part_id: part.to_owned(),
        field: "text".to_owned(),
        delta: text.to_owned(),
        offset,
    }
}

fn read_all(journal: &Journal, mut after: u64) -> Vec<JournalEvent> {
    let mut events = Vec::new();
    while let Batch::Frames { frames, last } = journal.read(after, None) {
        let mut parser = SseParser::new(1 << 20);
        parser.push(&frames);
        while let Some(event) = parser.next_event().unwrap() {
            events.push(serde_json::from_str(&event.data).unwrap());
        }
        after = last;
    }
    events
}

fn fill(journal: &Journal, turn: Uuid, rounds: usize) {
    for round in 0..rounds {
        journal.append(Some(turn), "message.updated", json!({"round": round}));
        let mut offset = 0;
        for text in ["a", "\"b\n", "ü"] {
            journal.append_delta(turn, &delta(&format!("part{round}"), text, offset));
            offset += text.len() as u64;
        }
    }
}

fn bytes_of(folder: &Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

#[test]
fn every_event_comes_back_the_same_from_memory_and_disk() {
    let folder = tempfile::tempdir().unwrap();
    let turn = Uuid::from_u128(7);
    let memory = Journal::open(&folder.path().join("a"), Retention::default()).unwrap();
    let disk = Journal::open(
        &folder.path().join("b"),
        Retention {
            memory_events: 1,
            ..Retention::default()
        },
    )
    .unwrap();
    for journal in [&memory, &disk] {
        fill(journal, turn, 20);
    }
    let expected = read_all(&memory, 0);
    assert_eq!(expected.len(), 80);
    assert_eq!(read_all(&disk, 0), expected);
    for (index, event) in expected.iter().enumerate() {
        assert_eq!(event.seq, index as u64 + 1);
        assert_eq!(read_all(&disk, event.seq), expected[index + 1..]);
    }
    let continued = &expected[2];
    assert_eq!(continued.properties["offset"], 1);
    assert_eq!(continued.properties["delta"], "\"b\n");
    let lines = std::fs::read_to_string(folder.path().join("b/00000000000000000001.jsonl")).unwrap();
    assert_eq!(lines.lines().filter(|line| line.starts_with('"')).count(), 40);
}

#[test]
fn a_restart_goes_on_after_a_torn_line() {
    let folder = tempfile::tempdir().unwrap();
    let turn = Uuid::from_u128(7);
    let journal = Journal::open(folder.path(), Retention::default()).unwrap();
    fill(&journal, turn, 2);
    let before = read_all(&journal, 0);
    drop(journal);
    let file = folder.path().join("00000000000000000001.jsonl");
    let mut content = std::fs::read(&file).unwrap();
    content.extend_from_slice(b"{\"seq\":9,\"tur");
    std::fs::write(&file, content).unwrap();

    let journal = Journal::open(folder.path(), Retention::default()).unwrap();
    assert_eq!(journal.head(), 8);
    assert_eq!(journal.append_delta(turn, &delta("part1", "x", 4)), 9);
    let after = read_all(&journal, 0);
    assert_eq!(after[..8], before);
    assert_eq!(after[8].properties["offset"], 4);
}

#[test]
fn retention_bounds_the_disk_and_tells_a_late_reader() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), small()).unwrap();
    fill(&journal, Uuid::from_u128(7), 200);
    assert!(
        bytes_of(folder.path()) <= 8000 + 2 * 2000,
        "{}",
        bytes_of(folder.path())
    );
    let events = read_all(&journal, 3);
    assert_eq!(events[0].kind, "journal.reset");
    let oldest = events[0].properties["oldest"].as_u64().unwrap();
    assert!(oldest > 4);
    assert_eq!(events[0].seq, oldest - 1);
    assert_eq!(events[1].seq, oldest);
    assert_eq!(events.last().unwrap().seq, 800);
    assert!(events.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
}

#[test]
fn a_reader_from_another_life_is_told_too() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), small()).unwrap();
    journal.append(None, "a", Value::Null);
    assert_eq!(read_all(&journal, 900)[0].kind, "journal.reset");
}

#[test]
fn a_huge_event_keeps_its_place_and_its_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), Retention::default()).unwrap();
    let text = "x".repeat(2 << 20);
    journal.append(
        None,
        "turn.finished",
        json!({"outcome": "completed", "reply": {"parts": [text]}}),
    );
    journal.append(None, "message.part.updated", json!({"part": {"text": text}}));
    let events = read_all(&journal, 0);
    assert_eq!(
        events[0].properties,
        json!({"outcome": "completed", "reply": null})
    );
    assert_eq!(events[1].properties, json!({"truncated": true}));
}
