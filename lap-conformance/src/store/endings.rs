//! How sessions end, and lists of them.

use std::time::Duration;

use lap_core::sandbox::SandboxState;
use lap_core::session::{EndedBy, Session, SessionState};
use lap_core::store::{Advanced, Append, Appended, End, Ended, Finish, Finished, SessionQuery, WorkKind};
use lap_core::turn::{Outcome, TurnState};

use crate::StoreUnderTest;
use crate::scene::Scene;

const IDLE: Duration = Duration::from_secs(900);

fn by_user(session: &Session) -> End {
    End {
        session: session.id,
        by: EndedBy::User,
        reason: Some("enough".to_owned()),
        only_if_idle_for: None,
    }
}

fn if_idle(session: &Session) -> End {
    End {
        by: EndedBy::Idle,
        reason: None,
        only_if_idle_for: Some(IDLE),
        ..by_user(session)
    }
}

/// An end aborts the open turn and the queued ones; the session's own event is the last.
pub async fn an_ended_session_is_dead_with_its_turns(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await;
    let (open, _) = scene.started(session.id).await;
    let queued = scene.queued(session.id).await;
    scene.pass(Duration::from_secs(1)).await;
    let answer = scene.store.end(by_user(&session)).await.unwrap();
    let Ended::Done(dead) = answer else {
        panic!("it was ready: {answer:?}")
    };
    assert_eq!(
        (dead.state, dead.ended_by),
        (SessionState::Dead, Some(EndedBy::User))
    );
    assert_eq!((dead.failure.as_deref(), &dead.address), (Some("enough"), &None));
    assert!(dead.state_since > session.state_since);
    assert_eq!(scene.session(session.id).await, dead);
    for turn in [open, queued] {
        let turn = scene.turn(turn.id).await;
        assert_eq!(
            (turn.state, turn.finished_at),
            (TurnState::Aborted, Some(dead.state_since))
        );
    }
    let story = scene.story(session.id).await;
    assert_eq!(
        story[story.len() - 3..],
        ["turn.finished", "turn.finished", "session.ended"]
    );
}

/// An end dismisses the sandbox in the same commit; its cleanup is due at its place, whatever state it was in.
pub async fn an_ended_sessions_sandbox_is_cleaned_up(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (creating, _) = scene.creating().await;
    let ready = scene.ready().await;
    for session in [creating, ready] {
        let id = session.sandbox.unwrap();
        assert!(matches!(
            scene.store.end(by_user(&session)).await.unwrap(),
            Ended::Done(_)
        ));
        let sandbox = scene.sandbox(id).await;
        assert_eq!(
            (sandbox.state, sandbox.session),
            (SandboxState::Stopping, Some(session.id))
        );
        let nowhere = scene
            .take_at(scene.worker, &[WorkKind::Cleanup], Vec::new())
            .await;
        assert!(nowhere.is_empty(), "only who reaches the sandbox can clean up");
        let due = scene.take(&[WorkKind::Cleanup]).await;
        assert_eq!(due.len(), 1, "the cleanup is due at once");
        assert_eq!(
            (due[0].key(), due[0].place),
            (id.to_string().as_str(), Some(scene.place))
        );
    }
}

/// An end takes every hold on the session's work away; the holders can write nothing more.
pub async fn an_end_takes_every_hold(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (creating, bring_up) = scene.creating().await;
    let ready = scene.ready().await;
    let (turn, item) = scene.started(ready.id).await;
    scene.store.end(by_user(&creating)).await.unwrap();
    scene.store.end(by_user(&ready)).await.unwrap();
    assert_eq!(
        scene.store.held(scene.worker).await.unwrap(),
        [],
        "nothing is held any more"
    );
    let before = scene.snapshot().await;
    assert_eq!(
        scene.advance(creating.id, &bring_up, scene.ready_step()).await,
        Advanced::Stale
    );
    let finish = Finish {
        turn: turn.id,
        hold: item.hold.clone(),
        outcome: Outcome::failed("late"),
    };
    assert_eq!(scene.store.finish(finish).await.unwrap(), Finished::Stale);
    assert_eq!(scene.store.begin(ready.id, &item.hold).await.unwrap(), None);
    let hold = Some(item.hold.clone());
    let append = Append {
        session: ready.id,
        hold,
        ingest: None,
        running: None,
        events: Vec::new(),
    };
    assert_eq!(scene.store.append(vec![append]).await.unwrap(), [Appended::Stale]);
    assert!(!scene.store.done(&item).await.unwrap());
    assert_eq!(scene.snapshot().await, before, "a late holder changes nothing");
    scene.pass(crate::scene::REAP_AFTER).await;
    let kinds = [WorkKind::BringUp, WorkKind::Turn, WorkKind::Reap];
    assert!(
        scene.take(&kinds).await.is_empty(),
        "nothing of the session is due any more"
    );
}

