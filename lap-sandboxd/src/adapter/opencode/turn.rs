//! One turn: the message goes in, events come out, and the state of the conversation says how it ended.

use std::time::Duration;

use lap_harness::TurnFailure;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::OpenCode;
use super::api::{Events, Failed};
use super::asked::{Asked, DEFAULT_PATIENCE};
use super::config::PROVIDER;
use super::ending;
use super::ids::{is_of_turn, message_id};
use super::mirror::{Meaning, Mirror};
use super::process::Process;
use crate::adapter::{Assignment, Ending, TurnEnd, TurnJournal};

/// A call that opencode answers from its memory.
pub(super) const QUICK: Duration = Duration::from_secs(20);
/// How long a stopped turn may take to come to rest.
const STOPPING: Duration = Duration::from_secs(3);
/// opencode tells that it rests a moment before it has written the last message.
const SETTLING: Duration = Duration::from_millis(1500);
/// Nothing is lost when an event is missed: the state is looked at this often anyway.
const LOOK: Duration = Duration::from_secs(20);
/// opencode asks a failing model again without an end, with growing pauses: 2, 4, 8, 16, 30 s. The turn fails where
/// half a minute did not help.
const RETRIES: u64 = 5;
/// The environment variable by which processes of a turn are found after it was stopped.
pub(super) const TURN_MARKER: &str = "LAP_TURN";

/// What a turn works with.
pub(super) struct Turn<'a> {
    opencode: &'a OpenCode,
    process: &'a Process,
    conversation: &'a str,
    turn: Uuid,
    assignment: Assignment,
    mirror: Mirror,
    asked: &'a Asked,
    /// The last error that was told of the conversation; it counts when there is no message that has one.
    error: Option<Value>,
    /// Why the turn was given up, where that was decided here.
    given_up: Option<TurnFailure>,
}

