//! How failures of the operating system become errors of the contract.

use std::fmt;
use std::io;

use lap_core::error::{Error, ErrorKind};

/// The system refused something that may work later.
pub(crate) fn unavailable(operation: &'static str, what: impl fmt::Display, error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, operation, format!("{what}: {error}")).with_source(error)
}

/// Runs blocking work off the async threads. A panic in it is a defect and is told as one.
pub(crate) async fn off_thread<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::new(ErrorKind::Internal, operation, "a blocking step did not finish").with_source(error)
    })
}
