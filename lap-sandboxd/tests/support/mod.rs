//! A sandboxd in this process, a scripted model, and a client.

#![allow(dead_code, reason = "every test file uses another part of it")]

pub mod model;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lap_core::harness::{Contact, Delivery, Harness, HarnessEvent, HarnessEvents, OpenConversation, Sent};
use lap_core::id::{InstanceId, SandboxId, SessionId, SystemEntropy, TurnId};
use lap_core::secret::Secret;
use lap_core::time::{Clock, SystemClock};
use lap_core::token::{Scope, SigningKey};
use lap_core::turn::Outcome;
use lap_harness::SandboxdHarness;
use lap_sandboxd::{Sandboxd, Surroundings};
use serde_json::{Value, json};

/// Generous: the machine may be loaded.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Place {
    pub folder: tempfile::TempDir,
    pub sandbox: SandboxId,
    pub instance: InstanceId,
    pub session: SessionId,
    pub key: SigningKey,
    pub harness: SandboxdHarness,
}

impl Place {
    pub fn new() -> Self {
        let entropy = SystemEntropy::new();
        let now = SystemClock.now();
        Self {
            folder: tempfile::tempdir().unwrap(),
            sandbox: SandboxId::fresh(&entropy, now),
            instance: InstanceId::fresh(&entropy, now),
            session: SessionId::fresh(&entropy, now),
            key: SigningKey::from_seed(&SigningKey::fresh_seed(&entropy)).unwrap(),
            harness: SandboxdHarness::new(),
        }
    }

    /// The launch document, with `changes` laid over it.
    pub fn document(&self, gateway: &str, changes: Value) -> String {
        let mut document = json!({
            "sandbox": self.sandbox.to_string(),
            "instance": self.instance.to_string(),
            "public_key": self.key.verifying_key().to_base64(),
            "folder": self.folder.path().join("sandbox"),
            "listen": "127.0.0.1:0",
            "harness": "builtin",
            "env": {"PLAIN": "from-launch"},
            "gateway": {"base": gateway, "key": "stub_key"},
            "protocol": 1,
        });
        for (name, value) in changes.as_object().unwrap() {
            document[name] = value.clone();
        }
        document.to_string()
    }

    pub async fn start(&self, gateway: &str, changes: Value) -> Running<'_> {
        let sandboxd = Sandboxd::start(&self.document(gateway, changes), surroundings())
            .await
            .unwrap();
        let contact = self.contact(&sandboxd.endpoint().address.to_string());
        Running {
            place: self,
            sandboxd,
            contact,
        }
    }

    pub fn contact(&self, address: &str) -> Contact {
        let token = self.key.mint(
            self.sandbox,
            Scope::Control,
            SystemClock.now(),
            Duration::from_secs(600),
        );
        Contact {
            sandbox: self.sandbox,
            address: address.to_owned(),
            token,
        }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("sandbox").join(path)
    }

    pub fn opening(&self) -> OpenConversation {
        OpenConversation {
            session: self.session,
            fence: 1,
            title: Some("a title".to_owned()),
            prompt: Some("Speak like a pirate.".to_owned()),
            model: "test/model".to_owned(),
            skills: Vec::new(),
            mcp_servers: Vec::new(),
            env: [("SESSION_SECRET".to_owned(), Secret::new("from-open"))].into(),
        }
    }
}

pub fn surroundings() -> Surroundings {
    Surroundings {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
        environment: std::env::vars().collect(),
    }
}

pub fn fresh_turn() -> TurnId {
    TurnId::fresh(&SystemEntropy::new(), SystemClock.now())
}

pub fn delivery(text: &str) -> Delivery {
    Delivery {
        turn: fresh_turn(),
        fence: 1,
        parts: vec![json!({"type": "text", "text": text})],
        model: None,
        deadline: PATIENCE,
    }
}

pub struct Running<'a> {
    pub place: &'a Place,
    pub sandboxd: Sandboxd,
    pub contact: Contact,
}

impl Running<'_> {
    pub fn harness(&self) -> &SandboxdHarness {
        &self.place.harness
    }

    pub async fn opened(self) -> Self {
        self.harness().health(&self.contact, PATIENCE).await.unwrap();
        self.harness()
            .open(&self.contact, &self.place.opening())
            .await
            .unwrap();
        self
    }

    pub async fn send(&self, delivery: &Delivery) -> HarnessEvents {
        match self.harness().send(&self.contact, delivery).await.unwrap() {
            Sent::Started(events) => events,
            refused => panic!("{refused:?}"),
        }
    }

    /// Runs a turn to its end.
    pub async fn turn(&self, delivery: &Delivery) -> (Vec<HarnessEvent>, Outcome) {
        to_the_end(self.send(delivery).await).await
    }
}

pub async fn to_the_end(mut events: HarnessEvents) -> (Vec<HarnessEvent>, Outcome) {
    let mut seen = Vec::new();
    let all = async {
        while let Some(event) = events.next().await {
            seen.push(event.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("the turn does not end");
    let outcome = seen
        .last()
        .and_then(|event| event.outcome.clone())
        .expect("no outcome");
    assert_eq!(seen.iter().filter(|event| event.outcome.is_some()).count(), 1);
    (seen, outcome)
}

/// Reads on until an event fits.
pub async fn until(events: &mut HarnessEvents, fits: impl Fn(&HarnessEvent) -> bool) -> HarnessEvent {
    let found = async {
        loop {
            let event = events.next().await.expect("the stream ended").unwrap();
            if fits(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .expect("the event does not come")
}

/// The text of the reply.
pub fn text(outcome: &Outcome) -> String {
    let parts = outcome.reply.as_ref().unwrap()["parts"]
        .as_array()
        .unwrap()
        .clone();
    parts
        .iter()
        .filter(|part| part["type"] == "text")
        .filter_map(|part| part["text"].as_str())
        .collect()
}

/// Waits on a condition.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many processes carry the sandbox's marker; found in another way than sandboxd's own.
pub fn survivors(sandbox: SandboxId) -> usize {
    let marker = format!("LAP_SANDBOX_ID={sandbox}");
    let alive = std::process::Command::new("sh")
        .args([
            "-c",
            "grep -lzxF -- \"$0\" /proc/[0-9]*/environ 2>/dev/null | wc -l",
            &marker,
        ])
        .output()
        .unwrap();
    String::from_utf8(alive.stdout).unwrap().trim().parse().unwrap()
}
