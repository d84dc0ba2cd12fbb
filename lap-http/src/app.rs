//! What every handler is given.

use std::sync::Arc;

use lap_core::engine::Engine;
use lap_core::id::fresh_uuid;

use crate::attempts::Attempts;
use crate::options::HttpOptions;
use crate::problem::Problem;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) options: Arc<HttpOptions>,
    pub(crate) attempts: Arc<Attempts>,
}

impl App {
    /// A step of a request that as a whole may take longer.
    pub(crate) async fn in_time<T>(
        &self,
        step: impl Future<Output = lap_core::Result<T>>,
    ) -> Result<T, Problem> {
        match tokio::time::timeout(self.options.request_timeout, step).await {
            Ok(result) => result.map_err(Problem::from),
            Err(_) => Err(Problem::timed_out(
                "this took too long; it may still have happened",
            )),
        }
    }

    /// An id for a request that brought none.
    pub(crate) fn fresh_request_id(&self) -> String {
        let parts = self.engine.backends();
        fresh_uuid(&*parts.entropy, parts.clock.now()).to_string()
    }
}
