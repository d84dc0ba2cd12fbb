//! The steps of a bring-up.

use std::time::Duration;

use lap_core::sandbox::SandboxState;
use lap_core::session::{EndedBy, Phase, SessionState};
use lap_core::store::{Advanced, NewWork, Open, Step, WorkKind};
use lap_core::turn::TurnState;

use crate::StoreUnderTest;
use crate::scene::{REAP_AFTER, Scene};

fn phase(phase: Phase, detail: &str) -> Step {
    Step::Phase(phase, Some(detail.to_owned()))
}

/// An earlier phase is ignored, the same one with another detail is progress, and each news is one event.
pub async fn phases_only_go_forward(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, hold) = scene.creating().await;
    let steps = [
        (Phase::CloningRepo, "10 %", Phase::CloningRepo, "10 %"),
        (Phase::CloningRepo, "10 %", Phase::CloningRepo, "10 %"),
        (Phase::CloningRepo, "90 %", Phase::CloningRepo, "90 %"),
        (Phase::PodPending, "late", Phase::CloningRepo, "90 %"),
        (Phase::HarnessListening, "", Phase::HarnessListening, ""),
    ];
    for (reported, detail, expected, expected_detail) in steps {
        let (after, started) = scene.stepped(session.id, &hold, phase(reported, detail)).await;
        assert_eq!(
            (after.phase, after.phase_detail.as_deref()),
            (Some(expected), Some(expected_detail))
        );
        assert_eq!((after.state, started), (SessionState::Creating, None));
        assert_eq!(
            scene.session(session.id).await,
            after,
            "the answer is what is stored"
        );
    }
    let story = scene.story(session.id).await;
    let news = story.iter().filter(|kind| *kind == "session.phase").count();
    assert_eq!(news, 3, "a phase is told when it is news: {story:?}");
}

/// When a session is ready its first queued turn is sending, its item held by the worker of the bring-up.
pub async fn a_ready_session_starts_its_first_turn(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let prompt = scene.new_turn("hello");
    let open = Open {
        first_turn: Some(prompt.clone()),
        ..scene.new_open(&agent)
    };
    let opened = scene.open(open).await;
    let (session, hold) = (opened.session.id, opened.work.unwrap().hold);
    let second = scene.queued(session).await;
    let (ready, started) = scene.stepped(session, &hold, scene.ready_step()).await;
    let (turn, item) = started.expect("a turn was queued");
    assert_eq!((turn.id, turn.state), (prompt.id, TurnState::Sending));
    assert!(turn.started_at.is_some());
    assert_eq!(scene.turn(turn.id).await, turn);
    assert_eq!(
        scene.turn(second.id).await.state,
        TurnState::Queued,
        "one turn at a time"
    );
    assert_eq!(
        (item.hold.kind, item.key()),
        (WorkKind::Turn, session.to_string().as_str())
    );
    assert_eq!(
        (item.hold.worker, item.place, item.attempts),
        (scene.worker, Some(scene.place), 1)
    );
    assert_eq!(
        scene.store.held(scene.worker).await.unwrap(),
        [item],
        "it holds the turn and no bring-up any more"
    );
    assert_eq!(ready.state, SessionState::Ready);
    assert_eq!(
        scene.story(session).await.last().map(String::as_str),
        Some("session.ready")
    );
}

/// Ready claims a planned sandbox, keeps the address, was a sign of life, and leaves a look for idleness due later.
pub async fn a_ready_session_has_its_sandbox(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, hold) = scene.creating().await;
    scene
        .stepped(session.id, &hold, phase(Phase::CloningRepo, "90 %"))
        .await;
    scene.pass(Duration::from_secs(60)).await;
    let (ready, started) = scene.stepped(session.id, &hold, scene.ready_step()).await;
    assert_eq!(started, None, "no turn was queued");
    assert_eq!(scene.session(session.id).await, ready);
    assert_eq!(
        (ready.state, ready.phase),
        (SessionState::Ready, Some(Phase::Ready))
    );
    assert_eq!(ready.phase_detail, None, "the detail was of an earlier phase");
    assert_eq!(ready.conversation.as_deref(), Some("ses_1"));
    assert_eq!(ready.address.as_deref(), Some("127.0.0.1:4097"));
    assert_eq!(
        ready.state_since, ready.last_seen_at,
        "a long bring-up is not idleness"
    );
    assert!(ready.state_since > session.state_since);
    let sandbox = scene.sandbox(session.sandbox.unwrap()).await;
    assert_eq!(
        (sandbox.state, sandbox.session),
        (SandboxState::Claimed, Some(session.id))
    );
    assert_eq!(sandbox.address.as_deref(), Some("127.0.0.1:4097"));
    assert_eq!(
        scene.store.held(scene.worker).await.unwrap(),
        [],
        "the bring-up is gone"
    );
    assert!(
        scene.take(&WorkKind::ALL).await.is_empty(),
        "and nothing is due yet"
    );
    scene.pass(REAP_AFTER).await;
    let due = scene.take_at(scene.worker, &WorkKind::ALL, Vec::new()).await;
    assert_eq!(due.len(), 1, "anybody can look whether it is idle");
    assert_eq!(
        (due[0].hold.kind, due[0].key()),
        (WorkKind::Reap, session.id.to_string().as_str())
    );
}

