//! The life of a session: opened, brought up, its turns run.

use std::time::Duration;

use lap_core::event::NewEvent;
use lap_core::id::{SessionId, TurnId, WorkerId};
use lap_core::store::*;
use lap_core::turn::{Outcome, TurnState};
use lap_store_postgres::PostgresStore;
use serde_json::json;

use super::{World, below, known};

impl World {
    pub(super) async fn open(&self, store: &PostgresStore, worker: WorkerId) {
        let mut open = self.scene.new_open();
        open.worker = worker;
        if below(3) == 0 {
            open.first_turn = None;
        }
        if below(2) == 0 {
            open.idempotency.key = format!("key-{}", below(40));
        }
        let (key, turn) = (
            open.idempotency.key.clone(),
            open.first_turn.as_ref().map(|turn| turn.id),
        );
        // A lost reply is repeated, as the engine does.
        let mut answer = None;
        for _ in 0..20 {
            answer = known(store.open(open.clone()).await);
            if answer.is_some() {
                break;
            }
        }
        let (opened, is_warm) = match answer {
            Some(Opened::Warm(opened)) => (opened, true),
            Some(Opened::Cold(opened)) => (opened, false),
            Some(Opened::Replayed(session)) => {
                self.note(|history| history.opened.entry(key).or_default().insert(session.id));
                return;
            }
            Some(other) => panic!("{other:?}"),
            None => return,
        };
        let id = opened.session.id;
        self.note(|history| {
            history.opened.entry(key).or_default().insert(id);
            history.sessions.push(id);
            if is_warm {
                history.claimed.entry(opened.sandbox.id).or_default().insert(id);
            }
            history
                .fences
                .extend(opened.work.iter().map(|item| item.hold.fence));
            history.accepted.extend(turn.map(|turn| (turn, id)));
        });
        if let Some(item) = opened.work {
            self.bring_up(store, item).await;
        }
    }

    pub(super) async fn bring_up(&self, store: &PostgresStore, item: WorkItem) {
        let session: SessionId = item.key().parse().unwrap();
        let replace = below(5) == 0;
        if replace && let Some(Some(up)) = known(store.bring_up(session).await) {
            let replace = Replace {
                session,
                hold: item.hold.clone(),
                broken: up.sandbox.id,
                reason: "it is broken".to_owned(),
                cold_sandbox: crate::scene::sandbox_id(),
                place: self.scene.place,
                warm: true,
            };
            if let Some(Replaced::Warm(sandbox)) = known(store.replace_sandbox(replace).await) {
                self.note(|history| history.claimed.entry(sandbox.id).or_default().insert(session));
            }
        }
        let step = if below(12) == 0 {
            Step::Failed("it did not come up".to_owned())
        } else {
            Step::Ready {
                conversation: "c".to_owned(),
                address: "127.0.0.1:2".to_owned(),
                reap_after: Duration::from_secs(600),
            }
        };
        let advance = Advance {
            session,
            hold: item.hold.clone(),
            step,
        };
        match known(store.advance(advance).await) {
            Some(Advanced::Done(_, Some((turn, item)))) => {
                self.note(|history| history.fences.push(item.hold.fence));
                self.run(store, turn.id, item).await;
            }
            Some(Advanced::Done(..)) => {}
            Some(Advanced::Stale) | None => drop(known(store.fail(&item, Duration::ZERO).await)),
        }
    }

    /// Runs the turn and those behind it.
    pub(super) async fn run(&self, store: &PostgresStore, turn: TurnId, item: WorkItem) {
        let session: SessionId = item.key().parse().unwrap();
        let mut turn = turn;
        loop {
            let last = self.append(store, session, turn, &item, true).await;
            let outcome = Outcome {
                state: [TurnState::Completed, TurnState::Failed][below(2)],
                ..Outcome::failed("so it ended")
            };
            let finish = Finish {
                turn,
                hold: item.hold.clone(),
                outcome,
            };
            let answer = match last {
                Some(last) if below(2) == 0 => store.conclude(last, finish).await,
                _ => store.finish(finish).await,
            };
            match known(answer) {
                Some(Finished::Done(_, next)) => {
                    self.note(|history| *history.finished.entry(turn).or_default() += 1);
                    match next {
                        Some(next) => turn = next.id,
                        None => return,
                    }
                }
                // Whoever takes the item begins anew.
                Some(Finished::Stale) | None => {
                    let _ = known(store.fail(&item, Duration::ZERO).await);
                    return;
                }
            }
        }
    }

    /// Appends one event from the sandbox's journal, exactly once whatever happens; gives the next one.
    pub(super) async fn append(
        &self,
        store: &PostgresStore,
        session: SessionId,
        turn: TurnId,
        item: &WorkItem,
        more: bool,
    ) -> Option<Append> {
        let source = known(store.session(session).await)??.sandbox?;
        for _ in 0..=below(3) {
            let at = known(store.cursor(session, source).await)?;
            let append = Append {
                session,
                hold: Some(item.hold.clone()),
                ingest: Some(Ingest {
                    source,
                    expected: at,
                    cursor: at + 1,
                }),
                running: Some(turn),
                events: vec![NewEvent {
                    kind: "said".to_owned(),
                    turn: Some(turn),
                    body: json!({ "source": source.to_string() }),
                    origin: Some(at + 1),
                }],
            };
            if more && below(4) == 0 {
                return Some(append);
            }
            known(store.append(vec![append]).await)?;
        }
        None
    }

    pub(super) async fn accept(&self, store: &PostgresStore, worker: WorkerId) {
        let Some(session) = self.any_session() else {
            return;
        };
        let turn = self.scene.new_turn();
        let key = (below(3) == 0).then(|| Idempotency {
            principal: "ui".to_owned(),
            operation: "accept",
            parent: session.to_string(),
            key: format!("key-{}", below(10)),
            body_hash: "body".to_owned(),
        });
        let accept = Accept {
            session,
            turn,
            queue_limit: 4,
            worker,
            place: self.scene.place,
            idempotency: key,
        };
        match known(store.accept(accept).await) {
            Some(Accepted::Started(turn, item)) => {
                self.note(|history| history.accepted.insert(turn.id, session));
                if let Some(item) = item {
                    self.note(|history| history.fences.push(item.hold.fence));
                    self.run(store, turn.id, item).await;
                }
            }
            Some(Accepted::Queued(turn) | Accepted::Replayed(turn)) => {
                self.note(|history| history.accepted.insert(turn.id, session));
            }
            _ => {}
        }
    }
}