/// What the loop does next.
enum Next {
    Event(Result<Value, String>),
    Look,
    Expired(String),
    Stop,
    Died(String),
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        opencode: &'a OpenCode,
        process: &'a Process,
        conversation: &'a str,
        assignment: Assignment,
        journal: TurnJournal,
    ) -> Self {
        let turn = journal.turn();
        Self {
            opencode,
            process,
            conversation,
            turn,
            assignment,
            mirror: Mirror::new(journal, conversation.to_owned()),
            asked: &opencode.asked,
            error: None,
            given_up: None,
        }
    }

    pub(super) async fn run(mut self) -> TurnEnd {
        self.asked.clear();
        let end = match self.deliver().await {
            Ok(events) => self.follow(events).await,
            Err(message) => ending::failed(message),
        };
        self.asked.clear();
        if !matches!(end.ending, Ending::Completed) {
            // Tools that were stopped may have left processes behind.
            let processes = &self.opencode.tools.processes;
            processes.kill_carriers(TURN_MARKER, &self.turn.to_string());
        }
        self.mirror.rest();
        end
    }

    /// Listens first, then sends the message, so that no event is missed.
    async fn deliver(&mut self) -> Result<Events, String> {
        let events = self
            .process
            .server
            .events(QUICK)
            .await
            .map_err(|failed| failed.to_string())?;
        let path = format!("/session/{}/prompt_async", self.conversation);
        let sent = self.process.server.post(&path, &self.prompt()?, QUICK).await;
        match sent {
            Ok(_) => Ok(events),
            // It may have arrived all the same. Sending it again could run it twice, so the state decides.
            Err(Failed {
                status: None,
                message,
            }) => match self.messages().await {
                Ok(messages) if own(&messages, self.turn).is_some() => Ok(events),
                _ => Err(message),
            },
            Err(refused) => Err(refused.to_string()),
        }
    }

    fn prompt(&self) -> Result<Value, String> {
        let now = self.opencode.tools.clock.now().unix_millis();
        let parts: Result<Vec<Value>, String> = self.assignment.parts.iter().map(input_part).collect();
        let mut prompt = json!({
            "messageID": message_id(self.turn, now),
            "model": {"providerID": PROVIDER, "modelID": self.assignment.model},
            "parts": parts?,
        });
        let system = self.assignment.opening.prompt.as_deref().map(str::trim);
        if let Some(system) = system.filter(|system| !system.is_empty()) {
            prompt["system"] = Value::from(system);
        }
        Ok(prompt)
    }

    async fn follow(&mut self, events: Events) -> TurnEnd {
        let mut events = Some(events);
        let mut look = Instant::now() + LOOK;
        loop {
            match self.next(events.as_mut(), look).await {
                Next::Event(Ok(event)) => {
                    let meaning = self.mirror.take(&event);
                    let rests = meaning == Meaning::Idle && (self.mirror.worked() || self.error.is_some());
                    self.react(meaning).await;
                    if self.given_up.is_some() {
                        return self.stop(events).await;
                    }
                    if rests && let Some(end) = self.settle(events.as_mut()).await {
                        return end;
                    }
                }
                Next::Event(Err(why)) => {
                    tracing::warn!(why, "opencode's events are read anew");
                    (events, look) = (self.listen_again().await, Instant::now());
                }
                Next::Look => {
                    look = Instant::now() + LOOK;
                    if events.is_none() {
                        (events, look) = (self.listen_again().await, Instant::now() + Duration::from_secs(1));
                    }
                    if let Some(end) = self.look().await {
                        return end;
                    }
                }
                Next::Expired(request) => self.expire(&request).await,
                Next::Stop => return self.stop(events).await,
                Next::Died(reason) => return ending::failed(reason),
            }
        }
    }

    async fn next(&self, events: Option<&mut Events>, look: Instant) -> Next {
        let event = async {
            match events {
                Some(events) => events.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.assignment.stop.cancelled() => Next::Stop,
            event = event => Next::Event(event),
            request = self.asked.expired() => Next::Expired(request),
            () = tokio::time::sleep_until(look) => Next::Look,
            reason = self.process.ended() => Next::Died(reason),
        }
    }

    async fn react(&mut self, meaning: Meaning) {
        match meaning {
            Meaning::Nothing | Meaning::Idle => {}
            Meaning::Asked(request) => self.asked.add(request, self.patience()),
            Meaning::Answered(request) => self.asked.remove(&request),
            Meaning::Error(error) => self.error = Some(error),
            Meaning::Retry { attempt, message } if attempt >= RETRIES => {
                self.given_up = Some(TurnFailure {
                    message: format!("the model gateway failed {attempt} times: {message}"),
                    status: None,
                });
            }
            Meaning::Retry { .. } => {}
        }
    }

    fn patience(&self) -> Duration {
        let given = self.assignment.opening.answer_timeout_ms;
        given.map_or(DEFAULT_PATIENCE, Duration::from_millis)
    }

    /// Nobody answered: the agent is told so and goes on.
    async fn expire(&mut self, request: &str) {
        let patience = self.patience();
        self.mirror.tell(
            "permission.timeout",
            json!({"requestID": request, "after_ms": u64::try_from(patience.as_millis()).unwrap_or(u64::MAX)}),
        );
        let message = format!(
            "Nobody answered within {} s. Go on without it.",
            patience.as_secs_f64()
        );
        let reply = json!({"reply": "reject", "message": message});
        if let Err(refused) = self.opencode.reply(&self.process.server, request, &reply).await {
            tracing::warn!(?refused, request, "an expired request cannot be rejected");
        }
    }

    /// Events are missing now; what they told is read from the state.
    async fn listen_again(&mut self) -> Option<Events> {
        self.mirror.missed();
        let events = self.process.server.events(QUICK).await.ok();
        if let Ok(messages) = self.messages().await
            && let Some(at) = own(&messages, self.turn)
        {
            self.mirror.reconcile(&messages[at..]);
        }
        self.ask_again().await;
        events
    }

    /// Requests that were asked while nobody listened.
    async fn ask_again(&mut self) {
        for (path, kind) in [
            ("/permission", "permission.asked"),
            ("/question", "question.asked"),
        ] {
            let open = self.process.server.get(path, QUICK).await.unwrap_or_default();
            for request in open.as_array().into_iter().flatten() {
                let event = json!({"type": kind, "properties": request});
                let id = request["id"].as_str().unwrap_or_default();
                if !self.asked.knows(id) {
                    let meaning = self.mirror.take(&event);
                    self.react(meaning).await;
                }
            }
        }
    }

    /// Whether the conversation rests although nobody said so.
    async fn look(&mut self) -> Option<TurnEnd> {
        let status = self.process.server.get("/session/status", QUICK).await.ok()?;
        if !status[self.conversation].is_null() {
            return None;
        }
        let messages = self.messages().await.ok()?;
        let at = own(&messages, self.turn)?;
        self.mirror.reconcile(&messages[at..]);
        ending::of(&messages, at, self.error.as_ref(), self.mirror.worked())
    }

    /// The conversation was said to rest. Reads how it ended; `None` when it goes on.
    async fn settle(&mut self, mut events: Option<&mut Events>) -> Option<TurnEnd> {
        let until = Instant::now() + SETTLING;
        loop {
            let last = Instant::now() >= until;
            let messages = self.messages().await.unwrap_or_default();
            let end = match own(&messages, self.turn) {
                Some(at) => {
                    let end = ending::of(&messages, at, self.error.as_ref(), last);
                    if end.is_some() {
                        self.mirror.reconcile(&messages[at..]);
                    }
                    end
                }
                None => self.error.as_ref().map(ending::of_error),
            };
            if end.is_some() {
                return end;
            }
            if last {
                return None;
            }
            let pause = tokio::time::sleep(Duration::from_millis(50));
            match events.as_deref_mut() {
                Some(events) => tokio::select! {
                    event = events.next() => {
                        let meaning = self.mirror.take(&event.ok()?);
                        self.react(meaning).await;
                    }
                    () = pause => {}
                },
                None => pause.await,
            }
        }
    }

    /// Stops the turn and reads what there is of a reply.
    async fn stop(&mut self, mut events: Option<Events>) -> TurnEnd {
        let path = format!("/session/{}/abort", self.conversation);
        let until = Instant::now() + STOPPING;
        let mut end = None;
        while end.is_none() && Instant::now() < until {
            // Again and again: opencode does not remember an abort that comes before it has begun.
            if let Err(failed) = self.process.server.post(&path, &json!({}), STOPPING).await {
                tracing::warn!(%failed, "opencode cannot be told to stop");
            }
            end = tokio::time::timeout_at(until, self.settle(events.as_mut()))
                .await
                .ok()
                .flatten();
        }
        let end = end.unwrap_or_else(|| ending::failed(String::new()));
        let ending = match self.given_up.take() {
            Some(failure) => Ending::Failed(failure),
            None => Ending::Stopped,
        };
        TurnEnd { ending, ..end }
    }

    /// The newest messages, this turn's among them.
    async fn messages(&self) -> Result<Vec<Value>, Failed> {
        let limit = self.mirror.messages() + 50;
        let path = format!("/session/{}/message?limit={limit}", self.conversation);
        let messages = self.process.server.get(&path, QUICK).await?;
        Ok(messages.as_array().cloned().unwrap_or_default())
    }
}

