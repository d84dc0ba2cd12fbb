//! One append for all sessions of this process: while one commit is under way, the others gather.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Append, Appended};

/// Appends that may wait, and also the largest number in one commit.
const CAPACITY: usize = 256;

type Request = (Append, oneshot::Sender<Result<Appended>>);

/// The door to the flusher's task.
#[derive(Debug)]
pub(super) struct Flusher {
    sender: mpsc::Sender<Request>,
    receiver: Mutex<Option<mpsc::Receiver<Request>>>,
}

impl Flusher {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }

    /// Appends to one session; see [`crate::store::Events::append`].
    ///
    /// # Errors
    /// What the store answers; `Unavailable` when the engine has stopped.
    pub(super) async fn append(&self, append: Append) -> Result<Appended> {
        let stopped = || Error::new(ErrorKind::Unavailable, "append events", "the engine has stopped");
        let (answer, answered) = oneshot::channel();
        self.sender.send((append, answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

/// Serves appends until the engine stops.
pub(super) async fn run(core: Arc<Core>) {
    let receiver = core
        .flusher
        .receiver
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut receiver) = receiver else { return };
    let mut requests = Vec::with_capacity(CAPACITY);
    loop {
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            _ = receiver.recv_many(&mut requests, CAPACITY) => {}
        }
        commit(&core, std::mem::take(&mut requests)).await;
    }
}

async fn commit(core: &Core, requests: Vec<Request>) {
    let (appends, answers): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
    match core.parts.store.append(appends).await {
        Ok(appended) => {
            for (answer, appended) in answers.into_iter().zip(appended) {
                // A handler that has gone does not need its answer.
                let _ = answer.send(Ok(appended));
            }
        }
        Err(error) => {
            let retry = error.retry();
            for answer in answers {
                let error = Error::new(error.kind(), error.operation(), error.message()).with_retry(retry);
                let _ = answer.send(Err(error));
            }
        }
    }
}
