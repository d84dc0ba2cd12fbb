//! Bringing a session up again.

use lap_core::blueprint::BlueprintHash;
use lap_core::event::NewEvent;
use lap_core::sandbox::{Place, Sandbox};
use lap_core::session::{EndedBy, Session, SessionState};
use lap_core::store::{NewSandbox, OpenedSession, Revive, Revived, WorkKind};
use lap_core::turn::TurnState;

use crate::ending::{Ending, end_session};
use crate::error::Answer;
use crate::link::{Tx, sql};
use crate::work::Born;
use crate::{events, sandboxes, sessions, work};

pub(crate) async fn revive(tx: &mut Tx, revive: Revive) -> Answer<Revived> {
    sessions::lock(tx, revive.session).await?;
    let Some(session) = sessions::find(&mut tx.link, revive.session).await? else {
        return Ok(Revived::Missing);
    };
    if session.state == SessionState::Creating {
        return Ok(Revived::Creating(session));
    }
    let agent = sql("SELECT 1 FROM lap.agents WHERE id = $1 AND deleted_at IS NULL FOR KEY SHARE")
        .bind(session.agent.as_uuid());
    let Some(last) = session.sandbox else {
        return Ok(Revived::AgentGone);
    };
    let (Some(_), Some(last)) = (tx.first(agent).await?, sandboxes::find(&mut tx.link, last).await?) else {
        return Ok(Revived::AgentGone);
    };
    if session.state == SessionState::Ready {
        let ending = Ending {
            state: SessionState::Dead,
            by: EndedBy::User,
            reason: Some("the session was restarted".to_owned()),
            open: TurnState::Aborted,
            queued: TurnState::Aborted,
        };
        end_session(tx, session.id, &ending).await?;
    }
    let (sandbox, is_warm) = claim_or_plan(tx, &revive, last.blueprint_hash).await?;
    let session = begin_again(tx, &session, &sandbox).await?;
    let is_mine = sandbox.place == Place::Cluster || sandbox.place == revive.place;
    let born = Born {
        kind: WorkKind::BringUp,
        session: session.id,
        place: sandbox.place,
        holder: is_mine.then_some(revive.worker),
    };
    let work = work::bear(tx, born).await?;
    let restarted = NewEvent::session_restarted(session.attempt, &revive.by);
    events::log(tx, session.id, vec![restarted]).await?;
    let opened = OpenedSession {
        session,
        sandbox,
        work,
    };
    Ok(if is_warm {
        Revived::Warm(opened)
    } else {
        Revived::Cold(opened)
    })
}

/// The oldest warm sandbox of the key, else a planned cold one.
async fn claim_or_plan(
    tx: &mut Tx,
    revive: &Revive,
    blueprint_hash: BlueprintHash,
) -> Answer<(Sandbox, bool)> {
    let session = revive.session;
    if let Some(warm) = sandboxes::claim(tx, &blueprint_hash, &revive.platform_hash, session).await? {
        return Ok((warm, true));
    }
    let cold = NewSandbox {
        id: revive.cold_sandbox,
        blueprint_hash,
        platform_hash: revive.platform_hash.clone(),
        place: revive.place,
    };
    let planned = sandboxes::plan(tx, cold, Some(session)).await?;
    Ok((planned, false))
}

async fn begin_again(tx: &mut Tx, session: &Session, sandbox: &Sandbox) -> Answer<Session> {
    let update = "UPDATE lap.sessions SET state = 'creating', state_since = $2, phase = NULL, phase_detail = NULL, \
                  attempt = attempt + 1, sandbox = $3, conversation = NULL, failure = NULL, \
                  ended_by = NULL, last_seen_at = $2 WHERE id = $1";
    let update = sql(update)
        .bind(session.id.as_uuid())
        .bind(tx.now.unix_millis())
        .bind(sandbox.id.as_uuid());
    tx.run(update).await?;
    Ok(sessions::find(&mut tx.link, session.id)
        .await?
        .ok_or(sqlx::Error::RowNotFound)?)
}
