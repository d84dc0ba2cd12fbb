//! How turns are stopped.

use lap_core::store::{Finish, Finished};
use lap_core::turn::{Outcome, TurnState};

use crate::StoreUnderTest;
use crate::scene::Scene;

/// An abort ends queued turns at once, all or the one that is meant, and no turn of another session.
pub async fn an_abort_ends_queued_turns(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let (session, other) = (scene.creating().await.0.id, scene.creating().await.0.id);
    let (first, second) = (scene.queued(session).await, scene.queued(session).await);
    let (third, foreign) = (scene.queued(session).await, scene.queued(other).await);
    let nothing = scene.store.abort(session, Some(foreign.id)).await.unwrap();
    assert_eq!(
        (nothing.aborted, nothing.open),
        (Vec::new(), None),
        "that turn is another session's"
    );
    let one = scene.store.abort(session, Some(second.id)).await.unwrap();
    assert_eq!((one.aborted, one.open), (vec![scene.turn(second.id).await], None));
    let rest = scene.store.abort(session, None).await.unwrap();
    assert_eq!(
        rest.aborted,
        [scene.turn(first.id).await, scene.turn(third.id).await]
    );
    for turn in scene.turns(session).await {
        assert_eq!((turn.state, turn.failure.is_some()), (TurnState::Aborted, true));
        assert!(turn.finished_at.is_some());
    }
    let finished = scene
        .story(session)
        .await
        .iter()
        .filter(|kind| *kind == "turn.finished")
        .count();
    assert_eq!(finished, 3, "each has its event");
    let again = scene.store.abort(session, None).await.unwrap();
    assert_eq!(
        (again.aborted, again.open),
        (Vec::new(), None),
        "a turn with an outcome is left alone"
    );
    assert_eq!(scene.turn(foreign.id).await, foreign);
}

/// An abort of the open turn is a request to its worker, told once; the worker gives the outcome.
pub async fn an_abort_of_the_open_turn_is_asked_once(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let session = scene.ready().await.id;
    let (turn, item) = scene.started(session).await;
    let queued = scene.queued(session).await;
    for _ in 0..2 {
        let aborting = scene.store.abort(session, Some(turn.id)).await.unwrap();
        let open = aborting.open.expect("the turn was open");
        assert_eq!(
            (open.id, open.state, open.abort_requested),
            (turn.id, TurnState::Sending, true)
        );
        assert_eq!((aborting.aborted, scene.turn(turn.id).await), (Vec::new(), open));
    }
    let asked = scene
        .story(session)
        .await
        .iter()
        .filter(|kind| *kind == "turn.abort_requested")
        .count();
    assert_eq!(asked, 1, "asking twice is asking once");
    assert_eq!(scene.turn(queued.id).await, queued, "only one turn was meant");
    let finish = Finish {
        turn: turn.id,
        hold: item.hold,
        outcome: Outcome::aborted("stop"),
    };
    let answer = scene.store.finish(finish).await.unwrap();
    assert!(matches!(answer, Finished::Done(done, Some(_)) if done.state == TurnState::Aborted));
}
