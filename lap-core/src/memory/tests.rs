//! The scripted agent behaves like a real harness.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::{MemoryHarness, MemoryWorld, Preparation};
use crate::agent::AgentSpec;
use crate::blueprint::{Blueprint, LateBindable};
use crate::error::ErrorKind;
use crate::harness::{
    Contact, Delivery, Harness, HarnessEvent, HarnessEvents, OpenConversation, Readiness, Sent,
};
use crate::id::{InstanceId, SandboxId, SeededEntropy, SessionId, TurnId};
use crate::runtime::{LaunchSpec, SandboxRuntime};
use crate::time::{Clock, SystemClock, Timestamp};
use crate::token::{Scope, SigningKey};
use crate::turn::TurnState;
use crate::vault::GatewayAccess;

const NOW: Timestamp = Timestamp::from_unix_millis(1_767_225_600_000);

struct Room {
    world: MemoryWorld,
    harness: MemoryHarness,
    key: SigningKey,
    entropy: SeededEntropy,
    contact: Contact,
    session: SessionId,
}

impl Room {
    async fn new(preparation: Preparation) -> Self {
        let world = MemoryWorld::new(Arc::new(SystemClock));
        world.prepare(preparation);
        let entropy = SeededEntropy::new(3);
        let key = SigningKey::from_seed(&SigningKey::fresh_seed(&entropy)).unwrap();
        let sandbox = SandboxId::fresh(&entropy, NOW);
        let spec = LaunchSpec {
            sandbox,
            instance: InstanceId::fresh(&entropy, NOW),
            public_key: key.verifying_key(),
            blueprint: Blueprint::of(&AgentSpec::default(), LateBindable::ALL),
            env: BTreeMap::new(),
            git_token: None,
            gateway: GatewayAccess {
                base: String::new(),
                key: String::new(),
            },
            labels: BTreeMap::new(),
        };
        world.runtime().launch(&spec).await.unwrap();
        let token = key.mint(
            sandbox,
            Scope::Control,
            SystemClock.now(),
            Duration::from_secs(600),
        );
        let contact = Contact {
            sandbox,
            address: world.address(sandbox),
            token,
        };
        let session = SessionId::fresh(&entropy, NOW);
        Self {
            harness: world.harness(),
            world,
            key,
            entropy,
            contact,
            session,
        }
    }

    async fn open(&self, session: SessionId, fence: u64) -> crate::error::Result<String> {
        let open = OpenConversation {
            session,
            fence,
            title: None,
            prompt: None,
            model: "m".to_owned(),
            skills: Vec::new(),
            mcp_servers: Vec::new(),
            permission: serde_json::Value::Null,
            answer_timeout: Duration::from_secs(600),
            env: BTreeMap::new(),
            history: Vec::new(),
        };
        self.harness.open(&self.contact, &open).await
    }

    fn delivery(&self, text: &str, fence: u64) -> Delivery {
        Delivery {
            turn: TurnId::fresh(&self.entropy, NOW),
            fence,
            parts: vec![json!({ "type": "text", "text": text })],
            model: None,
            deadline: Duration::from_secs(60),
        }
    }

    async fn send(&self, text: &str) -> (TurnId, HarnessEvents) {
        let delivery = self.delivery(text, 1);
        match self.harness.send(&self.contact, &delivery).await.unwrap() {
            Sent::Started(events) => (delivery.turn, events),
            other => panic!("the turn starts, not {other:?}"),
        }
    }
}

async fn read(events: HarnessEvents) -> Vec<HarnessEvent> {
    events
        .map(|event| event.expect("the stream is whole"))
        .collect()
        .await
}

