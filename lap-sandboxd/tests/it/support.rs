//! A sandboxd in this process, a scripted model, and a client.

pub(crate) mod model;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
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
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) sandbox: SandboxId,
    pub(crate) instance: InstanceId,
    pub(crate) session: SessionId,
    pub(crate) key: SigningKey,
    pub(crate) harness: SandboxdHarness,
}

impl Place {
    pub(crate) fn new() -> Self {
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
    pub(crate) fn document(&self, gateway: &str, changes: Value) -> String {
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

    pub(crate) async fn start(&self, gateway: &str, changes: Value) -> Running<'_> {
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

    pub(crate) fn contact(&self, address: &str) -> Contact {
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

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("sandbox").join(path)
    }

    pub(crate) fn opening(&self) -> OpenConversation {
        OpenConversation {
            session: self.session,
            fence: 1,
            title: Some("a title".to_owned()),
            prompt: Some("Speak like a pirate.".to_owned()),
            model: "test/model".to_owned(),
            skills: Vec::new(),
            mcp_servers: Vec::new(),
            permission: Value::Null,
            answer_timeout: PATIENCE,
            env: [("SESSION_SECRET".to_owned(), Secret::new("from-open"))].into(),
            history: Vec::new(),
        }
    }
}

pub(crate) fn surroundings() -> Surroundings {
    Surroundings {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
        environment: std::env::vars().collect(),
    }
}

pub(crate) fn fresh_turn() -> TurnId {
    TurnId::fresh(&SystemEntropy::new(), SystemClock.now())
}

pub(crate) fn delivery(text: &str) -> Delivery {
    Delivery {
        turn: fresh_turn(),
        fence: 1,
        parts: vec![json!({"type": "text", "text": text})],
        model: None,
        deadline: PATIENCE,
    }
}

pub(crate) struct Running<'a> {
    pub(crate) place: &'a Place,
    pub(crate) sandboxd: Sandboxd,
    pub(crate) contact: Contact,
}

impl Running<'_> {
    pub(crate) fn harness(&self) -> &SandboxdHarness {
        &self.place.harness
    }

    pub(crate) async fn opened(self) -> Self {
        self.harness().health(&self.contact, PATIENCE).await.unwrap();
        self.harness()
            .open(&self.contact, &self.place.opening())
            .await
            .unwrap();
        self
    }

    pub(crate) async fn send(&self, delivery: &Delivery) -> HarnessEvents {
        match self.harness().send(&self.contact, delivery).await.unwrap() {
            Sent::Started(events) => events,
            refused => panic!("{refused:?}"),
        }
    }

    /// Runs a turn to its end.
    pub(crate) async fn turn(&self, delivery: &Delivery) -> (Vec<HarnessEvent>, Outcome) {
        to_the_end(self.send(delivery).await).await
    }
}

pub(crate) async fn to_the_end(mut events: HarnessEvents) -> (Vec<HarnessEvent>, Outcome) {
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
    let turn = seen.last().and_then(|event| event.turn);
    assert_eq!(
        seen.iter()
            .filter(|event| event.outcome.is_some() && event.turn == turn)
            .count(),
        1
    );
    (seen, outcome)
}

/// Reads on until an event fits.
pub(crate) async fn until(events: &mut HarnessEvents, fits: impl Fn(&HarnessEvent) -> bool) -> HarnessEvent {
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
pub(crate) fn text(outcome: &Outcome) -> String {
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
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many processes carry the sandbox's marker; found in another way than sandboxd's own.
pub(crate) fn survivors(sandbox: SandboxId) -> usize {
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

/// A call of a plain HTTP client; the answer as JSON.
pub(crate) async fn raw(
    running: &Running<'_>,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Vec<u8>,
) -> (StatusCode, Value) {
    let (status, text) = raw_text(running, method, path, token, body).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// A call of a plain HTTP client; the whole answer as text.
pub(crate) async fn raw_text(
    running: &Running<'_>,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Vec<u8>,
) -> (StatusCode, String) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", running.contact.address));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = client
        .request(request.body(Full::<Bytes>::from(body)).unwrap())
        .await
        .unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// The same with this sandbox's token and a JSON body.
pub(crate) async fn call(
    running: &Running<'_>,
    method: &str,
    path: &str,
    body: Value,
) -> (StatusCode, Value) {
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    raw(running, method, path, Some(running.contact.token.expose()), body).await
}
