//! [`Harness`] over the wire types.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use lap_core::blueprint::LateBindable;
use lap_core::error::{Error, ErrorKind, Result};
use lap_core::harness::{
    Contact, Delivery, Harness, HarnessEvent, HarnessEvents, OpenConversation, Probe, Readiness, Sent,
    Snapshot,
};
use lap_core::id::{SessionId, TurnId};
use lap_core::session::Phase;
use lap_core::turn;
use serde_json::{Value, json};

use super::{ANSWER_TIMEOUT, EventStream, Refused, SandboxdHarness, answer};
use crate::health;
use crate::journal::{JournalEvent, TURN_FINISHED};
use crate::names::HARNESSES;
use crate::opening::{OpenAnswer, OpenRequest, Skill};
use crate::problem;
use crate::turn::{Outcome, TurnFinished, TurnRequest};

#[async_trait]
impl Harness for SandboxdHarness {
    fn late_bindable(&self, harness: &str) -> Option<LateBindable> {
        HARNESSES.contains(&harness).then_some(LateBindable::ALL)
    }

    async fn probe(&self, at: &Contact, wait: Duration) -> Result<Probe> {
        let health = self.health(at, wait).await?;
        let detail = Some(health.detail).filter(|detail| !detail.is_empty());
        let readiness = match health.state {
            health::Readiness::Preparing => Readiness::Preparing,
            health::Readiness::Ready => Readiness::Ready,
            health::Readiness::Failed => Readiness::Failed(
                detail
                    .clone()
                    .unwrap_or_else(|| "the sandbox gives no reason".to_owned()),
            ),
        };
        Ok(Probe {
            readiness,
            phase: Phase::from_name(&health.phase),
            detail,
            session: health.session.map(SessionId::from_uuid),
        })
    }

    async fn open(&self, at: &Contact, open: &OpenConversation) -> Result<String> {
        const OPERATION: &str = "open the sandbox";
        match self.post(OPERATION, at, "/lap/open", &opening(open)).await {
            Ok(answer) => Ok(answer::json::<OpenAnswer>(OPERATION, answer).await?.conversation),
            Err(Refused::Code(code, error)) if code == problem::STALE_FENCE => {
                Err(Error::new(ErrorKind::Stale, OPERATION, error.message()))
            }
            Err(refused) => Err(refused.into()),
        }
    }

    async fn snapshot(&self, at: &Contact, limit_bytes: usize) -> Result<Snapshot> {
        self.take_snapshot(at, limit_bytes).await
    }

    async fn restore(&self, at: &Contact, fence: u64, snapshot: &Snapshot) -> Result<Vec<String>> {
        self.restore_snapshot(at, fence, snapshot).await
    }

    async fn send(&self, at: &Contact, delivery: &Delivery) -> Result<Sent> {
        let request = TurnRequest {
            turn: delivery.turn.as_uuid(),
            fence: delivery.fence,
            parts: delivery.parts.clone(),
            model: delivery.model.clone(),
            deadline_ms: u64::try_from(delivery.deadline.as_millis()).unwrap_or(u64::MAX),
        };
        match self.post("send a turn", at, "/lap/turns", &request).await {
            Ok(answer) => Ok(Sent::Started(until_outcome(
                EventStream::new(answer),
                delivery.turn,
            ))),
            Err(Refused::Code(code, error)) => match code.as_str() {
                problem::TURN_KNOWN => Ok(Sent::Known),
                problem::BUSY => Ok(Sent::Busy),
                problem::STALE_FENCE => Ok(Sent::Stale),
                _ => Err(error),
            },
            Err(Refused::Other(error)) => Err(error),
        }
    }

    async fn has_turn(&self, at: &Contact, turn: TurnId) -> Result<bool> {
        Ok(self.turn_status(at, turn).await?.is_some())
    }

