//! The conversation of a session as messages.

use serde_json::{Value, json};

use super::Engine;
use super::core::Core;
use crate::error::{Result, chain};
use crate::id::SessionId;
use crate::session::SessionState;
use crate::store::TurnQuery;
use crate::turn::Turn;

impl Engine {
    /// The conversation as `[{info, parts}]`: what the harness has, else what the log has. An answer of the harness
    /// that is empty never hides a log that is not.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn messages(&self, id: SessionId) -> Result<Vec<Value>> {
        let session = self.core.session(id).await?;
        if let (SessionState::Ready, Some(sandbox), Some(address)) =
            (session.state, session.sandbox, &session.address)
        {
            match self
                .core
                .parts
                .harness
                .messages(&self.core.contact(sandbox, address))
                .await
            {
                Ok(messages) if !messages.is_empty() => return Ok(messages),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(lap.session.id = %id, error = %chain(&error), "messages come from the log");
                }
            }
        }
        from_log(&self.core, id).await
    }
}

/// The conversation as the turns in the store have it: what was asked and the final answers.
pub(super) async fn from_log(core: &Core, session: SessionId) -> Result<Vec<Value>> {
    let mut messages = Vec::new();
    let mut after = 0;
    loop {
        let turns = core
            .parts
            .store
            .list_turns(TurnQuery {
                session,
                after,
                limit: 200,
            })
            .await?;
        let Some(last) = turns.last() else {
            return Ok(messages);
        };
        after = last.number;
        for turn in &turns {
            messages.push(question(turn));
            messages.extend(turn.reply.clone());
        }
    }
}

fn question(turn: &Turn) -> Value {
    json!({
        "info": {
            "id": turn.id.to_string(),
            "role": "user",
            "sessionID": turn.session.to_string(),
            "time": { "created": turn.created_at.unix_millis() },
        },
        "parts": turn.parts,
    })
}
