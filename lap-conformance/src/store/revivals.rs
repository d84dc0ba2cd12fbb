//! How an ended session is brought up again.

use std::sync::Arc;
use std::time::Duration;

use lap_core::sandbox::{Place, SandboxState};
use lap_core::session::{EndedBy, Session, SessionState};
use lap_core::store::{
    Advanced, End, Finish, Finished, NewSandbox, OpenedSession, Revive, Revived, Step, WorkKind,
};
use lap_core::turn::{Outcome, TurnState};

use crate::StoreUnderTest;
use crate::scene::{Scene, together};

impl Scene<'_> {
    pub(crate) fn new_revive(&self, session: &Session) -> Revive {
        Revive {
            session: session.id,
            by: "someone".to_owned(),
            platform_hash: self.platform.clone(),
            cold_sandbox: self.sandbox_id(),
            place: self.place,
            worker: self.worker,
        }
    }

    pub(crate) async fn revived(&self, session: &Session) -> OpenedSession {
        match self.store.revive(self.new_revive(session)).await.unwrap() {
            Revived::Warm(opened) | Revived::Cold(opened) => opened,
            other => panic!("the session is revived, not {other:?}"),
        }
    }

    /// A session that could not be brought up, with a turn that failed with it.
    pub(crate) async fn failed(&self) -> Session {
        let (session, hold) = self.creating().await;
        self.queued(session.id).await;
        self.stepped(session.id, &hold, Step::Failed("no".to_owned()))
            .await
            .0
    }

    pub(crate) async fn dead(&self) -> Session {
        let session = self.ready().await;
        let end = End {
            session: session.id,
            by: EndedBy::User,
            reason: None,
            only_if_idle_for: None,
        };
        self.store.end(end).await.unwrap();
        self.session(session.id).await
    }
}

/// A failed or dead session is creating again, in another sandbox, and nothing is left of its end.
pub async fn an_ended_session_is_revived(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    for ended in [scene.failed().await, scene.dead().await] {
        scene.pass(Duration::from_secs(60)).await;
        let revive = scene.new_revive(&ended);
        let answer = scene.store.revive(revive.clone()).await.unwrap();
        let Revived::Cold(opened) = answer else {
            panic!("nothing was warm: {answer:?}")
        };
        let session = scene.session(ended.id).await;
        assert_eq!(session, opened.session, "the answer is what is stored");
        assert_eq!(
            (session.state, session.attempt),
            (SessionState::Creating, ended.attempt + 1)
        );
        assert_eq!(
            (session.ended_by, &session.failure, session.phase),
            (None, &None, None)
        );
        assert_eq!((&session.conversation, &session.address), (&None, &None));
        assert_eq!(
            session.last_seen_at, session.state_since,
            "it was asked for just now"
        );
        assert!(session.state_since > ended.state_since && session.created_at == ended.created_at);

        let cold = revive.cold_sandbox;
        assert_eq!((opened.sandbox.id, session.sandbox), (cold, Some(cold)));
        assert_eq!(opened.sandbox, scene.sandbox(cold).await);
        assert_eq!(
            (opened.sandbox.state, opened.sandbox.session),
            (SandboxState::Provisioning, Some(session.id))
        );
    }
}

