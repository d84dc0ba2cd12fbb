//! What was recorded and stored, held against the contract.

use std::collections::{BTreeMap, BTreeSet};

use lap_core::id::SessionId;
use lap_core::session::SessionState;
use lap_core::store::{Events as _, SessionQuery, Sessions as _, TurnQuery, Turns as _};
use lap_store_postgres::PostgresStore;
use sqlx::{AssertSqlSafe, Connection as _};

use super::World;
use crate::database::{Place, link};

pub(super) async fn check(world: &World, place: &Place) {
    world.note(|history| {
        assert!(
            history.sessions.len() > 50,
            "only {} sessions",
            history.sessions.len()
        );
        for (key, sessions) in &history.opened {
            assert_eq!(sessions.len(), 1, "{key} opened {sessions:?}");
        }
        for (sandbox, sessions) in &history.claimed {
            assert_eq!(sessions.len(), 1, "{sandbox} was given to {sessions:?}");
        }
        for (turn, times) in &history.finished {
            assert_eq!(*times, 1, "{turn} has several outcomes");
        }
        let unique: BTreeSet<_> = history.fences.iter().collect();
        assert_eq!(unique.len(), history.fences.len(), "a fence was drawn twice");
    });
    let store = &world.stores[0];
    let accepted = world.note(|history| history.accepted.clone());
    for (id, session) in accepted {
        let turn = store.turn(id).await.unwrap().expect("an accepted turn is stored");
        assert_eq!(turn.session, session);
        assert!(turn.state.is_terminal(), "{turn:?} has no outcome");
    }
    let query = SessionQuery {
        limit: 100_000,
        ..SessionQuery::default()
    };
    let sessions = store.list_sessions(query).await.unwrap();
    for session in &sessions {
        assert_ne!(
            session.state,
            SessionState::Creating,
            "{session:?} was never brought up"
        );
        check_log(store, session.id).await;
    }
    check_rows(place).await;
}

/// Ids without gaps; every turn with its events once, in order; every event of a journal once.
async fn check_log(store: &PostgresStore, session: SessionId) {
    let page = store.events(session, 0, 100_000).await.unwrap().unwrap();
    let ids: Vec<_> = page.events.iter().map(|event| event.id).collect();
    assert_eq!(ids, (1..=page.head).collect::<Vec<_>>());
    let turns = store
        .list_turns(TurnQuery {
            session,
            after: 0,
            limit: 100_000,
        })
        .await
        .unwrap();
    let numbers: Vec<_> = turns.iter().map(|turn| turn.number).collect();
    assert_eq!(numbers, (1..=turns.len() as u64).collect::<Vec<_>>());
    for turn in turns {
        let of_turn = |kind: &str| {
            let of = |event: &&lap_core::event::Event| event.turn == Some(turn.id) && event.kind == kind;
            page.events
                .iter()
                .filter(of)
                .map(|event| event.id)
                .collect::<Vec<_>>()
        };
        let (accepted, finished) = (of_turn("turn.accepted"), of_turn("turn.finished"));
        assert_eq!((accepted.len(), finished.len()), (1, 1), "{turn:?}");
        assert!(of_turn("turn.running").len() <= 1 && of_turn("turn.abort_requested").len() <= 1);
        assert!(
            of_turn("said")
                .iter()
                .all(|id| accepted[0] < *id && *id < finished[0]),
            "{turn:?}"
        );
    }
    let mut journals: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in page.events.iter().filter(|event| event.kind == "said") {
        let source = event.body["source"].as_str().unwrap().to_owned();
        journals.entry(source).or_default().extend(event.origin);
    }
    for (source, origins) in journals {
        assert_eq!(
            origins,
            (1..=origins.len() as u64).collect::<Vec<_>>(),
            "journal of {source}"
        );
    }
}

/// What must not be found in the tables.
async fn check_rows(place: &Place) {
    let never = [
        "SELECT count(*) FROM @work WHERE owner IS NOT NULL",
        "SELECT count(*) FROM @sessions x JOIN @sandboxes b ON b.id = x.sandbox WHERE b.session <> x.id",
        "SELECT count(*) FROM @sessions x JOIN @sandboxes b ON b.id = x.sandbox \
         WHERE (x.state = 'ready') <> (b.state = 'claimed')",
        "SELECT count(*) FROM @sandboxes WHERE state IN ('stopping', 'dead')",
        "SELECT count(*) FROM (SELECT session FROM @sandboxes WHERE state = 'claimed' GROUP BY 1 \
         HAVING count(*) > 1) AS twice",
        "SELECT count(*) FROM @sandboxes WHERE state = 'claimed' AND session NOT IN (SELECT id FROM @sessions)",
        "SELECT count(*) FROM @heads h WHERE last <> (SELECT count(*) FROM @events e WHERE e.session = h.session)",
        "SELECT count(*) FROM @sessions x WHERE state = 'ready' AND NOT EXISTS \
         (SELECT FROM @work w WHERE w.kind = 'reap' AND w.key = x.id::text)",
    ];
    let mut connection = link().await;
    for text in never {
        let text = text.replace('@', &format!("{}.", place.schema));
        let found: i64 = sqlx::query_scalar(AssertSqlSafe(text.clone()))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(found, 0, "{text}");
    }
    connection.close().await.unwrap();
}
