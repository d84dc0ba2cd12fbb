//! What an open makes, and how a repetition of it is recognised.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lap_core::sandbox::{Place, SandboxState};
use lap_core::session::SessionState;
use lap_core::store::{
    AgentUpdate, IDEMPOTENCY_TTL, NewSandbox, Open, Opened, SessionQuery, Updated, WorkKind,
};
use lap_core::turn::TurnState;

use crate::StoreUnderTest;
use crate::scene::{Scene, together};

/// After an open its session and its sandbox are there, as they were given and as they were answered.
pub async fn an_open_makes_its_session_and_sandbox(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let prompt = scene.new_turn("paint  the\nfence");
    let open = Open {
        first_turn: Some(prompt.clone()),
        ..scene.new_open(&agent)
    };
    let answer = scene.store.open(open.clone()).await.unwrap();
    let Opened::Cold(opened) = answer else {
        panic!("nothing was warm, so it is cold, not {answer:?}")
    };

    let session = scene.session(open.session).await;
    assert_eq!(session, opened.session, "the answer is what is stored");
    assert_eq!((session.agent, session.agent_version), (agent.id, agent.version));
    assert_eq!(
        (session.state, session.attempt, session.sandbox),
        (SessionState::Creating, 1, Some(open.cold_sandbox))
    );
    assert_eq!(session.title.as_deref(), Some("a title"));
    assert_eq!(
        session.preview.as_deref(),
        Some("paint the fence"),
        "the prompt is the preview"
    );
    assert_eq!(
        (session.phase, session.ended_by, &session.failure),
        (None, None, &None)
    );
    assert_eq!(
        session.last_seen_at, session.created_at,
        "the open is the first sign of life"
    );

    let sandbox = scene.sandbox(open.cold_sandbox).await;
    assert_eq!(sandbox, opened.sandbox);
    assert_eq!(
        (sandbox.state, sandbox.session),
        (SandboxState::Provisioning, Some(session.id))
    );
    assert_eq!(
        (sandbox.place, &sandbox.platform_hash),
        (scene.place, &scene.platform)
    );
    assert_eq!(sandbox.blueprint_hash, agent.blueprint_hash);
    let read = scene.store.bring_up(session.id).await.unwrap();
    let read = read.expect("a bring-up finds what it needs");
    assert_eq!(
        (read.session, read.opening, read.sandbox),
        (session, open.opening, sandbox)
    );
    assert_eq!(scene.store.bring_up(scene.session_id()).await.unwrap(), None);
}

/// With the session come its events from id 1, its prompt as turn 1, and its bring-up, held by the opener.
pub async fn an_open_makes_its_first_events_turn_and_work(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let prompt = scene.new_turn("hello");
    let open = Open {
        first_turn: Some(prompt.clone()),
        ..scene.new_open(&agent)
    };
    let opened = scene.open(open).await;
    let session = opened.session;

    let events = scene.events(session.id).await;
    let story: Vec<_> = events
        .iter()
        .map(|event| (event.id, event.kind.as_str()))
        .collect();
    assert_eq!(story, [(1, "session.created"), (2, "turn.accepted")]);
    let turn = scene.turn(prompt.id).await;
    assert_eq!(
        (turn.number, turn.state, &turn.parts),
        (1, TurnState::Queued, &prompt.parts)
    );

    let work = opened.work.expect("the opener brings a cold session up itself");
    assert_eq!(
        (work.hold.kind, work.key()),
        (WorkKind::BringUp, session.id.to_string().as_str())
    );
    assert_eq!(
        (work.hold.worker, work.attempts, work.place),
        (scene.worker, 1, Some(scene.place))
    );
    assert_eq!(
        scene.store.held(scene.worker).await.unwrap(),
        [work],
        "the bring-up is held"
    );
}

