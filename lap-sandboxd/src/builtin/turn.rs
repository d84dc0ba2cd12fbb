//! One turn: ask the model, run its tools, until it answers without any.

use std::io;
use std::sync::Mutex;

use futures_util::future::join_all;
use lap_harness::{TurnFailure, Usage};
use serde_json::{Value, json};

use super::message::{Content, Info, Message, MessageTime, Part, PartTime, Role, ToolState, aborted_error};
use super::model::{Gateway, Retrying, request_body};
use super::speech::Speech;
use super::tools::{ToolOutput, Toolbox, specifications};
use super::{Builtin, conversation_id, prompt};
use crate::adapter::{Assignment, Ending, TurnEnd, TurnJournal};
use crate::locked;

/// A turn that asks the model more often than this goes in circles.
const MAX_STEPS: usize = 250;

/// What the parts of a turn share.
pub(super) struct Turn<'a> {
    builtin: &'a Builtin,
    gateway: &'a Gateway,
    assignment: Assignment,
    journal: TurnJournal,
    toolbox: Toolbox,
    conversation: String,
    system: String,
    tools: Value,
}

/// Why the loop ended without an answer.
enum Cut {
    Stopped,
    Failed(TurnFailure),
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        builtin: &'a Builtin,
        gateway: &'a Gateway,
        assignment: Assignment,
        journal: TurnJournal,
    ) -> io::Result<Self> {
        let tools = &builtin.tools;
        let workspace = tools.layout.workspace();
        let environment = tools.environment.for_agent(&assignment.opening);
        let toolbox = Toolbox::new(&workspace, std::sync::Arc::clone(&tools.processes), environment)?;
        let now = tools.clock.now().to_iso8601();
        let date = now.split('T').next().unwrap_or_default();
        let system = prompt::system(
            &assignment.opening,
            &workspace,
            workspace.join(".git").exists(),
            date,
        );
        let conversation = conversation_id(&assignment.opening);
        Ok(Self {
            builtin,
            gateway,
            assignment,
            journal,
            toolbox,
            conversation,
            system,
            tools: specifications(),
        })
    }

    pub(super) async fn run(&self, contents: Vec<Content>) -> TurnEnd {
        let user = self.user_message(contents);
        self.status(json!({"type": "busy"}));
        let mut usage = Usage::default();
        let mut reply = None;
        let mut ending = None;
        for _ in 0..MAX_STEPS {
            let mut speech = Speech::begin(self.builtin, &self.journal, self.assistant_message(&user));
            let step = self.step(&mut speech).await;
            self.close(&mut speech, &step);
            add(&mut usage, speech.usage);
            reply = Some(speech.message.to_value());
            ending = match step {
                Ok(true) => continue,
                Ok(false) => Some(Ending::Completed),
                Err(Cut::Stopped) => Some(Ending::Stopped),
                Err(Cut::Failed(failure)) => Some(Ending::Failed(failure)),
            };
            break;
        }
        self.status(json!({"type": "idle"}));
        self.journal
            .emit("session.idle", json!({"sessionID": self.conversation}));
        let ending = ending.unwrap_or_else(|| {
            let message = format!("the agent did not come to an end within {MAX_STEPS} steps");
            Ending::Failed(TurnFailure {
                message,
                status: None,
            })
        });
        TurnEnd {
            ending,
            reply,
            usage: Some(usage),
        }
    }

    /// One model call and its tools. True when the model wants to go on.
    async fn step(&self, speech: &mut Speech<'_>) -> Result<bool, Cut> {
        let stop = &self.assignment.stop;
        match stop.run_until_cancelled(self.listen(speech)).await {
            Some(Ok(())) => {}
            Some(Err(failure)) => return Err(Cut::Failed(failure)),
            None => return Err(Cut::Stopped),
        }
        let calls = speech.said();
        let wants_more = !calls.is_empty();
        let mut calls = calls.into_iter().peekable();
        while let Some(call) = calls.next() {
            let mut batch = vec![call];
            // Calls that only read run side by side; one that changes something runs alone and in its place.
            while Toolbox::only_reads(&batch[0].1) {
                match calls.next_if(|call| Toolbox::only_reads(&call.1)) {
                    Some(next) => batch.push(next),
                    None => break,
                }
            }
            if stop
                .run_until_cancelled(self.use_tools(speech, batch))
                .await
                .is_none()
            {
                return Err(Cut::Stopped);
            }
        }
        Ok(wants_more)
    }

    /// Asks the model and passes on what it says.
    async fn listen(&self, speech: &mut Speech<'_>) -> Result<(), TurnFailure> {
        let body = self
            .builtin
            .conversation
            .read(|messages| request_body(&self.assignment.model, &self.system, messages, &self.tools));
        let mut retrying = Retrying::default();
        let mut answer = loop {
            let failed = match self.gateway.ask(body.clone()).await {
                Ok(answer) => break answer,
                Err(failed) => failed,
            };
            let (wait, failure) = retrying.after(failed, &*self.builtin.tools.entropy)?;
            self.status(json!({
                "type": "retry",
                "attempt": retrying.failures(),
                "message": failure.message,
                "next": self.builtin.now() + i64::try_from(wait.as_millis()).unwrap_or(0),
            }));
            tokio::time::sleep(wait).await;
        };
        if retrying.failures() > 0 {
            self.status(json!({"type": "busy"}));
        }
        loop {
            let pieces = answer.next().await?;
            if pieces.is_empty() {
                return Ok(());
            }
            for piece in pieces {
                speech.take(piece)?;
            }
        }
    }

    async fn use_tools(&self, speech: &mut Speech<'_>, batch: Vec<(usize, String, Result<Value, String>)>) {
        let start = self.builtin.now();
        for (part, tool, input) in &batch {
            let input = input.clone().unwrap_or_default();
            let running = running(input, tool.clone(), Value::Null, start);
            speech.set_state(*part, running);
        }
        let ids: Vec<String> = batch.iter().map(|(part, ..)| speech.call_id(*part)).collect();
        let shared = Mutex::new(&mut *speech);
        let calls = batch.iter().zip(&ids).map(|((part, tool, input), id)| {
            let shared = &shared;
            async move {
                let input = input.as_ref().map_err(Clone::clone)?;
                let progress = |text: &str| {
                    let state = running(input.clone(), tool.clone(), json!({"output": text}), start);
                    locked(shared).set_state(*part, state);
                };
                // Model-made ids repeat; the process marker must not.
                let call = format!("{id}-{part}-{start}");
                self.toolbox.call(tool, &call, input, &progress).await
            }
        });
        let done: Vec<Result<ToolOutput, String>> = join_all(calls).await;
        let time = PartTime {
            start,
            end: Some(self.builtin.now()),
        };
        for ((part, _, input), done) in batch.into_iter().zip(done) {
            let input = input.unwrap_or_else(|_| json!({}));
            let state = match done {
                Ok(ToolOutput {
                    title,
                    output,
                    metadata,
                }) => ToolState::Completed {
                    input,
                    output,
                    title,
                    metadata,
                    time,
                },
                Err(error) => ToolState::Error { input, error, time },
            };
            speech.set_state(part, state);
        }
        speech.save();
    }

    fn close(&self, speech: &mut Speech<'_>, step: &Result<bool, Cut>) {
        let error = match step {
            Ok(_) => None,
            Err(Cut::Stopped) => Some(aborted_error("the turn was stopped")),
            Err(Cut::Failed(failure)) => Some(json!({
                "name": "APIError",
                "data": {"message": failure.message, "statusCode": failure.status, "isRetryable": false},
            })),
        };
        if let Some(error) = &error {
            self.journal.emit(
                "session.error",
                json!({"sessionID": self.conversation, "error": error}),
            );
        }
        speech.end(error);
    }

    fn user_message(&self, contents: Vec<Content>) -> Message {
        let info = self.info("msg", Role::User);
        let parts = contents.into_iter().map(|content| Part {
            id: self.builtin.fresh_id("prt"),
            session_id: self.conversation.clone(),
            message_id: info.id.clone(),
            content,
        });
        let message = Message {
            parts: parts.collect(),
            info,
        };
        self.builtin.conversation.put(&message);
        self.journal
            .emit("message.updated", json!({"info": message.info}));
        for part in &message.parts {
            self.journal.emit("message.part.updated", json!({"part": part}));
        }
        message
    }

    fn assistant_message(&self, user: &Message) -> Message {
        let info = Info {
            parent_id: Some(user.info.id.clone()),
            ..self.info("msg", Role::Assistant)
        };
        Message {
            info,
            parts: Vec::new(),
        }
    }

    fn info(&self, prefix: &str, role: Role) -> Info {
        let (provider, model) = match self.assignment.model.split_once('/') {
            Some((provider, model)) => (provider.to_owned(), model.to_owned()),
            None => ("gateway".to_owned(), self.assignment.model.clone()),
        };
        Info {
            id: self.builtin.fresh_id(prefix),
            session_id: self.conversation.clone(),
            role,
            time: MessageTime {
                created: self.builtin.now(),
                completed: None,
            },
            parent_id: None,
            provider_id: Some(provider),
            model_id: Some(model),
            cost: None,
            tokens: None,
            finish: None,
            error: None,
        }
    }

    fn status(&self, status: Value) {
        self.journal.emit(
            "session.status",
            json!({"sessionID": self.conversation, "status": status}),
        );
    }
}

fn running(input: Value, title: String, metadata: Value, start: i64) -> ToolState {
    ToolState::Running {
        input,
        title,
        metadata,
        time: PartTime { start, end: None },
    }
}

fn add(sum: &mut Usage, step: Usage) {
    sum.input_tokens += step.input_tokens;
    sum.output_tokens += step.output_tokens;
    if let Some(cost) = step.cost {
        sum.cost = Some(sum.cost.unwrap_or(0.0) + cost);
    }
}
