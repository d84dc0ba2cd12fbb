//! Agents: created once, updated by version, deleted with their sessions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lap_core::agent::{Agent, AgentSpec};
use lap_core::blueprint::BlueprintHash;
use lap_core::sandbox::SandboxState;
use lap_core::session::{EndedBy, SessionState};
use lap_core::store::{
    AgentQuery, AgentUpdate, Created, IDEMPOTENCY_TTL, NewAgent, Opened, Updated, WorkKind,
};
use lap_core::turn::TurnState;

use crate::StoreUnderTest;
use crate::scene::{Scene, together};

fn renamed(agent: &Agent, name: &str) -> AgentUpdate {
    AgentUpdate {
        id: agent.id,
        expected_version: agent.version,
        spec: AgentSpec {
            name: Some(name.to_owned()),
            ..agent.spec.clone()
        },
        blueprint_hash: BlueprintHash::from_text(name),
    }
}

/// A created agent has version 1 and is read as it was given.
pub async fn a_created_agent_is_read(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let new = scene.new_agent();
    let agent = scene.create(new.clone()).await;
    assert_eq!((agent.id, agent.version, &agent.spec), (new.id, 1, &new.spec));
    assert_eq!(
        (&agent.blueprint_hash, &agent.created_by),
        (&new.blueprint_hash, &new.created_by)
    );
    assert_eq!(
        scene.store.agent(agent.id).await.unwrap(),
        Some(agent),
        "it is read as it was answered"
    );
    assert_eq!(scene.store.agent(scene.agent_id()).await.unwrap(), None);
}

/// The same request creates one agent: by key, or by id when there is no key. Another body is refused.
pub async fn a_repeated_creation_is_replayed(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let keyed = |key: &str| NewAgent {
        idempotency: Some(scene.request("create_agent", "", key)),
        ..scene.new_agent()
    };
    let first = scene.create(keyed("k")).await;
    assert_eq!(
        scene.store.create_agent(keyed("k")).await.unwrap(),
        Created::Replayed(first)
    );
    let mut reused = keyed("k");
    reused.idempotency.as_mut().unwrap().body_hash = "body-2".to_owned();
    assert_eq!(
        scene.store.create_agent(reused).await.unwrap(),
        Created::KeyReused
    );
    scene.create(keyed("another key")).await;
    let mut by_other = keyed("k");
    by_other.idempotency.as_mut().unwrap().principal = "someone else".to_owned();
    scene.create(by_other).await;

    let new = scene.new_agent();
    let agent = scene.create(new.clone()).await;
    assert_eq!(
        scene.store.create_agent(new).await.unwrap(),
        Created::Replayed(agent),
        "the id is a key too"
    );
    assert_eq!(
        scene
            .store
            .list_agents(AgentQuery::default())
            .await
            .unwrap()
            .total,
        4
    );
}

/// Of concurrent creations with one key exactly one creates; the others get its agent.
pub async fn concurrent_creations_make_one_agent(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let answers = together(8, |_| {
        let idempotency = Some(scene.request("create_agent", "", "k"));
        let (store, new) = (
            Arc::clone(&scene.store),
            NewAgent {
                idempotency,
                ..scene.new_agent()
            },
        );
        async move { store.create_agent(new).await.unwrap() }
    })
    .await;
    let created = answers
        .iter()
        .filter(|answer| matches!(answer, Created::New(_)))
        .count();
    let ids: BTreeSet<_> = answers
        .iter()
        .map(|answer| match answer {
            Created::New(agent) | Created::Replayed(agent) => agent.id,
            Created::KeyReused => panic!("the body was the same"),
        })
        .collect();
    assert_eq!((created, ids.len()), (1, 1), "one creates, all have its agent");
    assert_eq!(
        scene
            .store
            .list_agents(AgentQuery::default())
            .await
            .unwrap()
            .total,
        1
    );
}

/// A creation is remembered for 24 hours and forgotten then.
pub async fn a_creation_is_remembered_for_a_day(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let keyed = || NewAgent {
        idempotency: Some(scene.request("create_agent", "", "k")),
        ..scene.new_agent()
    };
    let first = scene.create(keyed()).await;
    scene.pass(IDEMPOTENCY_TTL - Duration::from_secs(60)).await;
    assert_eq!(
        scene.store.create_agent(keyed()).await.unwrap(),
        Created::Replayed(first)
    );
    scene.pass(Duration::from_secs(120)).await;
    scene.create(keyed()).await;
}

