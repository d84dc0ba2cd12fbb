//! What the crash matrix plays. Each scenario works when nothing fails, and still works when one call does.

use std::pin::Pin;
use std::time::Duration;

use lap_conformance::crash::{Actor, Broken};
use lap_core::engine::{AgentChange, EngineConfig};
use lap_core::error::Error;
use lap_core::memory::Preparation;
use lap_core::session::{EndedBy, SessionState};
use lap_core::turn::{Turn, TurnState};

type Played<'a> = Pin<Box<dyn Future<Output = Result<(), Broken>> + 'a>>;

/// One scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) configure: fn(&mut EngineConfig),
    pub(crate) play: for<'a> fn(&'a Actor) -> Played<'a>,
}

macro_rules! scenarios {
    ($($name:ident $(($configure:expr))?;)+) => {
        /// Every scenario.
        pub(crate) const SCENARIOS: &[Scenario] = &[$(Scenario {
            name: stringify!($name),
            configure: scenarios!(@ $($configure)?),
            play: |actor| Box::pin($name(actor)),
        }),+];
    };
    (@) => { |_| {} };
    (@ $configure:expr) => { $configure };
}

scenarios! {
    a_cold_session_gets_ready;
    a_warm_session_gets_ready;
    a_prompt_is_answered;
    a_turn_is_answered;
    turns_queue;
    a_running_turn_is_aborted;
    a_queued_turn_is_aborted;
    a_turn_fails;
    a_turn_is_too_slow(|config| config.turn_timeout = Duration::from_secs(2));
    a_session_is_closed_while_creating;
    a_session_is_closed_while_a_turn_runs;
    an_agent_is_changed_and_deleted;
    an_idle_session_ends(|config| config.idle_timeout = Duration::from_secs(2));
    a_sandbox_dies;
    a_broken_warm_sandbox_is_replaced;
    a_hopeless_sandbox_fails_its_session;
    a_slow_preparation_is_told;
    an_engine_is_drained;
    a_session_is_restarted;
}

fn said(error: Error) -> Broken {
    format!("a verb failed: {error}")
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(what()) }
}

fn is_state(turn: &Turn, state: TurnState) -> Result<(), Broken> {
    expect(turn.state == state, || format!("expected {state:?}: {turn:?}"))
}

async fn cold(actor: &Actor) -> Result<lap_core::session::Session, Broken> {
    let agent = actor.agent().await.map_err(said)?;
    let session = actor.open(agent, "open", None).await.map_err(said)?;
    let session = actor.brought_up(session).await?;
    expect(session.state == SessionState::Ready, || {
        format!("not ready: {session:?}")
    })?;
    Ok(session)
}

async fn a_cold_session_gets_ready(actor: &Actor) -> Result<(), Broken> {
    cold(actor).await.map(drop)
}

async fn a_warm_session_gets_ready(actor: &Actor) -> Result<(), Broken> {
    let agent = actor.agent().await.map_err(said)?;
    actor.stage.warm(agent).await.map_err(said)?;
    let session = actor.open(agent, "open", None).await.map_err(said)?;
    let session = actor.brought_up(session).await?;
    expect(session.state == SessionState::Ready, || {
        format!("not ready: {session:?}")
    })
}

async fn a_prompt_is_answered(actor: &Actor) -> Result<(), Broken> {
    let agent = actor.agent().await.map_err(said)?;
    let session = actor.open(agent, "open", Some("hello")).await.map_err(said)?;
    actor.brought_up(session).await?;
    let listed = actor.ask(|engine| async move { engine.list_turns(session, 0, 10).await });
    let turns = listed.await.map_err(said)?;
    expect(turns.len() == 1, || format!("one turn: {turns:?}"))?;
    let turn = actor.outcome(session, turns[0].id).await?;
    is_state(&turn, TurnState::Completed)
}

async fn a_turn_is_answered(actor: &Actor) -> Result<(), Broken> {
    let session = cold(actor).await?.id;
    let turn = actor.send(session, "turn", "hello there").await.map_err(said)?;
    let turn = actor.outcome(session, turn.id).await?;
    is_state(&turn, TurnState::Completed)?;
    let messages = actor.ask(|engine| async move { engine.messages(session).await });
    let messages = messages.await.map_err(said)?;
    expect(messages.len() == 2, || {
        format!("question and answer: {messages:?}")
    })
}

