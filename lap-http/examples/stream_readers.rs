//! How much readers of streams cost: memory while they wait, and time until all have read a turn.
//!
//! ```text
//! cargo run --release -p lap-http --example stream_readers -- [readers] [sessions] [words]
//! ```
//!
//! The server is this process, over memory backends; the readers are connections of a second one. Each session then
//! takes one turn whose answer has so many words, each a `message.part.delta` event of its own.

#![expect(clippy::print_stdout, reason = "it reports to a person")]

use std::error::Error;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lap_core::backends::Backends;
use lap_core::caller::Caller;
use lap_core::engine::{AgentDefinition, CreateAgent, Engine, EngineConfig, OpenSession, SendTurn};
use lap_core::id::SessionId;
use lap_core::secret::Secret;
use lap_http::{HttpOptions, MasterKey};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const KEY: &str = "measure-me";
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "readers") {
        return read(&arguments[1], arguments[2].parse()?, &arguments[3..]).await;
    }
    let number = |index: usize, default| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let (readers, sessions, words) = (number(0, 2000)?, number(1, 1)?, number(2, 200)?);
    tokio::time::timeout(PATIENCE, measure(readers, sessions, words)).await?
}

async fn measure(readers: usize, sessions: usize, words: usize) -> Outcome<()> {
    let (engine, address) = serve().await?;
    let caller = Caller::new("bench");
    let ids = open(&engine, &caller, sessions).await?;
    let before = resident_kib()?;
    let mut client = Command::new(std::env::current_exe()?)
        .args(["readers", &address.to_string(), &readers.to_string()])
        .args(ids.iter().map(ToString::to_string))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = BufReader::new(client.stdout.take().ok_or("no output")?).lines();
    said.next_line().await?.ok_or("the readers are not open")?;
    let open = resident_kib()?;
    let started = Instant::now();
    for session in &ids {
        let parts = vec![json!({ "type": "text", "text": "word ".repeat(words) })];
        let send = SendTurn {
            session: *session,
            parts,
            model: None,
            idempotency_key: None,
        };
        engine.send_turn(&caller, send).await?;
    }
    let mut peak = open;
    let read = loop {
        tokio::select! {
            line = said.next_line() => break line?.ok_or("the readers ended")?,
            () = tokio::time::sleep(Duration::from_millis(20)) => peak = peak.max(resident_kib()?),
        }
    };
    let took = started.elapsed();
    println!("readers {readers}, sessions {sessions}, words {words}");
    println!(
        "  memory before {} MiB, with open streams {} MiB, peak {} MiB",
        before / 1024,
        open / 1024,
        peak / 1024
    );
    println!(
        "  per waiting reader {:.1} KiB",
        (open - before) as f64 / readers as f64
    );
    println!("  all had read the turns after {} ms; {read}", took.as_millis());
    Ok(())
}

/// The server.
async fn serve() -> Outcome<(Engine, SocketAddr)> {
    let engine = Engine::start(Backends::in_memory(), EngineConfig::default()).await?;
    let options = HttpOptions::new(MasterKey::new(Secret::new(KEY)));
    let app = lap_http::router(engine.clone(), options);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok((engine, address))
}

/// So many sessions of one agent, ready.
async fn open(engine: &Engine, caller: &Caller, sessions: usize) -> Outcome<Vec<SessionId>> {
    let definition = AgentDefinition {
        model: "m".to_owned(),
        ..AgentDefinition::default()
    };
    let create = CreateAgent {
        definition,
        idempotency_key: None,
    };
    let agent = engine.create_agent(caller, create).await?;
    let mut ids = Vec::new();
    for _ in 0..sessions {
        let opened = engine.open_session(caller, OpenSession::with(agent.id)).await?;
        engine.wait_session(opened.id, PATIENCE).await?;
        ids.push(opened.id);
    }
    Ok(ids)
}

/// The second process: so many streams, spread over the sessions, until each has seen the end of its turn.
async fn read(address: &str, readers: usize, sessions: &[String]) -> Outcome<()> {
    let address: SocketAddr = address.parse()?;
    let bytes = Arc::new(AtomicU64::new(0));
    let mut open = Vec::new();
    for reader in 0..readers {
        let mut socket = TcpStream::connect(address).await?;
        let session = &sessions[reader % sessions.len()];
        let request = format!(
            "GET /api/v1/managed_agents/sessions/{session}/events?follow=1 HTTP/1.1\r\nhost: localhost\r\n\
             authorization: Bearer {KEY}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        until(&mut socket, b"\"ready\"", &bytes).await?;
        open.push(socket);
    }
    bytes.store(0, Ordering::Relaxed);
    println!("open");
    let mut reading = tokio::task::JoinSet::new();
    for mut socket in open {
        let bytes = Arc::clone(&bytes);
        reading.spawn(async move { until(&mut socket, b"\"turn.finished\"", &bytes).await });
    }
    while let Some(done) = reading.join_next().await {
        done??;
    }
    println!("{} KiB were read", bytes.load(Ordering::Relaxed) / 1024);
    Ok(())
}

/// Reads until this has come.
async fn until(socket: &mut TcpStream, wanted: &[u8], bytes: &AtomicU64) -> Outcome<()> {
    let mut text = Vec::new();
    loop {
        let from = text.len().saturating_sub(wanted.len());
        if socket.read_buf(&mut text).await? == 0 {
            return Err("the stream ended early".into());
        }
        if text[from..].windows(wanted.len()).any(|found| found == wanted) {
            bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
            return Ok(());
        }
        if text.len() > 64 * 1024 {
            bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
            text.drain(..text.len() - wanted.len());
        }
    }
}

fn resident_kib() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