/// An update needs the expected version, raises it by one and is seen by reads.
pub async fn an_update_loses_to_a_newer_one(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let update = renamed(&agent, "second");
    let answer = scene.store.update_agent(update.clone()).await.unwrap();
    let Updated::Done(second) = answer else {
        panic!("the version was the expected one: {answer:?}")
    };
    assert_eq!((second.version, &second.spec), (2, &update.spec));
    assert_eq!(
        (&second.blueprint_hash, second.created_at),
        (&update.blueprint_hash, agent.created_at)
    );
    assert_eq!(scene.store.agent(agent.id).await.unwrap(), Some(second.clone()));
    assert_eq!(
        scene.store.update_agent(renamed(&agent, "late")).await.unwrap(),
        Updated::Changed
    );
    assert_eq!(
        scene.store.agent(agent.id).await.unwrap(),
        Some(second),
        "a late update changes nothing"
    );
    let unknown = AgentUpdate {
        id: scene.agent_id(),
        ..update
    };
    assert_eq!(scene.store.update_agent(unknown).await.unwrap(), Updated::Missing);
}

/// Of concurrent updates based on one version exactly one is done.
pub async fn concurrent_updates_have_one_winner(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let answers = together(8, |index| {
        let (store, update) = (
            Arc::clone(&scene.store),
            renamed(&agent, &format!("name {index}")),
        );
        async move { store.update_agent(update).await.unwrap() }
    })
    .await;
    let winners: Vec<_> = answers
        .into_iter()
        .filter(|answer| *answer != Updated::Changed)
        .collect();
    let stored = scene
        .store
        .agent(agent.id)
        .await
        .unwrap()
        .expect("the agent is there");
    assert_eq!(stored.version, 2);
    assert_eq!(
        winners,
        [Updated::Done(stored)],
        "one update is done and it is the stored one"
    );
}

/// A deleted agent is neither read, listed, updated nor opened, and is deleted once.
pub async fn a_deleted_agent_is_gone(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (agent, kept) = (scene.agent().await, scene.agent().await);
    assert_eq!(
        scene.store.delete_agent(scene.agent_id()).await.unwrap(),
        None,
        "there is no such agent"
    );
    assert_eq!(
        scene.store.delete_agent(agent.id).await.unwrap(),
        Some(Vec::new())
    );
    assert_eq!(
        scene.store.delete_agent(agent.id).await.unwrap(),
        None,
        "it was deleted before"
    );
    assert_eq!(scene.store.agent(agent.id).await.unwrap(), None);
    let page = scene.store.list_agents(AgentQuery::default()).await.unwrap();
    assert_eq!((page.total, page.agents[0].agent.id), (1, kept.id));
    assert_eq!(
        scene.store.update_agent(renamed(&agent, "late")).await.unwrap(),
        Updated::Missing
    );
    assert_eq!(
        scene.store.open(scene.new_open(&agent)).await.unwrap(),
        Opened::NoAgent
    );
}

/// A deletion ends every active session of the agent in the same commit, and no other session.
pub async fn a_deletion_ends_every_session(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (agent, other) = (scene.agent().await, scene.agent().await);
    let creating = scene.open(scene.new_open(&agent)).await;
    let opened = scene.open(scene.new_open(&agent)).await;
    let ready = scene
        .stepped(opened.session.id, &opened.work.unwrap().hold, scene.ready_step())
        .await
        .0;
    let (turn, item) = scene.started(ready.id).await;
    let spared = scene.open(scene.new_open(&other)).await;

    let ended = scene
        .store
        .delete_agent(agent.id)
        .await
        .unwrap()
        .expect("the agent was there");
    assert_eq!(
        BTreeSet::from_iter(ended),
        BTreeSet::from([creating.session.id, ready.id])
    );
    for (session, sandbox) in [
        (creating.session.id, creating.sandbox.id),
        (ready.id, opened.sandbox.id),
    ] {
        let session = scene.session(session).await;
        assert_eq!(
            (session.state, session.ended_by),
            (SessionState::Dead, Some(EndedBy::AgentDeleted))
        );
        assert_eq!(scene.sandbox(sandbox).await.state, SandboxState::Stopping);
    }
    assert_eq!(scene.turn(turn.id).await.state, TurnState::Aborted);
    assert!(!scene.store.done(&item).await.unwrap(), "the turn's hold is lost");
    assert_eq!(
        scene.take(&[WorkKind::Cleanup]).await.len(),
        2,
        "both sandboxes are cleaned up"
    );
    assert_eq!(
        scene.session(spared.session.id).await.state,
        SessionState::Creating
    );
}