async fn turns_queue(actor: &Actor) -> Result<(), Broken> {
    let session = cold(actor).await?.id;
    let mut sent = Vec::new();
    for (key, words) in [("a", "SLOW 3"), ("b", "second"), ("c", "third")] {
        sent.push(actor.send(session, key, words).await.map_err(said)?);
    }
    for (index, turn) in sent.iter().enumerate() {
        let turn = actor.outcome(session, turn.id).await?;
        is_state(&turn, TurnState::Completed)?;
        expect(turn.number == index as u64 + 1, || {
            format!("number {index}: {turn:?}")
        })?;
    }
    Ok(())
}

async fn a_running_turn_is_aborted(actor: &Actor) -> Result<(), Broken> {
    let session = cold(actor).await?.id;
    let turn = actor.send(session, "turn", "HANG").await.map_err(said)?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    actor.abort(session, None).await.map_err(said)?;
    let turn = actor.outcome(session, turn.id).await?;
    is_state(&turn, TurnState::Aborted)
}

async fn a_queued_turn_is_aborted(actor: &Actor) -> Result<(), Broken> {
    let session = cold(actor).await?.id;
    let slow = actor.send(session, "slow", "SLOW 4").await.map_err(said)?;
    let queued = actor.send(session, "queued", "never").await.map_err(said)?;
    actor.abort(session, Some(queued.id)).await.map_err(said)?;
    let queued = actor.outcome(session, queued.id).await?;
    // After a crash it may have been answered before it was stopped.
    expect(
        queued.state == TurnState::Aborted || queued.state == TurnState::Completed,
        || format!("{queued:?}"),
    )?;
    is_state(&actor.outcome(session, slow.id).await?, TurnState::Completed)
}

async fn a_turn_fails(actor: &Actor) -> Result<(), Broken> {
    let session = cold(actor).await?.id;
    let turn = actor.send(session, "turn", "FAIL boom").await.map_err(said)?;
    let turn = actor.outcome(session, turn.id).await?;
    is_state(&turn, TurnState::Failed)?;
    expect(turn.failure.as_deref() == Some("boom"), || format!("{turn:?}"))
}

async fn a_turn_is_too_slow(actor: &Actor) -> Result<(), Broken> {
    let session = cold(actor).await?.id;
    let turn = actor.send(session, "turn", "HANG").await.map_err(said)?;
    let turn = actor.outcome(session, turn.id).await?;
    is_state(&turn, TurnState::Failed)
}

async fn a_session_is_closed_while_creating(actor: &Actor) -> Result<(), Broken> {
    let takes = Preparation::Takes(Duration::from_secs(2));
    actor.stage.world.prepare(takes);
    let agent = actor.agent().await.map_err(said)?;
    let session = actor.open(agent, "open", Some("hello")).await.map_err(said)?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    actor.close(session).await.map_err(said)?;
    let session = actor.brought_up(session).await?;
    expect(session.state == SessionState::Dead, || format!("{session:?}"))
}

async fn a_session_is_closed_while_a_turn_runs(actor: &Actor) -> Result<(), Broken> {
    let session = cold(actor).await?.id;
    let turn = actor.send(session, "turn", "HANG").await.map_err(said)?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    actor.close(session).await.map_err(said)?;
    is_state(&actor.outcome(session, turn.id).await?, TurnState::Aborted)
}

async fn an_agent_is_changed_and_deleted(actor: &Actor) -> Result<(), Broken> {
    let agent = actor.agent().await.map_err(said)?;
    let caller = lap_core::caller::Caller::new("actor");
    let change = AgentChange {
        prompt: Some(Some("be brief".to_owned())),
        ..AgentChange::default()
    };
    let changed = actor.ask(|engine| {
        let (caller, change) = (caller.clone(), change.clone());
        async move { engine.update_agent(&caller, agent, change).await }
    });
    changed.await.map_err(said)?;
    let first = actor.open(agent, "first", None).await.map_err(said)?;
    let second = actor.open(agent, "second", Some("HANG")).await.map_err(said)?;
    actor.brought_up(first).await?;
    actor.delete(agent).await.map_err(said)?;
    for session in [first, second] {
        let session = actor.brought_up(session).await?;
        expect(session.ended_by == Some(EndedBy::AgentDeleted), || {
            format!("{session:?}")
        })?;
    }
    Ok(())
}