/// A warm open gives the sandbox to the session, and the opener holds the bring-up when it reaches the sandbox.
pub async fn a_warm_open_claims_and_holds(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let near = scene.warm(&agent).await;
    let cluster = scene
        .warm_as(NewSandbox {
            place: Place::Cluster,
            ..scene.new_sandbox(&agent)
        })
        .await;
    for (expected, place) in [(near, scene.place), (cluster, Place::Cluster)] {
        let open = scene.new_open(&agent);
        let unplanned = open.cold_sandbox;
        let answer = scene.store.open(open).await.unwrap();
        let Opened::Warm(opened) = answer else {
            panic!("one was warm: {answer:?}")
        };
        assert_eq!(
            (opened.sandbox.id, opened.session.sandbox),
            (expected, Some(expected))
        );
        assert_eq!(
            (opened.sandbox.state, opened.sandbox.session),
            (SandboxState::Claimed, Some(opened.session.id))
        );
        assert_eq!(opened.sandbox.address.as_deref(), Some("127.0.0.1:4096"));
        assert_eq!(opened.session.address, opened.sandbox.address);
        assert_eq!(scene.sandbox(expected).await, opened.sandbox);
        let work = opened.work.expect("the opener reaches it");
        assert_eq!((work.hold.worker, work.place), (scene.worker, Some(place)));
        assert_eq!(
            scene.store.sandbox(unplanned).await.unwrap(),
            None,
            "no cold sandbox is planned"
        );
    }
}

/// A claimed sandbox out of the opener's reach leaves the bring-up due for whoever reaches it.
pub async fn a_far_sandbox_is_left_to_its_place(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let far = Place::Host(scene.host_id());
    let sandbox = scene
        .warm_as(NewSandbox {
            place: far,
            ..scene.new_sandbox(&agent)
        })
        .await;
    let opened = scene.open(scene.new_open(&agent)).await;
    assert_eq!(
        (opened.sandbox.id, opened.work),
        (sandbox, None),
        "the opener cannot do it"
    );
    assert!(
        scene.take(&[WorkKind::BringUp]).await.is_empty(),
        "and is not offered it"
    );
    let other = scene.worker_id();
    let taken = scene.take_at(other, &[WorkKind::BringUp], vec![far]).await;
    assert_eq!(taken.len(), 1, "who reaches the place finds it due");
    assert_eq!(
        (taken[0].key(), taken[0].place),
        (opened.session.id.to_string().as_str(), Some(far))
    );
}

/// The same request opens once: a repetition gets the first session, and neither claims nor writes anything.
pub async fn a_repeated_open_is_replayed(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    scene.warm(&agent).await;
    scene.warm(&agent).await;
    let first_turn = Some(scene.new_turn("hello"));
    let open = Open {
        idempotency: scene.request("open", agent.id, "k"),
        first_turn,
        ..scene.new_open(&agent)
    };
    let first = scene.open(open.clone()).await;
    let story = scene.story(first.session.id).await;
    let with_new_ids = Open {
        session: scene.session_id(),
        cold_sandbox: scene.sandbox_id(),
        ..open.clone()
    };
    for again in [open, with_new_ids.clone()] {
        let answer = scene.store.open(again).await.unwrap();
        assert_eq!(
            answer,
            Opened::Replayed(first.session.clone()),
            "the first session is the answer"
        );
    }
    assert_eq!(scene.store.session(with_new_ids.session).await.unwrap(), None);
    assert_eq!(
        (
            scene.count(SandboxState::Warm).await,
            scene.count(SandboxState::Claimed).await
        ),
        (1, 1)
    );
    assert_eq!(
        scene.story(first.session.id).await,
        story,
        "and no event was written"
    );
    assert_eq!(scene.turns(first.session.id).await.len(), 1);
}

/// Of concurrent repetitions exactly one opens; the others get its session, and one sandbox is claimed.
pub async fn concurrent_repetitions_open_once(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    for _ in 0..4 {
        scene.warm(&agent).await;
    }
    let answers = together(8, |_| {
        let open = Open {
            idempotency: scene.request("open", agent.id, "k"),
            ..scene.new_open(&agent)
        };
        let store = Arc::clone(&scene.store);
        async move { store.open(open).await.unwrap() }
    })
    .await;
    let (mut opened, mut sessions) = (0, BTreeSet::new());
    for answer in answers {
        match answer {
            Opened::Warm(answer) => {
                opened += 1;
                sessions.insert(answer.session.id);
            }
            Opened::Replayed(session) => {
                sessions.insert(session.id);
            }
            other => panic!("each is the opener or a repetition, not {other:?}"),
        }
    }
    assert_eq!(
        (opened, sessions.len()),
        (1, 1),
        "one opens, all have its session"
    );
    assert_eq!(
        scene.count(SandboxState::Warm).await,
        3,
        "and one sandbox is claimed"
    );
    let all = SessionQuery {
        limit: 100,
        ..SessionQuery::default()
    };
    assert_eq!(scene.store.list_sessions(all).await.unwrap().len(), 1);
}

