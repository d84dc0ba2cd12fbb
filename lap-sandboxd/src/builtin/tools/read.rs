//! Reading a text file.

use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;
use serde_json::json;

use super::beneath::Beneath;
use super::{MAX_OUTPUT, ToolOutput};

const DEFAULT_LINES: usize = 2000;
const MAX_LINE: u64 = 2000;

#[derive(Deserialize)]
pub(super) struct Input {
    #[serde(alias = "filePath", alias = "file_path")]
    path: String,
    offset: Option<usize>,
    limit: Option<usize>,
}

pub(super) fn run(workspace: &Beneath, input: Input) -> Result<ToolOutput, String> {
    let path = workspace.relative(&input.path)?;
    let file = workspace.file(&path)?;
    let broken = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let first = input.offset.unwrap_or(1).max(1);
    let last = first.saturating_add(input.limit.unwrap_or(DEFAULT_LINES));
    let mut reader = BufReader::new(file);
    let mut output = String::new();
    let mut number = 0;
    let mut more = false;
    while let Some(line) = next_line(&mut reader).map_err(broken)? {
        number += 1;
        if line.contains(&0) {
            return Err(format!("{} is not a text file", path.display()));
        }
        if number < first {
            continue;
        }
        let shown = format!("{number:>6}\t{}\n", String::from_utf8_lossy(&line));
        if number >= last || output.len() + shown.len() > MAX_OUTPUT - 100 {
            more = true;
            break;
        }
        output.push_str(&shown);
    }
    if more {
        output.push_str(&format!("[more lines follow; read on with offset {number}]\n"));
    } else if output.is_empty() {
        output = format!("[{} has {number} lines]\n", path.display());
    }
    Ok(ToolOutput {
        title: path.display().to_string(),
        output,
        metadata: json!({"truncated": more}),
    })
}

/// A line without its end, cut when it is very long.
fn next_line(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == MAX_LINE {
        skip_line(reader)?;
        line.extend_from_slice(b" [line cut]");
    }
    Ok(Some(line))
}

fn skip_line(reader: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let (length, ended) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(length);
        if ended {
            return Ok(());
        }
    }
}