async fn an_idle_session_ends(actor: &Actor) -> Result<(), Broken> {
    let session = cold(actor).await?.id;
    let session = actor
        .session_when(session, |session| !session.state.is_active())
        .await?;
    expect(session.ended_by == Some(EndedBy::Idle), || format!("{session:?}"))
}

async fn a_sandbox_dies(actor: &Actor) -> Result<(), Broken> {
    let session = cold(actor).await?;
    let running = actor.send(session.id, "a", "HANG").await.map_err(said)?;
    let queued = actor.send(session.id, "b", "hello").await.map_err(said)?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    actor
        .stage
        .world
        .kill(session.sandbox.ok_or("no sandbox")?, "killed by the test");
    is_state(&actor.outcome(session.id, running.id).await?, TurnState::Unknown)?;
    is_state(&actor.outcome(session.id, queued.id).await?, TurnState::Failed)
}

async fn a_broken_warm_sandbox_is_replaced(actor: &Actor) -> Result<(), Broken> {
    let agent = actor.agent().await.map_err(said)?;
    actor
        .stage
        .world
        .prepare(Preparation::Takes(Duration::from_secs(3600)));
    let broken = actor.stage.warm(agent).await.map_err(said)?;
    actor.stage.world.prepare(Preparation::Instant);
    let session = actor.open(agent, "open", Some("hello")).await.map_err(said)?;
    let session = actor.brought_up(session).await?;
    expect(
        session.state == SessionState::Ready && session.sandbox != broken,
        || format!("{session:?}"),
    )
}

async fn a_hopeless_sandbox_fails_its_session(actor: &Actor) -> Result<(), Broken> {
    actor
        .stage
        .world
        .prepare(Preparation::Fails("no such repository".to_owned()));
    let agent = actor.agent().await.map_err(said)?;
    let session = actor.open(agent, "open", Some("hello")).await.map_err(said)?;
    let session = actor.brought_up(session).await?;
    expect(session.state == SessionState::Failed, || format!("{session:?}"))
}

async fn a_slow_preparation_is_told(actor: &Actor) -> Result<(), Broken> {
    actor
        .stage
        .world
        .prepare(Preparation::Takes(Duration::from_secs(2)));
    cold(actor).await.map(drop)
}

async fn an_engine_is_drained(actor: &Actor) -> Result<(), Broken> {
    let session = cold(actor).await?.id;
    let turn = actor.send(session, "turn", "SLOW 6").await.map_err(said)?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let drained = actor.ask(|engine| async move {
        engine.drain(Duration::from_secs(5)).await;
        Ok(())
    });
    drained.await.map_err(said)?;
    actor.replace();
    is_state(&actor.outcome(session, turn.id).await?, TurnState::Completed)
}

async fn a_session_is_restarted(actor: &Actor) -> Result<(), Broken> {
    let session = cold(actor).await?.id;
    let first = actor.send(session, "first", "hello").await.map_err(said)?;
    is_state(&actor.outcome(session, first.id).await?, TurnState::Completed)?;
    let caller = lap_core::caller::Caller::new("actor");
    let restarted = actor.ask(|engine| {
        let caller = caller.clone();
        async move {
            match engine.restart(&caller, session).await {
                // The answer to the first request was lost.
                Err(error) if error.kind() == lap_core::ErrorKind::WrongState => Ok(()),
                answer => answer.map(drop),
            }
        }
    });
    restarted.await.map_err(said)?;
    let session = actor.brought_up(session).await?;
    expect(
        session.state == SessionState::Ready && session.attempt > 1,
        || format!("{session:?}"),
    )?;
    let second = actor.send(session.id, "second", "again").await.map_err(said)?;
    is_state(&actor.outcome(session.id, second.id).await?, TurnState::Completed)
}
