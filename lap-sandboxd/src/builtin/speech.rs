//! One assistant message as it comes into being: parts grow, and the journal shows each change.

use lap_harness::journal::PartDelta;
use lap_harness::{TurnFailure, Usage};
use serde_json::{Value, json};

use super::Builtin;
use super::message::{Content, Message, Part, PartTime, Tokens, ToolState};
use super::model::{CallPiece, Piece};
use crate::adapter::TurnJournal;

/// The most a model may say in one message, in bytes: text, reasoning and tool arguments together.
const MAX_MESSAGE: usize = 384 * 1024;
/// The most tool calls in one message.
const MAX_CALLS: usize = 64;

/// A call whose arguments are still arriving.
#[derive(Debug)]
struct OpenCall {
    index: usize,
    part: usize,
    arguments: String,
}

/// See the [module](self).
pub(super) struct Speech<'a> {
    builtin: &'a Builtin,
    journal: &'a TurnJournal,
    pub(super) message: Message,
    /// The part that text is being added to.
    growing: Option<usize>,
    calls: Vec<OpenCall>,
    bytes: usize,
    pub(super) usage: Usage,
}

impl<'a> Speech<'a> {
    /// Begins a message and shows it.
    pub(super) fn begin(builtin: &'a Builtin, journal: &'a TurnJournal, message: Message) -> Self {
        let mut speech = Self {
            builtin,
            journal,
            message,
            growing: None,
            calls: Vec::new(),
            bytes: 0,
            usage: Usage::default(),
        };
        speech.show_info();
        speech.add(Content::StepStart {});
        speech.save();
        speech
    }

    /// Takes what the model said next.
    pub(super) fn take(&mut self, piece: Piece) -> Result<(), TurnFailure> {
        match piece {
            Piece::Text(text) => self.grow(&text, false),
            Piece::Reasoning(text) => self.grow(&text, true),
            Piece::Call(call) => self.call(call),
            Piece::Finish(reason) => {
                self.message.info.finish = Some(reason);
                Ok(())
            }
            Piece::Usage(usage) => {
                self.usage = usage;
                Ok(())
            }
        }
    }

    /// The model has said everything: text is final, arguments are whole. Returns the calls as
    /// (part, tool, input or what is wrong with it).
    pub(super) fn said(&mut self) -> Vec<(usize, String, Result<Value, String>)> {
        self.close_text();
        let mut calls = Vec::new();
        for open in std::mem::take(&mut self.calls) {
            let Content::Tool { tool, .. } = &self.message.parts[open.part].content else {
                continue;
            };
            let arguments = if open.arguments.trim().is_empty() {
                "{}"
            } else {
                &open.arguments
            };
            let input = match serde_json::from_str::<Value>(arguments) {
                Ok(input @ Value::Object(_)) => Ok(input),
                Ok(_) => Err("the arguments are not a JSON object".to_owned()),
                Err(error) => Err(format!("the arguments are not JSON: {error}")),
            };
            calls.push((open.part, tool.clone(), input));
        }
        self.save();
        calls
    }

    /// Changes how far a call is.
    pub(super) fn set_state(&mut self, part: usize, new: ToolState) {
        if let Content::Tool { state, .. } = &mut self.message.parts[part].content {
            *state = new;
            self.show(part);
        }
    }

    /// The id of a call, as the model gave it.
    pub(super) fn call_id(&self, part: usize) -> String {
        match &self.message.parts[part].content {
            Content::Tool { call_id, .. } => call_id.clone(),
            _ => String::new(),
        }
    }

    /// Ends the message. With an error, what was going on in it is closed too.
    pub(super) fn end(&mut self, error: Option<Value>) {
        let reason = error
            .as_ref()
            .and_then(|error| error.pointer("/data/message")?.as_str().map(str::to_owned));
        self.close_text();
        if error.is_some() {
            self.close_tools(reason.as_deref().unwrap_or("stopped"));
        }
        let tokens = Tokens {
            input: self.usage.input_tokens,
            output: self.usage.output_tokens,
            ..Tokens::default()
        };
        let cost = self.usage.cost.unwrap_or(0.0);
        let finish = self
            .message
            .info
            .finish
            .clone()
            .unwrap_or_else(|| "stop".to_owned());
        if error.is_none() {
            self.add(Content::StepFinish {
                reason: finish,
                cost,
                tokens,
            });
        }
        let info = &mut self.message.info;
        info.error = error;
        info.tokens = Some(tokens);
        info.cost = Some(cost);
        info.time.completed = Some(self.builtin.now());
        self.show_info();
        self.save();
    }

