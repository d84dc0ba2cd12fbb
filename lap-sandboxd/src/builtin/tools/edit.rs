//! Replacing text in a file.

use std::io::{Read, Seek, SeekFrom, Write};

use serde::Deserialize;
use serde_json::json;

use super::ToolOutput;
use super::beneath::Beneath;

const MAX_FILE: u64 = 8 << 20;

#[derive(Deserialize)]
pub(super) struct Input {
    #[serde(alias = "filePath", alias = "file_path")]
    path: String,
    #[serde(alias = "oldString")]
    old_string: String,
    #[serde(alias = "newString")]
    new_string: String,
    #[serde(default, alias = "replaceAll")]
    replace_all: bool,
}

pub(super) fn run(workspace: &Beneath, input: Input) -> Result<ToolOutput, String> {
    let path = workspace.relative(&input.path)?;
    if input.old_string.is_empty() {
        return Err("old_string is empty; use write for a new file".to_owned());
    }
    if input.old_string == input.new_string {
        return Err("old_string and new_string are the same".to_owned());
    }
    let mut file = workspace.file_to_change(&path)?;
    let mut text = String::new();
    let read = Read::by_ref(&mut file)
        .take(MAX_FILE + 1)
        .read_to_string(&mut text);
    read.map_err(|error| format!("{} cannot be read as text: {error}", path.display()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("{} is too large to edit", path.display()));
    }
    let found = text.matches(&input.old_string).count();
    let changed = match found {
        0 => {
            return Err(format!(
                "old_string does not occur in {}; read the file again",
                path.display()
            ));
        }
        1 => text.replacen(&input.old_string, &input.new_string, 1),
        _ if input.replace_all => text.replace(&input.old_string, &input.new_string),
        many => {
            return Err(format!(
                "old_string occurs {many} times in {}; add lines around it or set replace_all",
                path.display()
            ));
        }
    };
    let written = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.write_all(changed.as_bytes()))
        .and_then(|()| file.set_len(changed.len() as u64));
    written.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    let output = format!("replaced {found} occurrence(s) in {}", path.display());
    Ok(ToolOutput {
        title: path.display().to_string(),
        output,
        metadata: json!({"replacements": found}),
    })
}
