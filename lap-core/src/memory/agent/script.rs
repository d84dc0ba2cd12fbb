//! What the scripted agent does with a turn, by the text of the turn:
//!
//! | text | what happens |
//! |---|---|
//! | `SLOW n` | answers with n chunks, 250 ms apart |
//! | `FAIL message` | ends as failed with this message |
//! | `HANG` | does nothing until it is aborted |
//! | `ASK question` | asks for permission and answers with the reply |
//! | anything else | answers `PONG` and the text |
//!
//! Events have the shapes of opencode.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Agent, Bound};
use crate::harness::Delivery;
use crate::time::Clock;
use crate::turn::{Outcome, TurnState, Usage};

const CHUNK_PAUSE: Duration = Duration::from_millis(250);

/// One turn being played.
pub(super) struct Play {
    agent: Agent,
    bound: Bound,
    delivery: Delivery,
    clock: Arc<dyn Clock>,
    /// The assistant's text so far.
    text: String,
}

impl Play {
    pub(super) const fn new(agent: Agent, bound: Bound, delivery: Delivery, clock: Arc<dyn Clock>) -> Self {
        Self {
            agent,
            bound,
            delivery,
            clock,
            text: String::new(),
        }
    }

    /// Plays the turn to its end, which is an event with an outcome unless the sandbox ends first.
    pub(super) async fn run(mut self, abort: CancellationToken) {
        let stopped = self.agent.stopped.clone();
        let deadline = self.delivery.deadline;
        self.begin();
        let failure = tokio::select! {
            biased;
            () = stopped.cancelled() => return,
            () = abort.cancelled() => Some((TurnState::Aborted, "the turn was stopped".to_owned())),
            () = tokio::time::sleep(deadline) => Some((TurnState::Failed, "the turn took too long".to_owned())),
            played = self.play() => played.err().map(|message| (TurnState::Failed, message)),
        };
        self.end(failure);
    }

    /// The script. `Err` is the message of a failure.
    async fn play(&mut self) -> Result<(), String> {
        let text = self.input();
        let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
        match word {
            "SLOW" => self.speak_slowly(rest.trim().parse().unwrap_or(4)).await,
            "FAIL" => return Err(rest.to_owned()),
            "HANG" => std::future::pending().await,
            "ASK" => {
                let reply = self.ask(rest).await;
                self.speak(&reply);
            }
            _ => {
                self.speak("PONG ");
                text.split_inclusive(' ').for_each(|chunk| self.speak(chunk));
            }
        }
        Ok(())
    }

    async fn speak_slowly(&mut self, chunks: u32) {
        for chunk in 1..=chunks {
            if chunk > 1 {
                tokio::time::sleep(CHUNK_PAUSE).await;
            }
            self.speak(&format!("chunk {chunk} "));
        }
    }

    async fn ask(&self, question: &str) -> String {
        let request = format!("per_{}", self.delivery.turn.as_uuid().simple());
        let (sender, receiver) = oneshot::channel();
        self.agent.inside().questions.insert(request.clone(), sender);
        let asked = json!({
            "id": request,
            "sessionID": self.bound.conversation,
            "permission": "bash",
            "patterns": [question],
            "metadata": {},
        });
        self.say("permission.asked", asked);
        let reply = receiver.await.unwrap_or(Value::Null);
        reply.as_str().map_or_else(|| reply.to_string(), str::to_owned)
    }

    fn begin(&self) {
        let user = json!({ "info": self.user(), "parts": self.delivery.parts });
        self.agent.inside().messages.push(user);
        self.say("message.updated", json!({ "info": self.user() }));
        self.status("busy");
        self.say("message.updated", json!({ "info": self.assistant(None) }));
        self.say("message.part.updated", json!({ "part": self.part() }));
    }

