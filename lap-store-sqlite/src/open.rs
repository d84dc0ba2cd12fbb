//! Opening a session: the hottest write of all, in few statements.

use lap_core::blueprint::BlueprintHash;
use lap_core::event::NewEvent;
use lap_core::sandbox::{Place, Sandbox};
use lap_core::session::{Session, SessionState};
use lap_core::store::{NewSandbox, Open, Opened, OpenedSession, WorkKind};
use lap_core::turn::preview;

use crate::error::Answer;
use crate::idempotency::{Seen, remember, seen};
use crate::link::sql;
use crate::row::{Columns as _, stored};
use crate::work::Born;
use crate::writer::Tx;
use crate::{events, sandboxes, sessions, turns, work};

/// `None`: another request used the session's id before.
pub(crate) async fn open(tx: &mut Tx, open: Open) -> Answer<Option<Opened>> {
    match seen(tx, &open.idempotency).await? {
        Seen::KeyReused => return Ok(Some(Opened::KeyReused)),
        Seen::Before(id) => {
            let session = sessions::find(tx, id).await?.ok_or(sqlx::Error::RowNotFound)?;
            return Ok(Some(Opened::Replayed(session)));
        }
        Seen::New => {}
    }
    let select = "SELECT version, blueprint_hash, \
                  EXISTS (SELECT 1 FROM lap_sessions WHERE id = ?2) AS is_used \
                  FROM lap_agents WHERE id = ?1 AND deleted_at IS NULL";
    let select = sql(select)
        .bind(open.agent.to_string())
        .bind(open.session.to_string());
    let Some(agent) = tx.first(select).await? else {
        return Ok(Some(Opened::NoAgent));
    };
    if agent.number("version")? != open.agent_version {
        return Ok(Some(Opened::AgentChanged));
    }
    if agent.flag("is_used")? {
        return Ok(None);
    }
    let blueprint = BlueprintHash::from_text(agent.text("blueprint_hash")?);
    remember(tx, &open.idempotency, open.session).await?;
    let warm = sandboxes::claim(tx, &blueprint, &open.platform_hash, open.session).await?;
    let is_warm = warm.is_some();
    let sandbox = match warm {
        Some(warm) => warm,
        None => sandboxes::plan(tx, cold(&open, blueprint), Some(open.session)).await?,
    };
    let is_mine = sandbox.place == Place::Cluster || sandbox.place == open.place;
    let born = Born {
        kind: WorkKind::BringUp,
        session: open.session,
        place: sandbox.place,
        holder: is_mine.then_some(open.worker),
    };
    let session = insert(tx, open, &sandbox).await?;
    let work = work::bear(tx, born).await?;
    let opened = OpenedSession {
        session,
        sandbox,
        work,
    };
    Ok(Some(if is_warm {
        Opened::Warm(opened)
    } else {
        Opened::Cold(opened)
    }))
}

fn cold(open: &Open, blueprint_hash: BlueprintHash) -> NewSandbox {
    NewSandbox {
        id: open.cold_sandbox,
        blueprint_hash,
        platform_hash: open.platform_hash.clone(),
        place: open.place,
    }
}

/// The session with its opening, its first events and turn 1.
async fn insert(tx: &mut Tx, open: Open, sandbox: &Sandbox) -> Answer<Session> {
    let session = Session {
        id: open.session,
        agent: open.agent,
        agent_version: open.agent_version,
        state: SessionState::Creating,
        state_since: tx.now,
        phase: None,
        phase_detail: None,
        attempt: 1,
        sandbox: Some(sandbox.id),
        address: sandbox.address.clone(),
        conversation: None,
        title: open.title,
        preview: open.first_turn.as_ref().and_then(|turn| preview(&turn.parts)),
        failure: None,
        ended_by: None,
        created_at: tx.now,
        created_by: open.created_by,
        last_seen_at: tx.now,
    };
    insert_row(tx, &session).await?;
    let opening = sql("INSERT INTO lap_openings (session, sealed) VALUES (?1, ?2)");
    tx.run(
        opening
            .bind(session.id.to_string())
            .bind(open.opening.as_text().to_owned()),
    )
    .await?;
    let mut log = vec![NewEvent::session_created(&session.created_by)];
    if let Some(turn) = open.first_turn {
        log.push(NewEvent::turn_accepted(turn.id, 1, &turn.parts, &turn.created_by));
        turns::queue(tx, session.id, 1, turn).await?;
    }
    events::begin_log(tx, session.id, log).await?;
    Ok(session)
}

async fn insert_row(tx: &mut Tx, session: &Session) -> Answer<()> {
    let insert = "INSERT INTO lap_sessions (id, agent, agent_version, state, state_since, attempt, sandbox, \
                  title, preview, created_at, created_by, last_seen_at) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?5, ?10, ?5)";
    let insert = sql(insert)
        .bind(session.id.to_string())
        .bind(session.agent.to_string())
        .bind(stored(session.agent_version))
        .bind(session.state.as_str())
        .bind(session.state_since.unix_millis())
        .bind(i64::from(session.attempt))
        .bind(session.sandbox.map(|sandbox| sandbox.to_string()))
        .bind(session.title.clone())
        .bind(session.preview.clone())
        .bind(session.created_by.clone());
    tx.run(insert).await.map(drop)
}