/// A session ends once; a second end, also of a failed session, changes nothing.
pub async fn a_session_ends_once(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (failed, hold) = scene.creating().await;
    let (failed, _) = scene
        .stepped(failed.id, &hold, lap_core::store::Step::Failed("no".to_owned()))
        .await;
    let session = scene.ready().await;
    let Ended::Done(dead) = scene.store.end(by_user(&session)).await.unwrap() else {
        panic!("it was ready")
    };
    let before = scene.snapshot().await;
    for ended in [failed, dead] {
        let again = End {
            by: EndedBy::Idle,
            reason: Some("again".to_owned()),
            ..by_user(&ended)
        };
        assert_eq!(scene.store.end(again).await.unwrap(), Ended::Already(ended));
    }
    let unknown = End {
        session: scene.session_id(),
        ..by_user(&session)
    };
    assert_eq!(scene.store.end(unknown).await.unwrap(), Ended::Missing);
    assert_eq!(scene.snapshot().await, before);
}

/// An idle end spares a session that is creating, has an unfinished turn or was seen lately; else it is an end.
pub async fn an_idle_end_spares_sessions_in_use(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (creating, _) = scene.creating().await;
    let busy = scene.ready().await;
    let (turn, item) = scene.started(busy.id).await;
    let idle = scene.ready().await;
    scene.pass(IDLE - Duration::from_secs(60)).await;
    let answer = scene.store.end(if_idle(&idle)).await.unwrap();
    assert_eq!(
        answer,
        Ended::InUse(Duration::from_secs(60)),
        "look again when it may be idle"
    );
    scene.pass(Duration::from_secs(60)).await;
    for session in [&creating, &busy] {
        let answer = scene.store.end(if_idle(session)).await.unwrap();
        assert!(
            matches!(answer, Ended::InUse(after) if after > Duration::ZERO),
            "it is in use: {answer:?}"
        );
    }
    let Ended::Done(dead) = scene.store.end(if_idle(&idle)).await.unwrap() else {
        panic!("it was idle")
    };
    assert_eq!(
        (dead.state, dead.ended_by),
        (SessionState::Dead, Some(EndedBy::Idle))
    );
    assert_eq!(scene.session(creating.id).await.state, SessionState::Creating);
    assert_eq!(
        scene.turn(turn.id).await.state,
        TurnState::Sending,
        "a running turn is activity"
    );
    let finish = Finish {
        turn: turn.id,
        hold: item.hold,
        outcome: Outcome::failed("no"),
    };
    assert!(matches!(
        scene.store.finish(finish).await.unwrap(),
        Finished::Done(..)
    ));
}

/// A touch, a turn's acceptance and a turn's end are signs of life; each postpones the idle end.
pub async fn a_sign_of_life_postpones_the_idle_end(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await;
    let nearly = IDLE - Duration::from_secs(1);
    scene.pass(nearly).await;
    scene
        .store
        .touch(&[scene.session_id(), session.id])
        .await
        .unwrap();
    assert!(scene.session(session.id).await.last_seen_at > session.last_seen_at);
    scene.pass(nearly).await;
    assert_eq!(
        scene.store.end(if_idle(&session)).await.unwrap(),
        Ended::InUse(Duration::from_secs(1))
    );
    let (turn, item) = scene.started(session.id).await;
    scene.pass(2 * IDLE).await;
    let finish = Finish {
        turn: turn.id,
        hold: item.hold,
        outcome: Outcome::failed("no"),
    };
    assert!(matches!(
        scene.store.finish(finish).await.unwrap(),
        Finished::Done(..)
    ));
    scene.pass(nearly).await;
    assert_eq!(
        scene.store.end(if_idle(&session)).await.unwrap(),
        Ended::InUse(Duration::from_secs(1))
    );
    scene.pass(Duration::from_secs(1)).await;
    assert!(matches!(
        scene.store.end(if_idle(&session)).await.unwrap(),
        Ended::Done(_)
    ));
}

/// Sessions are listed newest first, by agent and state, in pages that follow a session.
pub async fn sessions_are_listed_newest_first(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (agent, other) = (scene.agent().await, scene.agent().await);
    let mut sessions = Vec::new();
    for agent in [&agent, &agent, &other, &agent] {
        let opened = scene.open(scene.new_open(agent)).await;
        sessions.insert(0, opened.session.id);
        scene.pass(Duration::from_secs(1)).await;
    }
    let dead = scene.session(sessions[2]).await;
    scene.store.end(by_user(&dead)).await.unwrap();
    let all = SessionQuery {
        limit: 10,
        ..SessionQuery::default()
    };
    let of_agent = SessionQuery {
        agent: Some(agent.id),
        ..all.clone()
    };
    let dead_only = SessionQuery {
        states: vec![SessionState::Dead, SessionState::Failed],
        ..all.clone()
    };
    let page = SessionQuery {
        limit: 2,
        ..all.clone()
    };
    let next = SessionQuery {
        before: Some(sessions[1]),
        ..page.clone()
    };
    let expectations = [
        (all, sessions.clone()),
        (of_agent, vec![sessions[0], sessions[2], sessions[3]]),
        (dead_only, vec![sessions[2]]),
        (page, sessions[..2].to_vec()),
        (next, sessions[2..].to_vec()),
    ];
    for (query, expected) in expectations {
        let listed = scene.store.list_sessions(query.clone()).await.unwrap();
        let ids: Vec<_> = listed.iter().map(|session| session.id).collect();
        assert_eq!(ids, expected, "{query:?}");
    }
    assert_eq!(scene.store.session(scene.session_id()).await.unwrap(), None);
}
