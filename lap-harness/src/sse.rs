//! A parser of server-sent events that holds a bounded amount of memory.

use bytes::{Bytes, BytesMut};

/// One event: the fields that this protocol and model gateways use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event:` field.
    pub event: Option<String>,
    /// The `id:` field.
    pub id: Option<String>,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SseError {
    /// A line, or the data of one event, is longer than the limit.
    TooLong,
    /// The bytes are not UTF-8.
    NotUtf8,
}

impl std::fmt::Display for SseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooLong => "a line of the event stream is too long",
            Self::NotUtf8 => "the event stream is not UTF-8",
        })
    }
}

impl std::error::Error for SseError {}

/// Takes bytes in any slices, gives events. An unfinished event at the end of the stream is dropped, as the
/// standard asks.
#[derive(Debug)]
pub struct SseParser {
    buffer: BytesMut,
    /// How much of the buffer was searched for a line end already.
    searched: usize,
    limit: usize,
    pending: SseEvent,
    has_data: bool,
    after_cr: bool,
    started: bool,
}

impl SseParser {
    /// A parser that refuses lines, and data of one event, above `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            searched: 0,
            limit,
            pending: SseEvent::default(),
            has_data: false,
            after_cr: false,
            started: false,
        }
    }

    /// Adds what the network brought.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, if the bytes so far hold one.
    ///
    /// # Errors
    /// [`SseError`]; the stream cannot be read on afterwards.
    pub fn next_event(&mut self) -> Result<Option<SseEvent>, SseError> {
        while let Some(line) = self.next_line()? {
            let mut line = std::str::from_utf8(&line).map_err(|_| SseError::NotUtf8)?;
            if !self.started {
                self.started = true;
                line = line.strip_prefix('\u{feff}').unwrap_or(line);
            }
            if line.is_empty() {
                let event = std::mem::take(&mut self.pending);
                if std::mem::take(&mut self.has_data) {
                    return Ok(Some(event));
                }
                continue;
            }
            self.field(line)?;
        }
        if self.buffer.len() > self.limit {
            return Err(SseError::TooLong);
        }
        Ok(None)
    }

    fn field(&mut self, line: &str) -> Result<(), SseError> {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => {
                if self.has_data {
                    self.pending.data.push('\n');
                }
                self.has_data = true;
                self.pending.data.push_str(value);
                if self.pending.data.len() > self.limit {
                    return Err(SseError::TooLong);
                }
            }
            "event" => self.pending.event = Some(value.to_owned()),
            "id" if !value.contains('\0') => self.pending.id = Some(value.to_owned()),
            // Comments have an empty name; `retry` and unknown fields are ignored as the standard asks.
            _ => {}
        }
        Ok(())
    }

    /// A line without its end. Lines end with LF, CR or CRLF; the LF of a CRLF may come in a later slice.
    fn next_line(&mut self) -> Result<Option<Bytes>, SseError> {
        if self.after_cr && !self.buffer.is_empty() {
            self.after_cr = false;
            if self.buffer[0] == b'\n' {
                let _ = self.buffer.split_to(1);
            }
        }
        let end = self.buffer[self.searched..]
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = end.map(|at| at + self.searched) else {
            self.searched = self.buffer.len();
            return Ok(None);
        };
        self.searched = 0;
        if end > self.limit {
            return Err(SseError::TooLong);
        }
        let line = self.buffer.split_to(end).freeze();
        self.after_cr = self.buffer[0] == b'\r';
        let _ = self.buffer.split_to(1);
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(parser: &mut SseParser) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(event) = parser.next_event().unwrap() {
            found.push(event.data);
        }
        found
    }

    #[test]
    fn every_slicing_of_a_stream_gives_the_same_events() {
        let text = "\u{feff}: hello\r\ndata: {\"a\":1}\nid: 7\n\ndata:x\r\ndata: y\r\n\r\nevent: end\rdata: ü\r\rdata: cut";
        for size in 1..text.len() {
            let mut parser = SseParser::new(64);
            let mut events = Vec::new();
            for slice in text.as_bytes().chunks(size) {
                parser.push(slice);
                while let Some(event) = parser.next_event().unwrap() {
                    events.push(event);
                }
            }
            let data: Vec<_> = events.iter().map(|event| event.data.as_str()).collect();
            assert_eq!(data, ["{\"a\":1}", "x\ny", "ü"], "slices of {size}");
            assert_eq!(events[0].id.as_deref(), Some("7"));
            assert_eq!(events[2].event.as_deref(), Some("end"));
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused_at_the_limit() {
        let mut parser = SseParser::new(10);
        parser.push(b"data: 1234");
        assert_eq!(parser.next_event(), Ok(None));
        parser.push(b"5");
        assert_eq!(parser.next_event(), Err(SseError::TooLong));
    }

    #[test]
    fn many_short_data_lines_are_bounded_too() {
        let mut parser = SseParser::new(16);
        parser.push("data: 12345\n".repeat(10).as_bytes());
        assert_eq!(parser.next_event(), Err(SseError::TooLong));
    }

    #[test]
    fn events_without_data_are_not_events() {
        let mut parser = SseParser::new(64);
        parser.push(b"event: ping\n\n: c\n\ndata\n\n");
        assert_eq!(all(&mut parser), [""]);
    }

    #[test]
    fn bytes_that_are_not_text_are_refused() {
        let mut parser = SseParser::new(64);
        parser.push(b"data: \xff\n\n");
        assert_eq!(parser.next_event(), Err(SseError::NotUtf8));
    }
}
