//! A lost reply, followed by a repetition of the call, changes nothing that the call has not changed.

use std::sync::Arc;
use std::time::Duration;

use lap_core::error::Result;
use lap_core::session::EndedBy;
use lap_core::store::{
    Accept, Accepted, Advance, AgentUpdate, Append, End, Finish, Ingest, NewAgent, NewRecord, Open, Opened,
    Replace, Revived, Step, Store, Take, WorkKind,
};
use lap_core::turn::Outcome;
use lap_core::{ErrorKind, event::NewEvent};

use crate::scene::Scene;
use crate::{Fault, Faulty, StoreUnderTest};

impl Scene<'_> {
    /// Makes a call whose reply is lost, repeats it, and gives the answer to the repetition.
    async fn repeated<T, F>(&self, call: impl Fn(Arc<dyn Store>) -> F) -> T
    where
        F: Future<Output = Result<T>>,
    {
        let faulty = Arc::new(Faulty::new(Arc::clone(&self.store)).with_script([Fault::FailAfter]));
        let before = self.snapshot().await;
        let lost = call(Arc::clone(&faulty) as Arc<dyn Store>)
            .await
            .err()
            .expect("the reply was lost");
        assert_eq!(lost.kind(), ErrorKind::Unavailable);
        let happened = self.snapshot().await;
        assert_ne!(happened, before, "{:?} happened", faulty.calls());
        let answer = call(faulty as Arc<dyn Store>)
            .await
            .expect("the repetition passes");
        assert_eq!(self.snapshot().await, happened, "the repetition changes nothing");
        answer
    }
}

/// Creations, updates and deletions of agents.
pub async fn a_repeated_write_of_an_agent_changes_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let keyless = scene.new_agent();
    let keyed = NewAgent {
        idempotency: Some(scene.request("create_agent", "", "k")),
        ..scene.new_agent()
    };
    for new in [&keyless, &keyed] {
        scene
            .repeated(|store| async move { store.create_agent(new.clone()).await })
            .await;
    }
    let agent = scene.store.agent(keyless.id).await.unwrap().unwrap();
    let update = &AgentUpdate {
        id: agent.id,
        expected_version: agent.version,
        spec: agent.spec.clone(),
        blueprint_hash: agent.blueprint_hash.clone(),
    };
    scene
        .repeated(|store| async move { store.update_agent(update.clone()).await })
        .await;
    let agent = scene.store.agent(agent.id).await.unwrap().unwrap();
    scene.open(scene.new_open(&agent)).await;
    let ended = scene
        .repeated(|store| async move { store.delete_agent(keyless.id).await })
        .await;
    assert_eq!(ended, None, "it was deleted before");
}

/// Opens, warm and cold. What the lost reply gave is found among what the worker holds.
pub async fn a_repeated_open_changes_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    scene.warm(&agent).await;
    for _ in 0..2 {
        let open = &Open {
            first_turn: Some(scene.new_turn("hello")),
            ..scene.new_open(&agent)
        };
        let answer = scene
            .repeated(|store| async move { store.open(open.clone()).await })
            .await;
        assert!(matches!(answer, Opened::Replayed(session) if session.id == open.session));
        let held = scene.store.held(scene.worker).await.unwrap();
        let bring_up = held.iter().find(|item| item.key() == open.session.to_string());
        let bring_up = bring_up.expect("the worker finds the bring-up that it was given");
        scene
            .stepped(open.session, &bring_up.hold, scene.ready_step())
            .await;
    }
}

/// Revivals, of a dead session and of a ready one.
pub async fn a_repeated_revival_changes_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    for session in [scene.dead().await, scene.ready().await] {
        let revive = &scene.new_revive(&session);
        let answer = scene
            .repeated(|store| async move { store.revive(revive.clone()).await })
            .await;
        assert!(matches!(answer, Revived::Creating(again) if again.attempt == session.attempt + 1));
        let held = scene.store.held(scene.worker).await.unwrap();
        let bring_up = held.iter().find(|item| item.key() == session.id.to_string());
        bring_up.expect("the worker finds the bring-up that it was given");
    }
}