    /// Keeps the message as it is now.
    pub(super) fn save(&self) {
        self.builtin.conversation.put(&self.message);
    }

    fn grow(&mut self, text: &str, reasoning: bool) -> Result<(), TurnFailure> {
        self.count(text.len())?;
        let fits = |part: &Part| match part.content {
            Content::Text { .. } => !reasoning,
            Content::Reasoning { .. } => reasoning,
            _ => false,
        };
        let at = match self.growing.filter(|at| fits(&self.message.parts[*at])) {
            Some(at) => at,
            None => {
                self.close_text();
                let time = Some(PartTime {
                    start: self.builtin.now(),
                    end: None,
                });
                let content = if reasoning {
                    Content::Reasoning {
                        text: String::new(),
                        time,
                    }
                } else {
                    Content::Text {
                        text: String::new(),
                        time,
                    }
                };
                let at = self.add(content);
                self.growing = Some(at);
                at
            }
        };
        let part = &mut self.message.parts[at];
        let (Content::Text { text: so_far, .. } | Content::Reasoning { text: so_far, .. }) =
            &mut part.content
        else {
            return Ok(());
        };
        let offset = so_far.len() as u64;
        so_far.push_str(text);
        self.journal.delta(&PartDelta {
            session_id: part.session_id.clone(),
            message_id: part.message_id.clone(),
            part_id: part.id.clone(),
            field: "text".to_owned(),
            delta: text.to_owned(),
            offset,
        });
        Ok(())
    }

    fn call(&mut self, piece: CallPiece) -> Result<(), TurnFailure> {
        self.count(piece.arguments.len())?;
        let same_id = |part: usize| piece.id.as_ref().is_none_or(|id| *id == self.call_id(part));
        let known = self
            .calls
            .iter()
            .position(|open| open.index == piece.index && same_id(open.part));
        if let Some(known) = known {
            self.calls[known].arguments.push_str(&piece.arguments);
            return Ok(());
        }
        if self.calls.len() >= MAX_CALLS {
            return Err(failure("the model made too many tool calls at once"));
        }
        self.close_text();
        let call_id = piece.id.unwrap_or_else(|| self.builtin.fresh_id("call"));
        let tool = piece.name.unwrap_or_default();
        let state = ToolState::Pending { input: json!({}) };
        let part = self.add(Content::Tool { call_id, tool, state });
        self.calls.push(OpenCall {
            index: piece.index,
            part,
            arguments: piece.arguments,
        });
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), TurnFailure> {
        self.bytes += bytes;
        if self.bytes > MAX_MESSAGE {
            return Err(failure("the model's answer is too long"));
        }
        Ok(())
    }

    fn close_text(&mut self) {
        let Some(at) = self.growing.take() else { return };
        let now = self.builtin.now();
        if let Content::Text { time, .. } | Content::Reasoning { time, .. } =
            &mut self.message.parts[at].content
        {
            time.get_or_insert_default().end = Some(now);
        }
        self.show(at);
    }

    fn close_tools(&mut self, reason: &str) {
        for at in 0..self.message.parts.len() {
            let Content::Tool { state, .. } = &self.message.parts[at].content else {
                continue;
            };
            let (ToolState::Pending { input } | ToolState::Running { input, .. }) = state else {
                continue;
            };
            let input = input.clone();
            let time = PartTime {
                start: self.builtin.now(),
                end: Some(self.builtin.now()),
            };
            self.set_state(
                at,
                ToolState::Error {
                    input,
                    error: reason.to_owned(),
                    time,
                },
            );
        }
    }

    fn add(&mut self, content: Content) -> usize {
        self.message.parts.push(Part {
            id: self.builtin.fresh_id("prt"),
            session_id: self.message.info.session_id.clone(),
            message_id: self.message.info.id.clone(),
            content,
        });
        let at = self.message.parts.len() - 1;
        self.show(at);
        at
    }

    fn show(&self, at: usize) {
        self.journal
            .emit("message.part.updated", json!({"part": self.message.parts[at]}));
    }

    fn show_info(&self) {
        self.journal
            .emit("message.updated", json!({"info": self.message.info}));
    }
}

fn failure(message: &str) -> TurnFailure {
    TurnFailure {
        message: message.to_owned(),
        status: None,
    }
}
