use std::future::Future;
use std::time::Duration;

/// How long one law may take. Generous, because test machines are busy; a law that hangs is broken.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs one law on a runtime of its own, with two threads so that concurrency is real.
///
/// # Panics
/// When the law is broken or does not end.
pub fn run(law: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let ended = runtime.block_on(async { tokio::time::timeout(DEADLINE, law).await });
    assert!(ended.is_ok(), "the law did not end within {DEADLINE:?}");
}
