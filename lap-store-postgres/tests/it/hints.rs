//! Hints travel between processes.

use std::time::Duration;

use futures_util::StreamExt as _;
use lap_core::id::{SessionId, SystemEntropy, WorkerId};
use lap_core::store::{Hint, HintStream, Hints as _};
use lap_core::time::{Clock as _, SystemClock};
use sqlx::Connection as _;

use crate::database::{Place, link};

async fn hear(stream: &mut HintStream, hint: Hint) {
    let heard = async { while stream.next().await.unwrap() != hint {} };
    tokio::time::timeout(Duration::from_secs(30), heard)
        .await
        .unwrap();
}

#[tokio::test]
async fn another_process_hears_hints_also_after_its_connection_broke() {
    let place = Place::new().await;
    let (here, there) = (place.connect().await, place.connect().await);
    let mut hints = there.hints();
    // A listener has missed whatever came before it listened.
    hear(&mut hints, Hint::Missed).await;
    let entropy = SystemEntropy::new();
    let session = Hint::Session {
        session: SessionId::fresh(&entropy, SystemClock.now()),
        from: WorkerId::fresh(&entropy, SystemClock.now()),
    };
    here.hint(session);
    hear(&mut hints, session).await;
    let mut connection = link().await;
    let text = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE query LIKE 'LISTEN%lap_hints_{}%' AND pid <> pg_backend_pid()",
        place.schema
    );
    let ended: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(text))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    assert!(ended >= 1, "a listener has a connection");
    hear(&mut hints, Hint::Missed).await;
    let told = async {
        loop {
            here.hint(Hint::Work);
            if let Ok(Some(Hint::Work)) = tokio::time::timeout(Duration::from_millis(300), hints.next()).await
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
}
