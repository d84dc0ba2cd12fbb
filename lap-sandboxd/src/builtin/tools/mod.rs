//! What the agent can do.

mod bash;
mod beneath;
mod bounded;
mod edit;
mod list;
mod read;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::processes::Processes;
use beneath::Beneath;

/// The most a tool gives back to the model, in bytes.
pub(super) const MAX_OUTPUT: usize = 30_000;

/// What a tool gave.
#[derive(Debug)]
pub(super) struct ToolOutput {
    /// For people, one line.
    pub(super) title: String,
    /// For the model.
    pub(super) output: String,
    /// For programs.
    pub(super) metadata: Value,
}

/// Shows how a call goes on: output so far.
pub(super) type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The tools of one turn.
#[derive(Debug, Clone)]
pub(super) struct Toolbox {
    workspace: Arc<Beneath>,
    processes: Arc<Processes>,
    environment: Arc<BTreeMap<String, String>>,
}

impl Toolbox {
    pub(super) fn new(
        workspace: &Path,
        processes: Arc<Processes>,
        environment: BTreeMap<String, String>,
    ) -> std::io::Result<Self> {
        let workspace = Arc::new(Beneath::open(workspace)?);
        Ok(Self {
            workspace,
            processes,
            environment: Arc::new(environment),
        })
    }

    /// Whether calls of this tool change nothing, so that several can run at once.
    pub(super) fn only_reads(name: &str) -> bool {
        matches!(name, "read" | "list")
    }

    /// Runs one call. Dropping the future kills what it started.
    ///
    /// # Errors
    /// What to tell the model.
    pub(super) async fn call(
        &self,
        name: &str,
        call: &str,
        input: &Value,
        progress: Progress<'_>,
    ) -> Result<ToolOutput, String> {
        match name {
            "bash" => bash::run(self, call, parse(input)?, progress).await,
            "read" => self.on_files(parse(input)?, read::run).await,
            "write" => self.on_files(parse(input)?, write::run).await,
            "edit" => self.on_files(parse(input)?, edit::run).await,
            "list" => self.on_files(parse(input)?, list::run).await,
            other => Err(format!(
                "there is no tool named {other:?}; there are bash, read, write, edit, list"
            )),
        }
    }

    /// Files are touched on a thread for blocking work: a slow disk must not stop the events.
    async fn on_files<I: Send + 'static>(
        &self,
        input: I,
        run: fn(&Beneath, I) -> Result<ToolOutput, String>,
    ) -> Result<ToolOutput, String> {
        let workspace = Arc::clone(&self.workspace);
        let done = tokio::task::spawn_blocking(move || run(&workspace, input)).await;
        done.unwrap_or_else(|_| Err("the tool broke".to_owned()))
    }
}

fn parse<I: DeserializeOwned>(input: &Value) -> Result<I, String> {
    serde_json::from_value(input.clone()).map_err(|error| format!("the arguments are wrong: {error}"))
}

/// The tools as the model is told of them.
pub(super) fn specifications() -> Value {
    let tool = |name: &str, description: &str, properties: Value, required: Value| {
        json!({"type": "function", "function": {"name": name, "description": description, "parameters":
            {"type": "object", "properties": properties, "required": required, "additionalProperties": false}}})
    };
    let path = json!({"type": "string", "description": "Path of the file, relative to the workspace"});
    json!([
        tool(
            "bash",
            "Runs a command with bash in the workspace and returns its output and exit code. Every call is a new shell. \
             Long output is cut in the middle. Start servers in the background with their output sent to a file.",
            json!({
                "command": {"type": "string", "description": "The command line"},
                "timeout_ms": {"type": "integer", "description": "Kill it after this long; default 120000, at most 600000"},
                "description": {"type": "string", "description": "What it does, in 5 to 10 words"}
            }),
            json!(["command"])
        ),
        tool(
            "read",
            "Reads a text file with line numbers.",
            json!({
                "path": path,
                "offset": {"type": "integer", "description": "First line, from 1"},
                "limit": {"type": "integer", "description": "How many lines; default 2000"}
            }),
            json!(["path"])
        ),
        tool(
            "write",
            "Writes a whole file. Makes missing folders, replaces what was there.",
            json!({"path": path, "content": {"type": "string"}}),
            json!(["path", "content"])
        ),
        tool(
            "edit",
            "Replaces text in a file. The old text must match exactly, white space included, and occur once unless \
             replace_all is set.",
            json!({
                "path": path,
                "old_string": {"type": "string"},
                "new_string": {"type": "string"},
                "replace_all": {"type": "boolean"}
            }),
            json!(["path", "old_string", "new_string"])
        ),
        tool(
            "list",
            "Lists a folder. Folders end with a slash.",
            json!({"path": {"type": "string", "description": "Path of the folder; default: the workspace"}}),
            json!([])
        ),
    ])
}

#[cfg(test)]
mod tests;
