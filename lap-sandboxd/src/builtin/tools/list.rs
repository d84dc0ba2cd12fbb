//! Listing a folder.

use rustix::fs::{Dir, FileType};
use serde::Deserialize;
use serde_json::json;

use super::beneath::Beneath;
use super::{MAX_OUTPUT, ToolOutput};

/// Reading stops here: nobody reads more, and a folder can be made to hold millions.
const MAX_ENTRIES: usize = 10_000;

#[derive(Deserialize)]
pub(super) struct Input {
    #[serde(default)]
    path: String,
}

pub(super) fn run(workspace: &Beneath, input: Input) -> Result<ToolOutput, String> {
    let path = workspace.relative(&input.path)?;
    let folder = workspace.folder(&path)?;
    let broken = |error| format!("{} cannot be listed: {error}", path.display());
    let mut names = Vec::new();
    for entry in Dir::new(folder).map_err(broken)?.take(MAX_ENTRIES) {
        let entry = entry.map_err(broken)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match (name.as_str(), entry.file_type()) {
            ("." | "..", _) => {}
            (_, FileType::Directory) => names.push(format!("{name}/")),
            (_, FileType::Symlink) => names.push(format!("{name}@")),
            _ => names.push(name),
        }
    }
    names.sort();
    let total = names.len();
    let mut output = String::new();
    for (shown, name) in names.iter().enumerate() {
        if output.len() + name.len() > MAX_OUTPUT - 100 {
            output.push_str(&format!("[{} more]\n", total - shown));
            break;
        }
        output.push_str(name);
        output.push('\n');
    }
    if total == 0 {
        output.push_str("(empty)\n");
    }
    Ok(ToolOutput {
        title: path.display().to_string(),
        output,
        metadata: json!({"entries": total}),
    })
}