    /// The next piece of the assistant's text.
    fn speak(&mut self, delta: &str) {
        let delta_event = json!({
            "sessionID": self.bound.conversation,
            "messageID": self.id("msg", "a"),
            "partID": self.id("prt", "a"),
            "field": "text",
            "delta": delta,
            "offset": self.text.len(),
        });
        self.text.push_str(delta);
        self.say("message.part.delta", delta_event);
    }

    fn end(&self, failure: Option<(TurnState, String)>) {
        let error = failure.as_ref().map(|(state, message)| {
            let name = if *state == TurnState::Aborted {
                "MessageAbortedError"
            } else {
                "APIError"
            };
            json!({ "name": name, "data": { "message": message } })
        });
        let reply = json!({ "info": self.assistant(Some(error.clone())), "parts": [self.part()] });
        self.agent.inside().messages.push(reply.clone());
        self.say("message.part.updated", json!({ "part": self.part() }));
        self.say("message.updated", json!({ "info": reply["info"] }));
        if let Some(error) = error {
            self.say(
                "session.error",
                json!({ "sessionID": self.bound.conversation, "error": error }),
            );
        }
        self.status("idle");
        self.say("session.idle", json!({ "sessionID": self.bound.conversation }));
        self.finish(failure, reply);
    }

    fn finish(&self, failure: Option<(TurnState, String)>, reply: Value) {
        let words = |text: &str| text.split_whitespace().count() as u64;
        let usage = Usage {
            input_tokens: words(&self.input()),
            output_tokens: words(&self.text),
            cost: 0.0,
        };
        let mut finished = json!({
            "turn": self.delivery.turn.to_string(),
            "outcome": failure.as_ref().map_or(TurnState::Completed, |(state, _)| *state).as_str(),
            "reply": reply,
            "usage": { "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens },
        });
        let (state, failure) = match failure {
            Some((state, message)) => {
                finished["error"] = json!({ "message": message });
                (state, Some(message))
            }
            None => (TurnState::Completed, None),
        };
        let outcome = Outcome {
            state,
            failure,
            reply: Some(reply),
            usage,
        };
        self.agent
            .emit(self.delivery.turn, "turn.finished", finished, Some(outcome));
    }

    /// The text parts of the turn.
    fn input(&self) -> String {
        let texts = self
            .delivery
            .parts
            .iter()
            .filter_map(|part| part.get("text").and_then(Value::as_str));
        texts.collect::<Vec<_>>().join("\n")
    }

    fn say(&self, kind: &str, properties: Value) {
        self.agent.emit(self.delivery.turn, kind, properties, None);
    }

    fn status(&self, status: &str) {
        let properties = json!({ "sessionID": self.bound.conversation, "status": { "type": status } });
        self.say("session.status", properties);
    }

    fn id(&self, noun: &str, of: &str) -> String {
        format!("{noun}_{}{of}", self.delivery.turn.as_uuid().simple())
    }

    fn user(&self) -> Value {
        json!({
            "id": self.id("msg", "u"),
            "role": "user",
            "sessionID": self.bound.conversation,
            "time": { "created": self.clock.now().unix_millis() },
        })
    }

    /// The assistant's message; `Some` when it is complete, with the error that ended it if there was one.
    fn assistant(&self, completed: Option<Option<Value>>) -> Value {
        let now = self.clock.now().unix_millis();
        let mut info = json!({
            "id": self.id("msg", "a"),
            "role": "assistant",
            "parentID": self.id("msg", "u"),
            "sessionID": self.bound.conversation,
            "modelID": self.delivery.model.as_ref().unwrap_or(&self.bound.model),
            "time": { "created": now },
        });
        if let Some(error) = completed {
            info["time"]["completed"] = now.into();
            if let Some(error) = error {
                info["error"] = error;
            }
        }
        info
    }

    fn part(&self) -> Value {
        json!({
            "id": self.id("prt", "a"),
            "messageID": self.id("msg", "a"),
            "sessionID": self.bound.conversation,
            "type": "text",
            "text": self.text,
        })
    }
}
