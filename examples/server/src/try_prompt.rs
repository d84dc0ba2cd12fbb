//! `try`: one prompt in a fresh session, everything in a folder that goes away afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::StreamExt as _;
use lap_core::caller::Caller;
use lap_core::engine::{AgentDefinition, CreateAgent, OpenSession, StreamItem};
use lap_core::error::{Result, chain};
use lap_core::event::Event;
use lap_core::id::SessionId;
use lap_core::runtime::Endpoint;
use serde_json::{Value, json};

use crate::assemble::{Assembled, assemble};
use crate::command::{EXIT_CONFIGURATION, Try, print};
use crate::config::{Config, Database};
use crate::logging;

/// How long the removal of the sandbox may take before the folder is removed under it.
const REMOVAL: Duration = Duration::from_secs(15);
const DEMO_MODEL: &str = crate::demo_model::MODEL;

/// Runs the prompt and prints what the agent does. Success when the turn completed.
pub(crate) async fn run(mut config: Config, what: Try) -> ExitCode {
    if what.prompt.trim().is_empty() {
        print::error("lap-server: the prompt is empty; say what the agent shall do");
        return ExitCode::from(EXIT_CONFIGURATION);
    }
    if config.log.filter == "info" {
        // The person wants to see the agent, not the platform.
        "error".clone_into(&mut config.log.filter);
    }
    logging::start(&config.log);
    let folder = std::env::temp_dir().join(format!("lap-try-{}", std::process::id()));
    config.data_dir.clone_from(&folder);
    config.database = Database::Sqlite(folder.join("lap.db"));
    let outcome = in_folder(&config, what).await;
    if let Err(error) = std::fs::remove_dir_all(&folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        print::error(format!(
            "lap-server: {} could not be removed: {error}",
            folder.display()
        ));
    }
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            print::error(format!("lap-server: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn in_folder(config: &Config, what: Try) -> Result<bool> {
    let platform = assemble(config).await?;
    let keep = what.keep.then(|| kept_folder(config));
    let interrupted = async {
        // Without a handler the signal ends the process at once, which is what is wanted then.
        let _ = tokio::signal::ctrl_c().await;
    };
    let outcome = tokio::select! {
        outcome = one_turn(&platform, config, what, keep) => outcome,
        () = interrupted => {
            print::error("lap-server: interrupted");
            Ok(false)
        }
    };
    end(&platform).await;
    outcome
}

async fn one_turn(platform: &Assembled, config: &Config, what: Try, keep: Option<PathBuf>) -> Result<bool> {
    let (engine, caller) = (&platform.engine, Caller::default());
    let definition = AgentDefinition {
        name: Some("try".to_owned()),
        model: what.model.unwrap_or_else(|| DEMO_MODEL.to_owned()),
        repo_url: what.repo,
        ..AgentDefinition::default()
    };
    let agent = engine
        .create_agent(
            &caller,
            CreateAgent {
                definition,
                idempotency_key: None,
            },
        )
        .await?;
    let prompt = Some(vec![json!({ "type": "text", "text": what.prompt })]);
    let session = engine
        .open_session(
            &caller,
            OpenSession {
                prompt,
                ..OpenSession::with(agent.id)
            },
        )
        .await?;
    let completed = show(platform, session.id).await?;
    if let Some(target) = keep {
        keep_workspace(platform, config, session.id, &target).await?;
    }
    Ok(completed)
}

/// Prints the stream until the turn has ended. Progress goes to standard error, the answer to standard output.
async fn show(platform: &Assembled, session: SessionId) -> Result<bool> {
    let mut stream = platform.engine.stream(session, Some(0)).await?;
    let mut tools = BTreeMap::new();
    while let Some(item) = stream.next().await {
        match item? {
            StreamItem::Live { kind, properties, .. } => show_harness(&kind, &properties, &mut tools),
            StreamItem::Event(event) => match event.kind.as_str() {
                "turn.finished" => return Ok(show_end(&event)),
                "session.failed" | "session.ended" => {
                    print::error(format!(
                        "\nlap-server: the session ended: {}",
                        text(&event.body, "reason")
                    ));
                    return Ok(false);
                }
                "session.phase" => {
                    let (phase, detail) = (text(&event.body, "phase"), text(&event.body, "detail"));
                    print::error(format!("· {phase} {detail}"));
                }
                kind => show_harness(kind, &event.body, &mut tools),
            },
            StreamItem::Passed { .. } | StreamItem::Reset { .. } | StreamItem::Draining { .. } => {}
        }
    }
    Ok(false)
}

fn show_harness(kind: &str, properties: &Value, tools: &mut BTreeMap<String, String>) {
    match kind {
        "message.part.delta" => print::text(text(properties, "delta")),
        "message.part.updated" => {
            let part = &properties["part"];
            let (id, status) = (text(part, "id"), text(&part["state"], "status"));
            if part["type"] != "tool"
                || tools
                    .insert(id, status.clone())
                    .is_some_and(|before| before == status)
            {
                return;
            }
            match status.as_str() {
                "running" => print::error(format!("\n▸ {} {}", text(part, "tool"), part["state"]["input"])),
                "completed" => print::error(indent(&text(&part["state"], "output"))),
                "error" => print::error(indent(&text(&part["state"], "error"))),
                _ => {}
            }
        }
        _ => {}
    }
}

fn show_end(event: &Event) -> bool {
    print::line("");
    let outcome = text(&event.body, "outcome");
    if outcome != "completed" {
        let what = match outcome.as_str() {
            "aborted" => "was stopped",
            "unknown" => "has no known outcome",
            _ => "failed",
        };
        print::error(format!(
            "lap-server: the turn {what}: {}",
            text(&event.body, "failure")
        ));
    }
    outcome == "completed"
}

fn text(value: &Value, name: &str) -> String {
    value
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn indent(output: &str) -> String {
    const SHOWN: usize = 12;
    let mut lines: Vec<_> = output
        .lines()
        .take(SHOWN)
        .map(|line| format!("  {line}"))
        .collect();
    let more = output.lines().count().saturating_sub(SHOWN);
    if more > 0 {
        lines.push(format!("  … {more} more lines"));
    }
    lines.join("\n")
}

fn kept_folder(config: &Config) -> PathBuf {
    let name = config
        .data_dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    config.data_dir.with_file_name(format!("{name}-workspace"))
}

/// The workspace moves out of the sandbox before the sandbox is removed.
async fn keep_workspace(
    platform: &Assembled,
    config: &Config,
    session: SessionId,
    to: &PathBuf,
) -> Result<()> {
    let found = platform.engine.session(session).await?;
    let Some(sandbox) = found.sandbox else {
        return Ok(());
    };
    let from = config
        .data_dir
        .join("sandboxes")
        .join(sandbox.to_string())
        .join("workspace");
    match std::fs::rename(&from, to) {
        Ok(()) => print::error(format!("the workspace is kept in {}", to.display())),
        Err(error) => print::error(format!("lap-server: the workspace could not be kept: {error}")),
    }
    Ok(())
}

/// Nothing of the attempt is left: sessions, sandboxes, vault.
async fn end(platform: &Assembled) {
    let engine = &platform.engine;
    let query = lap_core::store::SessionQuery {
        limit: 10,
        ..Default::default()
    };
    for session in engine.list_sessions(query).await.unwrap_or_default() {
        let _ = engine.close_session(&Caller::default(), session.id).await;
        let Some(sandbox) = session.sandbox else { continue };
        // The drain below waits for the removal itself.
        let gone = async {
            let runtime = &engine.backends().runtime;
            while !matches!(
                runtime.endpoint(sandbox, Duration::ZERO).await,
                Ok(Endpoint::Gone { .. })
            ) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(REMOVAL, gone).await;
    }
    engine.drain(Duration::from_secs(5)).await;
    if let Err(error) = platform.vault.shutdown().await {
        print::error(format!("lap-server: the vault did not end: {}", chain(&error)));
    }
}