fn deltas(events: &[HarnessEvent]) -> String {
    let mut text = String::new();
    for event in events.iter().filter(|event| event.kind == "message.part.delta") {
        assert_eq!(
            event.properties["offset"],
            text.len(),
            "a delta says where it belongs"
        );
        text.push_str(event.properties["delta"].as_str().unwrap());
    }
    text
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_echoed_in_deltas_and_ends_with_its_reply() {
    let room = Room::new(Preparation::Instant).await;
    room.open(room.session, 1).await.unwrap();
    let (turn, events) = room.send("hello world").await;
    let events = read(events).await;
    let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(deltas(&events), "PONG hello world");
    let last = events.last().unwrap();
    assert_eq!((last.kind.as_str(), last.turn), ("turn.finished", Some(turn)));
    let outcome = last.outcome.clone().unwrap();
    assert_eq!(outcome.state, TurnState::Completed);
    assert_eq!(
        outcome.reply.as_ref().unwrap()["parts"][0]["text"],
        "PONG hello world"
    );
    let messages = room.harness.messages(&room.contact).await.unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(Some(&messages[1]), outcome.reply.as_ref());

    let again = room.harness.attach(&room.contact, 3, turn).await.unwrap();
    assert_eq!(
        read(again).await,
        events[3..],
        "the journal continues after a number"
    );
    let end = room.harness.attach(&room.contact, last.seq, turn).await.unwrap();
    assert_eq!(read(end).await, [], "and ends after the outcome");
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_started_once_and_older_fences_are_refused() {
    let room = Room::new(Preparation::Instant).await;
    let unbound = room
        .harness
        .send(&room.contact, &room.delivery("hello", 5))
        .await
        .unwrap_err();
    assert_eq!(unbound.kind(), ErrorKind::WrongState);
    let conversation = room.open(room.session, 5).await.unwrap();
    assert_eq!(room.open(room.session, 5).await.unwrap(), conversation);
    let other = SessionId::fresh(&room.entropy, NOW);
    assert_eq!(
        room.open(other, 6).await.unwrap_err().kind(),
        ErrorKind::WrongState
    );
    assert_eq!(
        room.open(room.session, 4).await.unwrap_err().kind(),
        ErrorKind::Stale
    );

    let first = room.delivery("HANG", 5);
    assert!(matches!(
        room.harness.send(&room.contact, &first).await.unwrap(),
        Sent::Started(_)
    ));
    assert!(matches!(
        room.harness.send(&room.contact, &first).await.unwrap(),
        Sent::Known
    ));
    let stale = room
        .harness
        .send(&room.contact, &room.delivery("hello", 4))
        .await
        .unwrap();
    assert!(matches!(stale, Sent::Stale));
    let busy = room
        .harness
        .send(&room.contact, &room.delivery("hello", 5))
        .await
        .unwrap();
    assert!(matches!(busy, Sent::Busy));
    assert_eq!(
        room.world.deliveries(first.turn),
        BTreeMap::from([(room.contact.sandbox, 1)])
    );
    assert!(room.harness.has_turn(&room.contact, first.turn).await.unwrap());
    room.world.forget(room.contact.sandbox);
    assert!(!room.harness.has_turn(&room.contact, first.turn).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn scripts_fail_hang_ask_and_run_out_of_time() {
    let room = Room::new(Preparation::Instant).await;
    room.open(room.session, 1).await.unwrap();
    let outcome = |events: Vec<HarnessEvent>| events.last().unwrap().outcome.clone().unwrap();
    let (_, events) = room.send("FAIL no credit").await;
    let failed = outcome(read(events).await);
    assert_eq!(
        (failed.state, failed.failure.as_deref()),
        (TurnState::Failed, Some("no credit"))
    );

    let (turn, events) = room.send("HANG").await;
    for _ in 0..2 {
        room.harness.abort(&room.contact, turn).await.unwrap();
    }
    assert_eq!(outcome(read(events).await).state, TurnState::Aborted);

    let (_, events) = room.send("SLOW 2").await;
    assert_eq!(deltas(&read(events).await), "chunk 1 chunk 2 ");
    let (_, events) = room.send("HANG").await;
    assert_eq!(
        outcome(read(events).await).state,
        TurnState::Failed,
        "after the deadline"
    );

    let (_, mut events) = room.send("ASK rm").await;
    let request = loop {
        let event = events.next().await.unwrap().unwrap();
        if event.kind == "permission.asked" {
            break event.properties["id"].as_str().unwrap().to_owned();
        }
    };
    room.harness
        .answer(&room.contact, &request, &Value::from("once"))
        .await
        .unwrap();
    assert_eq!(deltas(&read(events).await), "once");
    let again = room
        .harness
        .answer(&room.contact, &request, &Value::from("once"))
        .await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn only_a_living_sandbox_answers_and_only_to_its_instance() {
    let room = Room::new(Preparation::Takes(Duration::from_secs(5))).await;
    let probe = |contact: Contact, wait| {
        let harness = room.harness.clone();
        async move { harness.probe(&contact, Duration::from_secs(wait)).await }
    };
    let other = SandboxId::fresh(&room.entropy, NOW);
    let wrong = Contact {
        sandbox: other,
        ..room.contact.clone()
    };
    assert_eq!(probe(wrong, 0).await.unwrap_err().kind(), ErrorKind::Stale);
    let tty = room.key.mint(
        room.contact.sandbox,
        Scope::Tty,
        SystemClock.now(),
        Duration::from_secs(60),
    );
    let wrong = Contact {
        token: tty,
        ..room.contact.clone()
    };
    assert_eq!(probe(wrong, 0).await.unwrap_err().kind(), ErrorKind::Forbidden);
    assert_eq!(
        probe(room.contact.clone(), 1).await.unwrap().readiness,
        Readiness::Preparing
    );
    assert_eq!(
        probe(room.contact.clone(), 60).await.unwrap().readiness,
        Readiness::Ready
    );

    room.open(room.session, 1).await.unwrap();
    let (_, mut events) = room.send("HANG").await;
    assert!(room.world.kill(room.contact.sandbox, "out of memory"));
    let broken = events.next().await.unwrap();
    assert_eq!(
        broken.unwrap_err().kind(),
        ErrorKind::Unavailable,
        "the stream breaks"
    );
    assert!(events.next().await.is_none());
    assert_eq!(
        probe(room.contact.clone(), 0).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}
