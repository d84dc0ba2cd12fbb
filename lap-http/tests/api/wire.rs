//! The wire of the original system, exchange by exchange.
//!
//! Each fixture holds requests as clients of the original send them, and the original's answers (`original`). Where
//! LAP answers otherwise, `lap` says how and `deviation` quotes the place of `docs/compat.md` that says so. In answers
//! `<uuid>`, `<time>`, `<text>`, `<number>`, `<flag>`, `<any>`, alone or with `|null`, stand for values; fields that the
//! original has not must be listed under `added`, and named by the same page.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::support::{Answer, Api, request};

const COMPAT: &str = include_str!("../../../docs/compat.md");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    /// The section of the reference.
    about: String,
    /// Fields that answers have beyond the original's.
    #[serde(default)]
    added: Vec<String>,
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    name: String,
    request: Sent,
    original: Received,
    lap: Option<Received>,
    deviation: Option<String>,
    /// Names for parts of the answer, as JSON pointers, to use as `{name}` later.
    #[serde(default)]
    keep: std::collections::BTreeMap<String, String>,
    /// The exchange is repeated until the answer fits.
    #[serde(default)]
    until: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    method: String,
    path: String,
    /// JSON; text is sent as it is.
    body: Option<Value>,
    /// Without the key.
    #[serde(default)]
    anonymous: bool,
    bearer: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Received {
    status: u16,
    body: Option<Value>,
    content_type: Option<String>,
    /// The data of a stream: these frames in this order, with any others between them; the first and the last are
    /// the stream's.
    frames: Option<Vec<Value>>,
}

#[tokio::test]
async fn agents_are_as_in_the_original() {
    play(include_str!("fixtures/agents.json")).await;
}

#[tokio::test]
async fn sessions_are_as_in_the_original() {
    play(include_str!("fixtures/sessions.json")).await;
}

#[tokio::test]
async fn conversations_are_as_in_the_original() {
    play(include_str!("fixtures/conversations.json")).await;
}

#[tokio::test]
async fn the_opencode_passthrough_is_as_in_the_original() {
    play(include_str!("fixtures/opencode.json")).await;
}

async fn play(fixture: &str) {
    let fixture: Fixture = serde_json::from_str(fixture).unwrap();
    for field in &fixture.added {
        assert!(
            COMPAT.contains(field.as_str()),
            "docs/compat.md does not name the added field {field}"
        );
    }
    let api = Api::start().await;
    let mut kept = Map::new();
    for exchange in &fixture.exchanges {
        let name = format!("{}: {}", fixture.about, exchange.name);
        if let Some(deviation) = &exchange.deviation {
            assert!(
                COMPAT.contains(deviation.as_str()),
                "{name}: docs/compat.md does not say {deviation:?}"
            );
        }
        assert_eq!(
            exchange.lap.is_some(),
            exchange.deviation.is_some(),
            "{name}: a deviation needs both"
        );
        let expected = exchange.lap.as_ref().unwrap_or(&exchange.original);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let answer = loop {
            let answer = api.call(built(&exchange.request, &kept)).await;
            match fits(expected, &answer, &fixture.added) {
                Ok(()) => break answer,
                Err(why) if exchange.until && std::time::Instant::now() < deadline => drop(why),
                Err(why) => panic!("{name}: {why}\n{} {:?}", answer.status, answer.body),
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        for (name, pointer) in &exchange.keep {
            let found = answer.json().pointer(pointer).cloned();
            kept.insert(
                name.clone(),
                found.unwrap_or_else(|| panic!("{name} at {pointer}")),
            );
        }
    }
}

fn built(sent: &Sent, kept: &Map<String, Value>) -> http::Request<axum::body::Body> {
    let fill = |text: &str| {
        kept.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value.as_str().unwrap_or_default())
        })
    };
    let body = match &sent.body {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(json) => fill(&json.to_string()),
    };
    let method: Method = sent.method.parse().unwrap();
    let mut request = request(method, &fill(&sent.path), body);
    if sent.anonymous {
        request.headers_mut().remove("authorization");
    }
    if let Some(bearer) = &sent.bearer {
        request.headers_mut().insert(
            "authorization",
            format!("Bearer {}", fill(bearer)).parse().unwrap(),
        );
    }
    request
}