/// Where this turn begins among the messages.
fn own(messages: &[Value], turn: Uuid) -> Option<usize> {
    let is_own = |message: &Value| {
        message["info"]["id"]
            .as_str()
            .is_some_and(|id| is_of_turn(id, turn))
    };
    messages.iter().rposition(is_own)
}

/// A part as opencode takes it: text and files; images of the platform's other dialect become files.
fn input_part(part: &Value) -> Result<Value, String> {
    match part["type"].as_str() {
        Some("text") => {
            Ok(json!({"type": "text", "text": part["text"].as_str().ok_or("a text part has no text")?}))
        }
        Some("file") => {
            let (mime, url) = (part["mime"].as_str(), part["url"].as_str());
            let (Some(mime), Some(url)) = (mime, url) else {
                return Err("a file part has no mime and url".to_owned());
            };
            let mut file = json!({"type": "file", "mime": mime, "url": url});
            if let Some(name) = part["filename"].as_str() {
                file["filename"] = Value::from(name);
            }
            Ok(file)
        }
        Some("image") => {
            let text = |pointer: &str| part.pointer(pointer).and_then(Value::as_str);
            let (Some(mime), Some(data)) = (text("/source/media_type"), text("/source/data")) else {
                return Err("an image part has no source.media_type and source.data".to_owned());
            };
            Ok(json!({"type": "file", "mime": mime, "url": format!("data:{mime};base64,{data}")}))
        }
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            Err(format!("opencode cannot take parts of type {other:?}"))
        }
        None => Err("a part has no type".to_owned()),
    }
}
