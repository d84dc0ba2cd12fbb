//! opencode: its own server on loopback, told what to do by configuration that lies outside the workspace.
//!
//! One process serves the sandbox from its preparation on, so a session that opens finds it warm. What the session
//! binds (model, prompt, skills, MCP servers, policy, environment) reaches it without a restart.

mod api;
mod asked;
mod config;
mod conversation;
mod ending;
mod hide;
mod ids;
mod mirror;
mod models;
mod policy;
mod process;
mod turn;
mod version;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use lap_harness::OpenRequest;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Adapter, Assignment, Refused, Tools, TurnEnd, TurnJournal};
use api::Server;
use asked::Asked;
use config::Files;
use conversation::Conversation;
use process::{FIRST_LOOK, Process};
use turn::{QUICK, TURN_MARKER, Turn};

/// See the [module](self).
pub(crate) struct OpenCode {
    tools: Tools,
    files: Files,
    process: Process,
    asked: Asked,
    conversation: Conversation,
    /// The models that the configuration names.
    models: Mutex<BTreeSet<String>>,
    /// Held by the running turn: opencode must not be told anything new in the middle of it.
    working: Mutex<()>,
}

impl fmt::Debug for OpenCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenCode").finish_non_exhaustive()
    }
}

impl OpenCode {
    /// Starts opencode and makes it ready for its first turn.
    ///
    /// # Errors
    /// The reason for people.
    pub(crate) async fn start(tools: Tools) -> Result<Self, String> {
        let unwritable =
            |error: std::io::Error| format!("opencode's configuration cannot be written: {error}");
        let files = Files::create(&tools.layout).map_err(unwritable)?;
        hide::project_configuration(&tools).await?;
        let mut models = models::of_gateway(&tools.gateway).await;
        models.extend(tools.environment.default_model().map(str::to_owned));
        let config = files.configuration(&tools.gateway, &models, None, &tools.layout.workspace());
        files.write(&config, &[]).map_err(unwritable)?;
        files
            .write_environment(&tools.environment.for_harness())
            .map_err(unwritable)?;
        let process = Process::start(&tools, &files).await?;
        check(&process.server, &config).await?;
        let conversation = Conversation::prepare(&tools.layout, &process.server).await?;
        Ok(Self {
            tools,
            files,
            process,
            asked: Asked::default(),
            conversation,
            models: Mutex::new(models),
            working: Mutex::new(()),
        })
    }

    /// opencode works as the opening says, with this model among those it knows. Not in the middle of a turn.
    async fn apply(&self, opening: &OpenRequest, model: &str) -> Result<(), String> {
        let unwritable =
            |error: std::io::Error| format!("opencode's configuration cannot be written: {error}");
        let mut models = self.models.lock().await;
        models.extend(
            [opening.model.clone(), model.to_owned()]
                .into_iter()
                .filter(|model| !model.is_empty()),
        );
        let workspace = self.tools.layout.workspace();
        let config = self
            .files
            .configuration(&self.tools.gateway, &models, Some(opening), &workspace);
        if self.files.write(&config, &opening.skills).map_err(unwritable)? {
            // opencode reads its configuration again when it is asked the next time, and a branch may have brought some.
            hide::project_configuration(&self.tools).await?;
            let server = &self.process.server;
            server
                .post("/instance/dispose", &json!({}), QUICK)
                .await
                .map_err(|failed| failed.to_string())?;
            check(server, &config).await?;
        }
        Ok(())
    }

    /// Gives an answer to a request that waits.
    async fn reply(&self, server: &Server, request: &str, reply: &Value) -> Result<(), Refused> {
        let malformed = || Refused::Unsupported("the reply is none that this request takes".to_owned());
        // The id becomes part of a path.
        let is_id = request
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let (path, body) = if !is_id {
            return Err(Refused::NotFound("nothing waits under this id".to_owned()));
        } else if request.starts_with("que_") {
            match policy::question_reply(reply) {
                Some(body) => (format!("/question/{request}/reply"), body),
                None => (format!("/question/{request}/reject"), json!({})),
            }
        } else {
            let body = policy::permission_reply(reply).ok_or_else(malformed)?;
            (format!("/permission/{request}/reply"), body)
        };
        match server.post(&path, &body, QUICK).await {
            Ok(_) => {
                self.asked.remove(request);
                Ok(())
            }
            Err(failed) if failed.status.is_some_and(|status| status.as_u16() == 404) => {
                Err(Refused::NotFound("nothing waits under this id".to_owned()))
            }
            Err(failed) => Err(Refused::Unsupported(failed.to_string())),
        }
    }
}

/// Waits until opencode has read its configuration, and makes sure that it is the platform's.
async fn check(server: &Server, expected: &Value) -> Result<(), String> {
    let shown = server.get("/config", FIRST_LOOK).await;
    let shown = shown.map_err(|failed| format!("opencode does not come up: {failed}"))?;
    match Files::foreign(&shown, expected) {
        None => Ok(()),
        Some(what) => Err(format!("opencode took configuration from elsewhere: {what}")),
    }
}

#[async_trait]
impl Adapter for OpenCode {
    async fn open(&self, opening: &OpenRequest) -> Result<String, Refused> {
        let server = &self.process.server;
        // A turn that runs was opened by the same session; the next one applies what is new.
        if let Ok(_resting) = self.working.try_lock() {
            // What was restored into the workspace can hold some.
            hide::project_configuration(&self.tools)
                .await
                .map_err(Refused::Unsupported)?;
            self.apply(opening, &opening.model)
                .await
                .map_err(Refused::Unsupported)?;
            self.conversation
                .open(server, opening)
                .await
                .map_err(Refused::Unsupported)?;
        }
        Ok(self.conversation.id())
    }

    async fn turn(&self, assignment: Assignment, journal: TurnJournal) -> TurnEnd {
        let _working = self.working.lock().await;
        let mut environment = self.tools.environment.for_agent(&assignment.opening);
        environment.insert(TURN_MARKER.to_owned(), journal.turn().to_string());
        if let Err(error) = self.files.write_environment(&environment) {
            return ending::failed(format!("the state folder cannot be written: {error}"));
        }
        if let Err(reason) = self.apply(&assignment.opening, &assignment.model).await {
            return ending::failed(reason);
        }
        let conversation = self.conversation.id();
        let turn = Turn::new(self, &self.process, &conversation, assignment, journal);
        turn.run().await
    }

    async fn messages(&self) -> Vec<Value> {
        self.conversation.messages(&self.process.server).await
    }

    async fn answer(&self, request: &str, reply: &Value) -> Result<(), Refused> {
        self.reply(&self.process.server, request, reply).await
    }

    fn warning(&self) -> Option<String> {
        version::warning(&self.process.version)
    }

    async fn ended(&self) -> String {
        self.process.ended().await
    }
}

/// How long opencode may take over something that needs its database.
const SLOW: Duration = Duration::from_secs(60);
