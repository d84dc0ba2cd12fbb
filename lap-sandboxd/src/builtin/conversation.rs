//! The conversation, in memory and in a file that a restart reads.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use serde_json::Value;

use super::message::Message;
use crate::layout::replace_file;
use crate::locked;

/// A file with one line per version of a message; the last version counts.
#[derive(Debug)]
pub(super) struct Conversation {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    messages: Vec<Message>,
    file: File,
}

impl Conversation {
    /// Reads what an earlier life wrote. A message it left unfinished is closed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut messages = Vec::new();
        match std::fs::read_to_string(path) {
            Ok(content) => {
                for message in content.lines().filter_map(|line| serde_json::from_str(line).ok()) {
                    put(&mut messages, message);
                }
                messages
                    .iter_mut()
                    .for_each(|message| message.close_interrupted("interrupted"));
                replace_file(path, &lines(&messages)?)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = File::options().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self {
            inner: Mutex::new(Inner { messages, file }),
        })
    }

    /// Adds the message, or replaces its earlier version.
    pub(super) fn put(&self, message: &Message) {
        let mut inner = locked(&self.inner);
        let written = lines(std::slice::from_ref(message)).and_then(|line| inner.file.write_all(&line));
        if let Err(error) = written {
            // The turn goes on; only a restart would miss the message.
            tracing::error!(%error, "the conversation cannot be written");
        }
        put(&mut inner.messages, message.clone());
    }

    /// Takes messages of another sandbox when there are none of its own.
    pub(super) fn import(&self, history: &[Value], conversation: &str) {
        if !locked(&self.inner).messages.is_empty() {
            return;
        }
        for mut message in history.iter().filter_map(Message::lenient) {
            message.info.session_id = conversation.to_owned();
            message.close_interrupted("interrupted");
            self.put(&message);
        }
    }

    /// Looks at the messages without copying them.
    pub(super) fn read<T>(&self, look: impl FnOnce(&[Message]) -> T) -> T {
        look(&locked(&self.inner).messages)
    }
}

fn put(messages: &mut Vec<Message>, message: Message) {
    // What changes is nearly always the last one.
    match messages
        .iter_mut()
        .rev()
        .find(|known| known.info.id == message.info.id)
    {
        Some(known) => *known = message,
        None => messages.push(message),
    }
}

fn lines(messages: &[Message]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for message in messages {
        serde_json::to_writer(&mut bytes, message)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}
