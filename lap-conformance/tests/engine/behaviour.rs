//! What the engine does when nothing fails, and what it counts.

mod bring_up;
mod drain;
mod sessions;
mod streams;
mod turns;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lap_conformance::crash::{Actor, Backend, Site, Stage, Strike, Wire};
use lap_core::engine::{Engine, EngineConfig};
use lap_core::id::SessionId;

use crate::paused::paused;

/// One engine on a stage, and the calls it makes.
pub(crate) struct Room {
    pub(crate) actor: Actor,
    pub(crate) wire: Arc<Wire>,
    calls: Arc<Mutex<Vec<Site>>>,
}

impl Room {
    fn new(configure: impl FnOnce(&mut EngineConfig)) -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&calls);
        let wire = Wire::new(move |_, site| {
            noted.lock().unwrap().push(site);
            Strike::Pass
        });
        let mut stage = Stage::new(11);
        configure(&mut stage.config);
        let actor = Actor::new(stage, &wire);
        Self { actor, wire, calls }
    }

    async fn engine(&self) -> Engine {
        self.actor.engine().await.unwrap().0
    }

    /// A session that takes turns.
    async fn ready(&self) -> SessionId {
        let agent = self.actor.agent().await.unwrap();
        let session = self.actor.open(agent, "open", None).await.unwrap();
        self.actor.brought_up(session).await.unwrap();
        session
    }

    /// The calls of the store since the last look that change something, but for the beats.
    fn writes(&self) -> Vec<&'static str> {
        let reads = [
            "agent",
            "session",
            "bring_up",
            "turn",
            "events",
            "cursor",
            "sandbox",
            "take",
            "held",
            "beat",
            "ping",
            "list_turns",
            "list_sessions",
            "sandboxes_at",
            "instance",
        ];
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        let of_store = calls.into_iter().filter(|site| site.backend == Backend::Store);
        of_store
            .map(|site| site.method)
            .filter(|method| !reads.contains(method))
            .collect()
    }
}

/// A room with the usual settings.
fn room<T>(test: impl AsyncFnOnce(&Room) -> T) -> T {
    room_with(|_| {}, test)
}

fn room_with<T>(configure: impl FnOnce(&mut EngineConfig), test: impl AsyncFnOnce(&Room) -> T) -> T {
    paused(async {
        let room = Room::new(configure);
        room.engine().await;
        // What an engine does at its start is over.
        settle().await;
        room.writes();
        let done = test(&room).await;
        room.actor.play(async { Ok(()) }).await.unwrap();
        done
    })
}

/// Everything that can happen now has happened.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}