/// Steps of a bring-up, and replacements of its sandbox.
pub async fn a_repeated_step_changes_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, hold) = scene.creating().await;
    let agent = scene.store.agent(session.agent).await.unwrap().unwrap();
    scene.warm(&agent).await;
    scene.warm(&agent).await;
    scene.queued(session.id).await;
    let replace = &Replace {
        session: session.id,
        hold: hold.clone(),
        broken: session.sandbox.unwrap(),
        reason: "no answer".to_owned(),
        cold_sandbox: scene.sandbox_id(),
        place: scene.place,
        warm: true,
    };
    scene
        .repeated(|store| async move { store.replace_sandbox(replace.clone()).await })
        .await;
    let phase = Step::Phase(lap_core::session::Phase::PodRunning, None);
    for step in [phase, scene.ready_step()] {
        let advance = &Advance {
            session: session.id,
            hold: hold.clone(),
            step,
        };
        scene
            .repeated(|store| async move { store.advance(advance.clone()).await })
            .await;
    }
    let held = scene.store.held(scene.worker).await.unwrap();
    assert_eq!(held.len(), 1, "the worker finds the turn that it was given");
    let (session, hold) = scene.creating().await;
    let advance = &Advance {
        session: session.id,
        hold,
        step: Step::Failed("no".to_owned()),
    };
    scene
        .repeated(|store| async move { store.advance(advance.clone()).await })
        .await;
}

/// Acceptances, aborts and finishes of turns, and ends of sessions.
pub async fn a_repeated_write_of_a_turn_changes_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let keyless = scene.new_accept(session);
    let keyed = Accept {
        idempotency: Some(scene.request("accept", session, "k")),
        ..scene.new_accept(session)
    };
    for accept in [&keyless, &keyed, &scene.new_accept(session)] {
        let answer = scene
            .repeated(|store| async move { store.accept(accept.clone()).await })
            .await;
        assert!(matches!(answer, Accepted::Replayed(turn) if turn.id == accept.turn.id));
    }
    let hold = scene.store.held(scene.worker).await.unwrap().remove(0).hold;
    let (open, last) = (keyless.turn.id, scene.turns(session).await[2].id);
    for turn in [open, last] {
        scene
            .repeated(|store| async move { store.abort(session, Some(turn)).await })
            .await;
    }
    for turn in [open, keyed.turn.id] {
        let finish = &Finish {
            turn,
            hold: hold.clone(),
            outcome: Outcome::failed("no"),
        };
        scene
            .repeated(|store| async move { store.finish(finish.clone()).await })
            .await;
    }
    scene.started(session).await;
    let end = &End {
        session,
        by: EndedBy::User,
        reason: None,
        only_if_idle_for: None,
    };
    scene
        .repeated(|store| async move { store.end(end.clone()).await })
        .await;
}

/// Plans, warmings, losses and burials of sandboxes.
pub async fn a_repeated_write_of_a_sandbox_changes_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let new = &scene.new_sandbox(&agent);
    scene
        .repeated(|store| async move { store.plan_sandbox(new.clone()).await })
        .await;
    scene
        .repeated(|store| async move { store.warm_sandbox(new.id, "127.0.0.1:1").await })
        .await;
    let session = scene.open(scene.new_open(&agent)).await.session.id;
    scene.queued(session).await;
    scene
        .repeated(|store| async move { store.lose_sandbox(new.id, "killed").await })
        .await;
    scene
        .repeated(|store| async move { store.bury_sandbox(new.id).await })
        .await;
}

/// Ingests of events.
pub async fn a_repeated_ingest_changes_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await;
    let (turn, item) = scene.started(session.id).await;
    let source = session.sandbox.unwrap();
    for (expected, cursor) in [(0, 3), (3, 4)] {
        let append = &Append {
            session: session.id,
            hold: Some(item.hold.clone()),
            ingest: Some(Ingest {
                source,
                expected,
                cursor,
            }),
            running: Some(turn.id),
            events: vec![NewEvent::session_ready()],
        };
        scene
            .repeated(|store| async move { store.append(vec![append.clone()]).await })
            .await;
    }
}

/// Puts and deletions of records.
pub async fn a_repeated_write_of_a_record_changes_nothing(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let new = scene.new_record("agent", Some("slug"));
    let changed = NewRecord {
        expected_version: 1,
        ..new.clone()
    };
    for record in [&new, &changed] {
        scene
            .repeated(|store| async move { store.put_record(record.clone()).await })
            .await;
    }
    scene
        .repeated(|store| async move { store.delete_record(new.id).await })
        .await;
}

/// What a lost reply of a take gave is not given again while the taker lives, and the taker finds it.
pub async fn a_lost_take_is_found(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    scene.enqueue("a", Duration::ZERO).await;
    let kinds = vec![WorkKind::Automation];
    let take = &Take {
        worker: scene.worker,
        kinds,
        places: Vec::new(),
        limit: 9,
    };
    let again = scene
        .repeated(|store| async move { store.take(take.clone()).await })
        .await;
    assert_eq!(again, [], "the item is held");
    let held = scene.store.held(scene.worker).await.unwrap();
    assert_eq!(held.len(), 1, "and its holder finds it");
    assert!(scene.store.done(&held[0]).await.unwrap());
}