/// The same key with another body is refused; another principal, parent or operation is another request.
pub async fn a_reused_open_key_is_refused(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (agent, other_agent) = (scene.agent().await, scene.agent().await);
    let key = scene.request("open", agent.id, "k");
    let mut first = scene.new_open(&agent);
    first.idempotency = key.clone();
    scene.open(first).await;
    let mut reused = scene.new_open(&agent);
    reused.idempotency = key.clone();
    reused.idempotency.body_hash = "body-2".to_owned();
    assert_eq!(scene.store.open(reused.clone()).await.unwrap(), Opened::KeyReused);
    assert_eq!(
        scene.store.session(reused.session).await.unwrap(),
        None,
        "a refusal leaves nothing"
    );
    assert_eq!(scene.store.sandbox(reused.cold_sandbox).await.unwrap(), None);

    let mut by_other = scene.new_open(&agent);
    by_other.idempotency = key;
    by_other.idempotency.principal = "someone else".to_owned();
    scene.open(by_other).await;
    let mut of_other = scene.new_open(&other_agent);
    of_other.idempotency = scene.request("open", other_agent.id, "k");
    scene.open(of_other).await;
}

/// A request is remembered for 24 hours and forgotten then.
pub async fn an_open_is_remembered_for_a_day(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let keyed = || Open {
        idempotency: scene.request("open", agent.id, "k"),
        ..scene.new_open(&agent)
    };
    let first = scene.open(keyed()).await;
    scene.pass(IDEMPOTENCY_TTL - Duration::from_secs(60)).await;
    let answer = scene.store.open(keyed()).await.unwrap();
    assert!(
        matches!(answer, Opened::Replayed(session) if session.id == first.session.id),
        "within a day it is known"
    );
    scene.pass(Duration::from_secs(120)).await;
    let second = scene.open(keyed()).await;
    assert_ne!(
        second.session.id, first.session.id,
        "after a day it is a new request"
    );
    let answer = scene.store.open(keyed()).await.unwrap();
    assert!(
        matches!(answer, Opened::Replayed(session) if session.id == second.session.id),
        "remembered in its turn"
    );
}

/// Without the agent, or with another version of it, nothing happens and the request is not remembered.
pub async fn an_open_needs_the_agent_at_its_version(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    scene.warm(&agent).await;
    let update = AgentUpdate {
        id: agent.id,
        expected_version: agent.version,
        spec: agent.spec.clone(),
        blueprint_hash: agent.blueprint_hash.clone(),
    };
    let Updated::Done(newer) = scene.store.update_agent(update).await.unwrap() else {
        panic!("it is updated")
    };
    let open = scene.new_open(&agent);
    assert_eq!(
        scene.store.open(open.clone()).await.unwrap(),
        Opened::AgentChanged
    );
    let unknown = Open {
        agent: scene.agent_id(),
        ..scene.new_open(&agent)
    };
    assert_eq!(scene.store.open(unknown).await.unwrap(), Opened::NoAgent);
    assert_eq!(
        scene.store.session(open.session).await.unwrap(),
        None,
        "a refusal leaves no session"
    );
    assert_eq!(scene.count(SandboxState::Warm).await, 1, "and claims nothing");
    let opened = scene
        .open(Open {
            agent_version: newer.version,
            ..open
        })
        .await;
    assert_eq!(
        opened.session.agent_version, newer.version,
        "the same request opens with the right version"
    );
    scene.store.delete_agent(agent.id).await.unwrap();
    assert_eq!(
        scene.store.open(scene.new_open(&newer)).await.unwrap(),
        Opened::NoAgent,
        "a deleted agent is none"
    );
}
