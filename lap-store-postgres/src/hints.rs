//! Wake-ups between processes over LISTEN and NOTIFY, on one connection of their own.
//!
//! Hints given close together travel as one notification, never in the transaction of a write, because commits that
//! notify follow one another through the whole database.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use lap_core::id::{SessionId, WorkerId};
use lap_core::store::{Hint, HintBus, HintStream, Hints};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::error::Answer;
use crate::link::{Core, Link, sql};

/// Hints that come within this time travel together.
const GATHER: Duration = Duration::from_millis(10);
/// How long to wait before listening is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// A notification has fewer than 8,000 bytes.
const PAYLOAD: usize = 7_000;

#[derive(Debug, Default)]
struct Outbox {
    waiting: std::sync::Mutex<BTreeSet<String>>,
    filled: Notify,
}

/// The hints of one store.
#[derive(Debug)]
pub(crate) struct Wire {
    bus: HintBus,
    outbox: Arc<Outbox>,
    tasks: [JoinHandle<()>; 2],
}

impl Wire {
    /// Starts to listen and to tell. `process` tells this process's own notifications from the others'.
    pub(crate) fn start(core: Arc<Core>, connect: PgConnectOptions, process: String) -> Self {
        let (bus, outbox) = (HintBus::default(), Arc::new(Outbox::default()));
        let channel = format!("lap_hints_{}", core.names.schema());
        let listening = listen(connect, channel.clone(), process.clone(), bus.clone());
        let telling = tell(core, channel, process, Arc::clone(&outbox));
        Self {
            bus,
            outbox,
            tasks: [tokio::spawn(listening), tokio::spawn(telling)],
        }
    }

    pub(crate) fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Hints for Wire {
    fn hint(&self, hint: Hint) {
        self.bus.hint(hint);
        if let Some(line) = line(hint) {
            let mut waiting = self.outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.insert(line);
            self.outbox.filled.notify_one();
        }
    }

    fn hints(&self) -> HintStream {
        self.bus.hints()
    }
}

/// A hint as a line of a notification.
fn line(hint: Hint) -> Option<String> {
    match hint {
        Hint::Work => Some("work".to_owned()),
        Hint::Session { session, from } => Some(format!("session {session} {from}")),
        // Only the one who lost hints can say so; a kind that is newer than this crate stays at home.
        _ => None,
    }
}

/// Lines of a newer version are passed over.
fn parse(line: &str) -> Option<Hint> {
    let mut words = line.split(' ');
    match words.next()? {
        "work" => Some(Hint::Work),
        "session" => {
            let session: SessionId = words.next()?.parse().ok()?;
            let from: WorkerId = words.next()?.parse().ok()?;
            Some(Hint::Session { session, from })
        }
        _ => None,
    }
}

async fn tell(core: Arc<Core>, channel: String, process: String, outbox: Arc<Outbox>) {
    loop {
        outbox.filled.notified().await;
        sleep(GATHER).await;
        let lines = std::mem::take(&mut *outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for payload in payloads(&process, lines) {
            let sent = core
                .ask("send hints", (channel.clone(), payload), |link, what| {
                    notify(link, what).boxed()
                })
                .await;
            if let Err(error) = sent {
                // A lost hint costs latency only.
                tracing::debug!(%error, "hints were not sent");
            }
        }
    }
}

fn payloads(process: &str, lines: BTreeSet<String>) -> Vec<String> {
    let mut payloads: Vec<String> = Vec::new();
    for line in lines {
        match payloads
            .last_mut()
            .filter(|last| last.len() + line.len() < PAYLOAD)
        {
            Some(last) => {
                last.push('\n');
                last.push_str(&line);
            }
            None => payloads.push(format!("{process}\n{line}")),
        }
    }
    payloads
}

/// Nothing is lost when the server forgets a hint, so its commit waits for no disk.
async fn notify(link: &mut Link, (channel, payload): (String, String)) -> Answer<()> {
    let text = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)";
    link.all(sql(text).bind(channel).bind(payload)).await.map(drop)
}

async fn listen(connect: PgConnectOptions, channel: String, process: String, bus: HintBus) {
    loop {
        if let Err(error) = hear(&connect, &channel, &process, &bus).await {
            tracing::debug!(%error, "the connection for hints broke; it is made anew");
        }
        bus.hint(Hint::Missed);
        sleep(PAUSE).await;
    }
}

/// Passes on what others tell, until the connection breaks.
async fn hear(
    connect: &PgConnectOptions,
    channel: &str,
    process: &str,
    bus: &HintBus,
) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(connect.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    // Whatever was told while nobody listened.
    bus.hint(Hint::Missed);
    while let Some(told) = listener.try_recv().await? {
        let mut lines = told.payload().lines();
        if lines.next() == Some(process) {
            continue;
        }
        for hint in lines.filter_map(parse) {
            bus.hint(hint);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lap_core::id::SeededEntropy;
    use lap_core::time::Timestamp;

    use super::*;

    #[test]
    fn hints_survive_the_wire() {
        let entropy = SeededEntropy::new(1);
        let now = Timestamp::from_unix_millis(1);
        let session = SessionId::fresh(&entropy, now);
        let from = WorkerId::fresh(&entropy, now);
        for hint in [Hint::Work, Hint::Session { session, from }] {
            assert_eq!(line(hint).as_deref().and_then(parse), Some(hint));
        }
        assert_eq!(line(Hint::Missed), None);
        for odd in ["", "session", "session x y", "newer thing"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn many_hints_are_few_notifications() {
        let lines: BTreeSet<_> = (0..1000).map(|number| format!("session {number:074}")).collect();
        let payloads = payloads("me", lines);
        assert_eq!(payloads.len(), 12);
        assert!(
            payloads
                .iter()
                .all(|payload| payload.len() < 8000 && payload.starts_with("me\n"))
        );
        let told: usize = payloads.iter().map(|payload| payload.lines().count() - 1).sum();
        assert_eq!(told, 1000);
    }
}
