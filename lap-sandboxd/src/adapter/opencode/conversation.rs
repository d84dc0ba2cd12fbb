//! The one conversation of the sandbox: made while nobody waits, found again after a restart.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use lap_harness::OpenRequest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::SLOW;
use super::api::Server;
use super::turn::QUICK;
use crate::layout::{Layout, replace_file};
use crate::locked;

/// What a model is told of an earlier conversation, at most; the newest part of it counts.
const MAX_TRANSCRIPT: usize = 200 * 1024;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    id: String,
    /// Whether a session has taken it.
    taken: bool,
    /// The message through which the model knows an earlier conversation.
    replay: Option<String>,
    /// That conversation, as clients see it.
    history: Vec<Value>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Conversation {
    path: PathBuf,
    known: Mutex<Known>,
}

impl Conversation {
    /// Finds the conversation of an earlier life, or makes one.
    pub(super) async fn prepare(layout: &Layout, server: &Server) -> Result<Self, String> {
        let path = layout.state().join("opencode").join("conversation.json");
        let earlier: Option<Known> = fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(known) = earlier {
            let found = server.get(&format!("/session/{}", known.id), SLOW).await;
            if found.is_ok() {
                return Ok(Self {
                    path,
                    known: Mutex::new(known),
                });
            }
            tracing::warn!("opencode does not know the conversation of an earlier life any more");
        }
        warm_up(server).await;
        // Without a title opencode asks the model for one, which costs a call.
        let session = server.post("/session", &json!({"title": "LAP"}), SLOW).await;
        let session = session.map_err(|failed| format!("opencode makes no conversation: {failed}"))?;
        let id = session["id"].as_str().filter(|id| is_id(id));
        let id = id.ok_or("opencode made a conversation without an id")?.to_owned();
        let this = Self {
            path,
            known: Mutex::new(Known {
                id,
                ..Known::default()
            }),
        };
        this.save()?;
        Ok(this)
    }

    pub(super) fn id(&self) -> String {
        locked(&self.known).id.clone()
    }

    /// A session takes the conversation.
    pub(super) async fn open(&self, server: &Server, opening: &OpenRequest) -> Result<(), String> {
        if locked(&self.known).taken {
            return Ok(());
        }
        let id = self.id();
        if let Some(title) = opening.title.as_deref().filter(|title| !title.is_empty()) {
            let titled = server
                .patch(&format!("/session/{id}"), &json!({ "title": title }), QUICK)
                .await;
            if let Err(failed) = titled {
                tracing::warn!(%failed, "the conversation keeps its title");
            }
        }
        let history = opening.history.clone().unwrap_or_default();
        let replay = if history.is_empty() {
            None
        } else {
            Some(replay(server, &id, &history).await?)
        };
        {
            let mut known = locked(&self.known);
            (known.taken, known.replay, known.history) = (true, replay, history);
        }
        self.save()
    }

    /// Everything said so far, the earlier conversation first.
    pub(super) async fn messages(&self, server: &Server) -> Vec<Value> {
        let known = locked(&self.known).clone();
        let own = server.get(&format!("/session/{}/message", known.id), SLOW).await;
        let own = own.unwrap_or_else(|failed| {
            tracing::warn!(%failed, "the conversation cannot be read");
            Value::Null
        });
        let mut all = known.history;
        for message in &mut all {
            if message["info"].is_object() {
                message["info"]["sessionID"] = Value::from(known.id.as_str());
            }
        }
        let shown = |message: &&Value| known.replay.as_deref() != message["info"]["id"].as_str();
        all.extend(own.as_array().into_iter().flatten().filter(shown).cloned());
        all
    }

    fn save(&self) -> Result<(), String> {
        let known = locked(&self.known).clone();
        let text = serde_json::to_vec(&known).map_err(|error| error.to_string())?;
        replace_file(&self.path, &text)
            .map_err(|error| format!("the state folder cannot be written: {error}"))
    }
}

/// The first message to a fresh opencode loads much of it. A message that wants no reply, in a conversation that is
/// deleted, does that while nobody waits.
async fn warm_up(server: &Server) {
    let done = async {
        let session = server
            .post("/session", &json!({"title": "warm-up"}), SLOW)
            .await?;
        let path = format!("/session/{}", session["id"].as_str().unwrap_or_default());
        let message = json!({"noReply": true, "parts": [{"type": "text", "text": "."}]});
        server.post(&format!("{path}/message"), &message, SLOW).await?;
        server.delete(&path, SLOW).await
    };
    if let Err(failed) = done.await {
        tracing::debug!(%failed, "opencode is not warm");
    }
}

/// Tells the model the earlier conversation as context. Nothing in it is done again.
async fn replay(server: &Server, id: &str, history: &[Value]) -> Result<String, String> {
    let text = format!(
        "This conversation goes on from an earlier one, whose record follows. Nothing in it is to be done again.\n\n{}",
        transcript(history)
    );
    let message = json!({"noReply": true, "parts": [{"type": "text", "text": text, "synthetic": true}]});
    let told = server
        .post(&format!("/session/{id}/message"), &message, SLOW)
        .await;
    let told = told.map_err(|failed| format!("the earlier conversation cannot be told: {failed}"))?;
    Ok(told["info"]["id"].as_str().unwrap_or_default().to_owned())
}

fn transcript(history: &[Value]) -> String {
    let lines: Vec<String> = history.iter().filter_map(line).collect();
    let mut room = MAX_TRANSCRIPT;
    let fits = |line: &&String| {
        let left = room.checked_sub(line.len());
        room = left.unwrap_or(0);
        left.is_some()
    };
    let kept = lines.iter().rev().take_while(fits).count();
    let left_out = lines.len() - kept;
    let mut text = String::new();
    if left_out > 0 {
        text.push_str(&format!("({left_out} earlier messages are left out.)\n\n"));
    }
    lines.iter().skip(left_out).for_each(|line| text.push_str(line));
    text
}

fn line(message: &Value) -> Option<String> {
    let who = match message["info"]["role"].as_str()? {
        "user" => "Person",
        _ => "You",
    };
    let mut text = String::new();
    for part in message["parts"].as_array()? {
        match part["type"].as_str() {
            Some("text") => text.push_str(part["text"].as_str().unwrap_or_default()),
            Some("tool") => {
                let output: String = part["state"]["output"]
                    .as_str()
                    .unwrap_or_default()
                    .chars()
                    .take(2000)
                    .collect();
                text.push_str(&format!(
                    "\n[{} {} -> {output}]\n",
                    part["tool"].as_str().unwrap_or("tool"),
                    part["state"]["input"]
                ));
            }
            _ => {}
        }
    }
    (!text.trim().is_empty()).then(|| format!("{who}: {}\n\n", text.trim()))
}

fn is_id(id: &str) -> bool {
    !id.is_empty()
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