fn fits(expected: &Received, answer: &Answer, added: &[String]) -> Result<(), String> {
    if answer.status != StatusCode::from_u16(expected.status).unwrap() {
        return Err(format!("expected status {}", expected.status));
    }
    if let Some(kind) = &expected.content_type
        && !answer.header("content-type").starts_with(kind.as_str())
    {
        return Err(format!("expected {kind}, got {}", answer.header("content-type")));
    }
    if let Some(body) = &expected.body {
        let found = match body {
            Value::String(text) if !text.starts_with('<') => {
                Value::from(String::from_utf8_lossy(&answer.body))
            }
            _ => answer.json(),
        };
        alike(body, &found, "", added)?;
    }
    match &expected.frames {
        Some(frames) => streamed(frames, answer),
        None => Ok(()),
    }
}

fn streamed(expected: &[Value], answer: &Answer) -> Result<(), String> {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let frames: Vec<Value> = lines.map(|data| serde_json::from_str(data).unwrap()).collect();
    // What frames have beyond the original's is told by docs/compat.md for all of them.
    let added = ["id", "at", "turn_id", "code", "offset"].map(str::to_owned);
    let is = |frame: &Value, wanted: &Value| alike(wanted, frame, "", &added).is_ok();
    let (first, last) = (
        frames.first().ok_or("no frame")?,
        frames.last().ok_or("no frame")?,
    );
    if !is(first, &expected[0]) || !is(last, &expected[expected.len() - 1]) {
        return Err(format!("the stream begins with {first} and ends with {last}"));
    }
    let mut rest = frames.iter();
    for wanted in expected {
        if !rest.any(|frame| is(frame, wanted)) {
            return Err(format!("no {wanted} in its place"));
        }
    }
    Ok(())
}

/// Whether a value is as expected; else where it is not.
fn alike(expected: &Value, found: &Value, at: &str, added: &[String]) -> Result<(), String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, value) in expected {
                let found = found.get(name).ok_or_else(|| format!("{at}/{name} is missing"))?;
                alike(value, found, &format!("{at}/{name}"), added)?;
            }
            let more = found
                .keys()
                .find(|name| !expected.contains_key(*name) && !added.contains(name));
            more.map_or(Ok(()), |name| Err(format!("{at}/{name} is not of the original")))
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            let pairs = expected.iter().zip(found).enumerate();
            pairs
                .into_iter()
                .try_for_each(|(index, (a, b))| alike(a, b, &format!("{at}/{index}"), added))
        }
        (Value::String(pattern), found) if pattern.starts_with('<') && pattern.ends_with('>') => {
            let mut kinds = pattern[1..pattern.len() - 1].split('|');
            if kinds.any(|kind| is_a(kind, found)) {
                return Ok(());
            }
            Err(format!("{at} is {found} and not {pattern}"))
        }
        (expected, found) if expected == found => Ok(()),
        (expected, found) => Err(format!("{at} is {found} and not {expected}")),
    }
}

fn is_a(kind: &str, value: &Value) -> bool {
    let text = value.as_str();
    match kind {
        "any" => true,
        "null" => value.is_null(),
        "text" => text.is_some_and(|text| !text.is_empty()),
        "uuid" => text.is_some_and(|text| uuid::Uuid::parse_str(text).is_ok()),
        "time" => text.is_some_and(|text| text.len() == 24 && text.ends_with('Z') && text.contains('T')),
        "number" => value.is_number(),
        "flag" => value.is_boolean(),
        "list" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no such pattern: {other}"),
    }
}
