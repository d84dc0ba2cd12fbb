//! Output of any length in bounded memory: its beginning and its end.

use std::collections::VecDeque;

/// Keeps the first and the last half of what goes through it.
#[derive(Debug)]
pub(super) struct Bounded {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Bounded {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            half: limit / 2,
            head: Vec::new(),
            tail: VecDeque::new(),
            dropped: 0,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = self.half - self.head.len();
        let (to_head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(to_head);
        let skipped = rest.len().saturating_sub(self.half);
        self.tail.extend(&rest[skipped..]);
        let over = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..over);
        self.dropped += (skipped + over) as u64;
    }

    /// The text, with a note where something is missing.
    pub(super) fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.dropped == 0 {
            let whole = [self.head.as_slice(), &tail].concat();
            return String::from_utf8_lossy(&whole).into_owned();
        }
        let (head, tail) = (
            String::from_utf8_lossy(&self.head),
            String::from_utf8_lossy(&tail),
        );
        format!("{head}\n[... {} bytes left out ...]\n{tail}", self.dropped)
    }

    /// The last bytes, for a view of work in progress.
    pub(super) fn recent(&self, limit: usize) -> String {
        let bytes: Vec<u8> = self.head.iter().chain(&self.tail).copied().collect();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(limit)..]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_slicing_keeps_both_ends() {
        let input: Vec<u8> = (0..1000u32).map(|n| b'a' + (n % 26) as u8).collect();
        for size in [1, 7, 64, 1000] {
            let mut bounded = Bounded::new(100);
            input.chunks(size).for_each(|slice| bounded.push(slice));
            let text = bounded.text();
            assert!(
                text.starts_with(std::str::from_utf8(&input[..50]).unwrap()),
                "slices of {size}"
            );
            assert!(
                text.ends_with(std::str::from_utf8(&input[950..]).unwrap()),
                "slices of {size}"
            );
            assert!(
                text.contains("[... 900 bytes left out ...]"),
                "slices of {size}: {text}"
            );
        }
        let mut short = Bounded::new(100);
        short.push(b"0123456789".repeat(10).as_slice());
        assert_eq!(short.text().len(), 100);
    }
}