/// Once another worker holds the bring-up, the first one's steps change nothing.
pub async fn a_stale_hold_cannot_advance(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, old) = scene.creating().await;
    let new = scene.taken_over(WorkKind::BringUp).await.hold;
    let steps = [
        phase(Phase::PodRunning, ""),
        scene.ready_step(),
        Step::Failed("no".to_owned()),
    ];
    for step in steps {
        assert_eq!(scene.advance(session.id, &old, step).await, Advanced::Stale);
    }
    let mut forged = old.clone();
    forged.fence = new.fence;
    assert_eq!(
        scene.advance(session.id, &forged, scene.ready_step()).await,
        Advanced::Stale,
        "the holder counts too"
    );
    let (_, foreign) = scene.creating().await;
    assert_eq!(
        scene.advance(session.id, &foreign, scene.ready_step()).await,
        Advanced::Stale,
        "and so does the item"
    );
    assert_eq!(
        scene.session(session.id).await,
        session,
        "a stale step changes nothing"
    );
    let (ready, _) = scene.stepped(session.id, &new, scene.ready_step()).await;
    assert_eq!(ready.state, SessionState::Ready, "the new holder goes on");
}

/// A failed bring-up fails the session and its queued turns, dismisses the sandbox and is itself gone.
pub async fn a_failed_bring_up_ends_everything(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, hold) = scene.creating().await;
    let (first, second) = (scene.queued(session.id).await, scene.queued(session.id).await);
    let (failed, started) = scene
        .stepped(session.id, &hold, Step::Failed("no image".to_owned()))
        .await;
    assert_eq!(started, None);
    assert_eq!(
        (failed.state, failed.ended_by),
        (SessionState::Failed, Some(EndedBy::Error))
    );
    assert_eq!(failed.failure.as_deref(), Some("no image"));
    assert_eq!(scene.session(session.id).await, failed);
    for turn in [first, second] {
        let turn = scene.turn(turn.id).await;
        assert_eq!((turn.state, turn.failure.is_some()), (TurnState::Failed, true));
    }
    assert_eq!(
        scene.sandbox(session.sandbox.unwrap()).await.state,
        SandboxState::Stopping
    );
    let story = scene.story(session.id).await;
    assert_eq!(
        story[story.len() - 3..],
        ["turn.finished", "turn.finished", "session.failed"]
    );
    assert_eq!(
        scene.store.held(scene.worker).await.unwrap(),
        [],
        "the bring-up is gone"
    );
    let due = scene.take(&WorkKind::ALL).await;
    assert_eq!(due.len(), 1, "what is left is to clean up");
    assert_eq!(
        (due[0].hold.kind, due[0].key()),
        (WorkKind::Cleanup, session.sandbox.unwrap().to_string().as_str())
    );
}

/// After a bring-up has ended, well or badly, every further step under its hold is stale.
pub async fn a_bring_up_ends_once(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    for last in [scene.ready_step(), Step::Failed("no".to_owned())] {
        let (session, hold) = scene.creating().await;
        let (ended, _) = scene.stepped(session.id, &hold, last.clone()).await;
        let before = scene.snapshot().await;
        for step in [
            last,
            phase(Phase::PodRunning, ""),
            scene.ready_step(),
            Step::Failed("late".to_owned()),
        ] {
            assert_eq!(scene.advance(session.id, &hold, step).await, Advanced::Stale);
        }
        assert_eq!(scene.session(session.id).await, ended);
        assert_eq!(scene.snapshot().await, before, "a late step changes nothing");
        let late = NewWork {
            kind: WorkKind::BringUp,
            key: session.id.to_string(),
            place: None,
            after: Duration::ZERO,
        };
        scene.store.enqueue(vec![late]).await.unwrap();
        let late = scene.take(&[WorkKind::BringUp]).await.remove(0);
        let answer = scene.advance(session.id, &late.hold, scene.ready_step()).await;
        assert_eq!(answer, Advanced::Stale, "not even late work brings it up again");
    }
}