/// The log and the numbers of a revived session go on, and its bring-up is held as after an open.
pub async fn a_revived_session_goes_on(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    for ended in [scene.failed().await, scene.dead().await] {
        let (log, turns) = (scene.events(ended.id).await, scene.turns(ended.id).await);
        let opened = scene.revived(&ended).await;
        let events = scene.events(ended.id).await;
        assert_eq!(events[..log.len()], log[..], "the log goes on");
        let news: Vec<_> = events[log.len()..]
            .iter()
            .map(|event| event.kind.as_str())
            .collect();
        assert_eq!(news, ["session.restarted"]);

        let work = opened.work.expect("the reviver reaches a cold sandbox");
        assert_eq!(
            (work.hold.kind, work.key()),
            (WorkKind::BringUp, ended.id.to_string().as_str())
        );
        let held = scene.store.held(scene.worker).await.unwrap();
        assert_eq!(held, std::slice::from_ref(&work));
        let queued = scene.queued(ended.id).await;
        assert_eq!(
            queued.number,
            turns.len() as u64 + 1,
            "and so do the numbers of turns"
        );
        let (ready, started) = scene.stepped(ended.id, &work.hold, scene.ready_step()).await;
        let (turn, item) = started.expect("a turn was queued");
        assert_eq!((ready.state, turn.id), (SessionState::Ready, queued.id));
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
}

/// A ready session first ends as by its user: turns aborted, holds lost, the sandbox stopping with its cleanup.
pub async fn a_ready_session_is_ended_before_it_is_revived(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await;
    let (open, item) = scene.started(session.id).await;
    let queued = scene.queued(session.id).await;
    let opened = scene.revived(&session).await;
    assert_eq!(
        (opened.session.state, opened.session.attempt),
        (SessionState::Creating, 2)
    );
    for turn in [open.id, queued.id] {
        assert_eq!(scene.turn(turn).await.state, TurnState::Aborted);
    }
    let old = session.sandbox.unwrap();
    assert_ne!(opened.sandbox.id, old);
    assert_eq!(scene.sandbox(old).await.state, SandboxState::Stopping);
    let finish = Finish {
        turn: open.id,
        hold: item.hold,
        outcome: Outcome::failed("late"),
    };
    assert_eq!(scene.store.finish(finish).await.unwrap(), Finished::Stale);
    let story = scene.story(session.id).await;
    let news = [
        "turn.finished",
        "turn.finished",
        "session.ended",
        "session.restarted",
    ];
    assert_eq!(story[story.len() - 4..], news);
    let due = scene.take(&WorkKind::ALL).await;
    assert_eq!(due.len(), 1, "only the old sandbox is to be seen to");
    assert_eq!(
        (due[0].hold.kind, due[0].key()),
        (WorkKind::Cleanup, old.to_string().as_str())
    );
    assert!(!scene.store.lose_sandbox(old, "late").await.unwrap());
    assert_eq!(
        scene.session(session.id).await,
        opened.session,
        "the end of the old one is no matter any more"
    );
}

/// A revival claims the oldest warm sandbox of the key, and the work is its worker's only within its reach.
pub async fn a_revival_claims_a_warm_sandbox(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let ended = scene.dead().await;
    let agent = scene.store.agent(ended.agent).await.unwrap().unwrap();
    let far = Place::Host(scene.host_id());
    let older = scene
        .warm_as(NewSandbox {
            place: far,
            ..scene.new_sandbox(&agent)
        })
        .await;
    let younger = scene.warm(&agent).await;
    let revive = scene.new_revive(&ended);
    let answer = scene.store.revive(revive.clone()).await.unwrap();
    let Revived::Warm(opened) = answer else {
        panic!("two were warm: {answer:?}")
    };
    assert_eq!((opened.sandbox.id, opened.session.sandbox), (older, Some(older)));
    assert_eq!(opened.session.address, opened.sandbox.address);
    assert_eq!(
        (opened.sandbox.state, opened.sandbox.session),
        (SandboxState::Claimed, Some(ended.id))
    );
    assert_eq!(
        scene.store.sandbox(revive.cold_sandbox).await.unwrap(),
        None,
        "no cold one is planned"
    );
    assert_eq!(opened.work, None, "the reviver does not reach it");
    assert_eq!(scene.sandbox(younger).await.state, SandboxState::Warm);
    let taken = scene
        .take_at(scene.worker_id(), &[WorkKind::BringUp], vec![far])
        .await;
    assert_eq!(
        (taken.len(), taken[0].place),
        (1, Some(far)),
        "who reaches the place finds the bring-up due"
    );
}

/// Of concurrent revivals one revives; the others find the session creating.
pub async fn concurrent_revivals_revive_once(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let ended = scene.dead().await;
    let answers = together(8, |_| {
        let (store, revive) = (Arc::clone(&scene.store), scene.new_revive(&ended));
        async move { store.revive(revive).await.unwrap() }
    })
    .await;
    let creating = answers
        .iter()
        .filter(|answer| matches!(answer, Revived::Creating(_)))
        .count();
    let revived = answers
        .iter()
        .filter(|answer| matches!(answer, Revived::Cold(_)))
        .count();
    assert_eq!((revived, creating), (1, 7), "{answers:?}");
    assert_eq!(scene.session(ended.id).await.attempt, 2);
    assert_eq!(scene.count(SandboxState::Provisioning).await, 1);
}

/// A session that is creating is left alone, and one without its agent, or an unknown one, is not revived.
pub async fn a_revival_needs_an_ended_session_and_its_agent(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let orphan = scene.dead().await;
    scene.store.delete_agent(orphan.agent).await.unwrap();
    let (creating, hold) = scene.creating().await;
    let before = scene.snapshot().await;
    let answer = scene.store.revive(scene.new_revive(&creating)).await.unwrap();
    assert_eq!(answer, Revived::Creating(creating.clone()));
    assert_eq!(
        scene.store.revive(scene.new_revive(&orphan)).await.unwrap(),
        Revived::AgentGone
    );
    let unknown = Revive {
        session: scene.session_id(),
        ..scene.new_revive(&orphan)
    };
    assert_eq!(scene.store.revive(unknown).await.unwrap(), Revived::Missing);
    assert_eq!(scene.snapshot().await, before, "nothing changed");
    let advanced = scene.advance(creating.id, &hold, scene.ready_step()).await;
    assert!(matches!(advanced, Advanced::Done(..)), "the bring-up goes on");
}
