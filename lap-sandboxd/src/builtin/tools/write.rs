//! Writing a whole file.

use std::io::Write;

use serde::Deserialize;
use serde_json::json;

use super::ToolOutput;
use super::beneath::Beneath;

#[derive(Deserialize)]
pub(super) struct Input {
    #[serde(alias = "filePath", alias = "file_path")]
    path: String,
    content: String,
}

pub(super) fn run(workspace: &Beneath, input: Input) -> Result<ToolOutput, String> {
    let path = workspace.relative(&input.path)?;
    let mut file = workspace.file_to_write(&path)?;
    let written = file
        .set_len(0)
        .and_then(|()| file.write_all(input.content.as_bytes()));
    written.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    let bytes = input.content.len();
    let output = format!("wrote {bytes} bytes to {}", path.display());
    Ok(ToolOutput {
        title: path.display().to_string(),
        output,
        metadata: json!({"bytes": bytes}),
    })
}