    async fn attach(&self, at: &Contact, after: u64, turn: TurnId) -> Result<HarnessEvents> {
        let path = format!("/lap/events?after={after}&turn={turn}");
        let answer = self.get("attach to a turn", at, &path, ANSWER_TIMEOUT).await?;
        Ok(until_outcome(EventStream::new(answer), turn))
    }

    async fn abort(&self, at: &Contact, turn: TurnId) -> Result<()> {
        let path = format!("/lap/turns/{turn}/abort");
        self.post("abort a turn", at, &path, &json!({}))
            .await
            .map(drop)
            .map_err(Error::from)
    }

    async fn messages(&self, at: &Contact) -> Result<Vec<Value>> {
        const OPERATION: &str = "read the messages";
        let answer = self.get(OPERATION, at, "/lap/messages", ANSWER_TIMEOUT).await?;
        answer::json(OPERATION, answer).await
    }

    async fn answer(&self, at: &Contact, request: &str, reply: &Value) -> Result<()> {
        let body = json!({"request": request, "reply": reply});
        self.post("answer the agent", at, "/lap/answer", &body)
            .await
            .map(drop)
            .map_err(Error::from)
    }
}

fn opening(open: &OpenConversation) -> OpenRequest {
    let skill = |skill: &lap_core::opening::Skill| Skill {
        slug: skill.slug.clone(),
        content: skill.content.clone(),
    };
    OpenRequest {
        session: open.session.as_uuid(),
        fence: open.fence,
        title: open.title.clone(),
        prompt: open.prompt.clone(),
        model: open.model.clone(),
        skills: open.skills.iter().map(skill).collect(),
        mcp_servers: open.mcp_servers.clone(),
        // The values are for the sandbox's agent, so this is where they leave.
        env: open
            .env
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().to_owned()))
            .collect(),
        permission: open.permission.clone(),
        answer_timeout_ms: Some(u64::try_from(open.answer_timeout.as_millis()).unwrap_or(u64::MAX)),
        history: (!open.history.is_empty()).then(|| open.history.clone()),
    }
}

/// The events of a journal up to the outcome of `turn`, whatever the sandbox sends after it.
fn until_outcome(events: EventStream, turn: TurnId) -> HarnessEvents {
    Box::pin(stream::unfold(Some(events), move |events| async move {
        let mut events = events?;
        match events.next().await {
            Ok(Some(event)) => {
                let event = harness_event(event);
                let ended = event.outcome.is_some() && event.turn == Some(turn);
                Some((Ok(event), (!ended).then_some(events)))
            }
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }))
}

fn harness_event(event: JournalEvent) -> HarnessEvent {
    let outcome = (event.kind == TURN_FINISHED).then(|| outcome(&event.properties));
    HarnessEvent {
        seq: event.seq,
        turn: event.turn.map(TurnId::from_uuid),
        kind: event.kind,
        properties: event.properties,
        outcome,
    }
}

/// A malformed end is still an end: the turn failed.
fn outcome(properties: &Value) -> turn::Outcome {
    let Ok(finished) = serde_json::from_value::<TurnFinished>(properties.clone()) else {
        return turn::Outcome::failed("the sandbox ended the turn in a way that cannot be read");
    };
    let usage = finished.usage.unwrap_or_default();
    let state = match finished.outcome {
        Outcome::Completed => turn::TurnState::Completed,
        Outcome::Failed => turn::TurnState::Failed,
        Outcome::Aborted => turn::TurnState::Aborted,
    };
    let reason = |default: &str| {
        finished
            .error
            .map_or_else(|| default.to_owned(), |error| error.message)
    };
    let failure = match state {
        turn::TurnState::Completed => None,
        turn::TurnState::Aborted => Some(reason("stopped on request")),
        _ => Some(reason("the sandbox gives no reason")),
    };
    turn::Outcome {
        state,
        failure,
        reply: finished.reply.filter(Value::is_object),
        usage: turn::Usage {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cost: usage
                .cost
                .filter(|cost| cost.is_finite() && *cost >= 0.0)
                .unwrap_or(0.0),
        },
    }
}
