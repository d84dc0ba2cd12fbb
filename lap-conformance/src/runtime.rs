//! The laws of a runtime, one public function each.
//!
//! A law panics when it is broken. Its first line of documentation is the law.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lap_core::ErrorKind;
use lap_core::id::SandboxId;
use lap_core::runtime::{Endpoint, LaunchSpec, RuntimeEvent, RuntimeEvents, SandboxRuntime};

use crate::scene::together;

/// How long a sandbox may take to start, to stop or to be told about.
const PATIENCE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(2);

type NewSpec = dyn Fn() -> LaunchSpec + Send + Sync;
type Kill = dyn Fn(SandboxId) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// A runtime without sandboxes, and what its laws need.
pub struct RuntimeUnderTest {
    runtime: Arc<dyn SandboxRuntime>,
    new_spec: Box<NewSpec>,
    kill: Box<Kill>,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl RuntimeUnderTest {
    /// `new_spec` gives a specification for another sandbox each time. `kill` makes a running sandbox end by itself,
    /// as a crash would.
    pub fn new<F>(
        runtime: Arc<dyn SandboxRuntime>,
        new_spec: impl Fn() -> LaunchSpec + Send + Sync + 'static,
        kill: impl Fn(SandboxId) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let kill =
            Box::new(move |sandbox| -> Pin<Box<dyn Future<Output = ()> + Send>> { Box::pin(kill(sandbox)) });
        Self {
            runtime,
            new_spec: Box::new(new_spec),
            kill,
            kept: Vec::new(),
        }
    }

    /// Keeps something as long as the runtime is used, for example its temporary folder.
    #[must_use]
    pub fn keeping(mut self, thing: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(thing));
        self
    }

    async fn launched(&self) -> LaunchSpec {
        let spec = (self.new_spec)();
        self.runtime.launch(&spec).await.expect("the sandbox is launched");
        spec
    }

    async fn address(&self, sandbox: SandboxId) -> String {
        match self.runtime.endpoint(sandbox, PATIENCE).await.unwrap() {
            Endpoint::At(address) => address,
            other => panic!("a launched sandbox gets an address, not {other:?}"),
        }
    }

    /// Waits until the runtime says that the sandbox is gone, and gives the reason.
    async fn gone(&self, sandbox: SandboxId) -> String {
        let waited = async {
            loop {
                if let Endpoint::Gone { reason } =
                    self.runtime.endpoint(sandbox, Duration::ZERO).await.unwrap()
                {
                    return reason;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited)
            .await
            .expect("the sandbox is told to be gone")
    }

    /// Everything a new watch tells about what exists.
    async fn listed(&self) -> (Vec<SandboxId>, RuntimeEvents) {
        let mut events = self.runtime.watch();
        let mut existing = Vec::new();
        loop {
            match next(&mut events).await {
                RuntimeEvent::Exists(sandbox) => existing.push(sandbox),
                RuntimeEvent::Complete => break,
                other => panic!("first what exists, then that this is complete, not {other:?}"),
            }
        }
        existing.sort();
        (existing, events)
    }

    async fn stop(&self, sandbox: SandboxId) {
        self.runtime
            .stop(sandbox, GRACE)
            .await
            .expect("a stop works, also of what is not there");
    }
}

impl fmt::Debug for RuntimeUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeUnderTest")
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}

async fn next(events: &mut RuntimeEvents) -> RuntimeEvent {
    let next = tokio::time::timeout(PATIENCE, events.next()).await;
    next.expect("the watch tells something in time")
        .expect("the watch goes on")
}

/// Waits for the end of this sandbox; ends of others may come before.
async fn told_gone(events: &mut RuntimeEvents, expected: SandboxId) {
    loop {
        match next(events).await {
            RuntimeEvent::Gone { sandbox, .. } if sandbox == expected => return,
            RuntimeEvent::Complete => panic!("a watch is complete once"),
            _ => {}
        }
    }
}

/// A launched sandbox gets an address of its own.
pub async fn a_launched_sandbox_gets_an_address(subject: &RuntimeUnderTest) {
    let (first, second) = (subject.launched().await.sandbox, subject.launched().await.sandbox);
    assert_ne!(subject.address(first).await, subject.address(second).await);
}

/// A repeated launch, also a concurrent one, changes nothing: there is one sandbox with one address.
pub async fn a_launch_is_idempotent(subject: &RuntimeUnderTest) {
    let spec = (subject.new_spec)();
    let launches = together(4, |_| {
        let (runtime, spec) = (Arc::clone(&subject.runtime), spec.clone());
        async move { runtime.launch(&spec).await }
    })
    .await;
    assert!(launches.iter().all(Result::is_ok), "{launches:?}");
    let address = subject.address(spec.sandbox).await;
    subject.runtime.launch(&spec).await.unwrap();
    assert_eq!(subject.address(spec.sandbox).await, address);
    assert_eq!(subject.listed().await.0, [spec.sandbox], "it exists once");
}

/// What was never launched has no address, no labels and no log, and its stop is fine.
pub async fn an_unknown_sandbox_is_not_there(subject: &RuntimeUnderTest) {
    let unknown = (subject.new_spec)().sandbox;
    let endpoint = subject.runtime.endpoint(unknown, Duration::ZERO).await.unwrap();
    assert!(
        !matches!(endpoint, Endpoint::At(_)),
        "it has no address: {endpoint:?}"
    );
    let bound = subject.runtime.bind(unknown, &BTreeMap::new()).await;
    assert_eq!(bound.unwrap_err().kind(), ErrorKind::NotFound);
    let logs = subject.runtime.logs(unknown, 10).await;
    assert_eq!(logs.unwrap_err().kind(), ErrorKind::NotFound);
    subject.stop(unknown).await;
    assert_eq!(subject.listed().await.0, []);
}

/// After a stop the sandbox is gone; a repetition is fine and touches no other sandbox.
pub async fn a_stop_is_idempotent(subject: &RuntimeUnderTest) {
    let (stopped, kept) = (subject.launched().await.sandbox, subject.launched().await.sandbox);
    let address = subject.address(kept).await;
    subject.address(stopped).await;
    for _ in 0..2 {
        subject.stop(stopped).await;
        let endpoint = subject.runtime.endpoint(stopped, Duration::ZERO).await.unwrap();
        assert!(
            matches!(endpoint, Endpoint::Gone { .. }),
            "it is gone: {endpoint:?}"
        );
    }
    assert_eq!(subject.address(kept).await, address);
    assert_eq!(subject.listed().await.0, [kept], "nothing is left of it");
}

/// A sandbox that is stopped before it has an address is gone as well.
pub async fn a_stop_overtakes_a_start(subject: &RuntimeUnderTest) {
    let sandbox = subject.launched().await.sandbox;
    subject.stop(sandbox).await;
    subject.gone(sandbox).await;
    assert_eq!(subject.listed().await.0, []);
}

/// A watch tells everything that exists, and then that this was all.
pub async fn a_watch_begins_with_what_exists(subject: &RuntimeUnderTest) {
    assert_eq!(subject.listed().await.0, [], "nothing exists, and that is told");
    let mut launched = vec![subject.launched().await.sandbox, subject.launched().await.sandbox];
    launched.sort();
    assert_eq!(subject.listed().await.0, launched);
    assert_eq!(subject.listed().await.0, launched, "each watch begins anew");
}

/// Every watch tells every end: of a sandbox that existed before it, and of one that was launched later.
pub async fn a_watch_tells_every_end(subject: &RuntimeUnderTest) {
    let before = subject.launched().await.sandbox;
    let (mut first, mut second) = (subject.listed().await.1, subject.listed().await.1);
    let later = subject.launched().await.sandbox;
    for sandbox in [before, later] {
        subject.address(sandbox).await;
        (subject.kill)(sandbox).await;
        told_gone(&mut first, sandbox).await;
        told_gone(&mut second, sandbox).await;
        subject.gone(sandbox).await;
    }
}

/// A sandbox that ended while nobody watched is told, until it is stopped.
pub async fn an_unwatched_end_is_told_later(subject: &RuntimeUnderTest) {
    let sandbox = subject.launched().await.sandbox;
    subject.address(sandbox).await;
    (subject.kill)(sandbox).await;
    let reason = subject.gone(sandbox).await;
    assert!(!reason.is_empty(), "an end has a reason");
    let (existing, mut events) = subject.listed().await;
    assert_eq!(existing, [sandbox], "something of it is left");
    told_gone(&mut events, sandbox).await;
    subject.stop(sandbox).await;
    assert_eq!(subject.listed().await.0, [], "and now nothing is");
}

/// A sandbox takes labels after its launch, again and again, and has a log.
pub async fn a_sandbox_takes_labels_and_has_a_log(subject: &RuntimeUnderTest) {
    let sandbox = subject.launched().await.sandbox;
    subject.address(sandbox).await;
    let labels = BTreeMap::from([("session".to_owned(), "s-1".to_owned())]);
    for _ in 0..2 {
        subject.runtime.bind(sandbox, &labels).await.unwrap();
    }
    subject
        .runtime
        .logs(sandbox, 10)
        .await
        .expect("there is a log, if only an empty one");
}

#[doc(hidden)]
#[macro_export]
macro_rules! __runtime_laws {
    ($callback:ident $($make:expr)?) => {
        $crate::$callback! {
            $($make)?;
            runtime: a_launched_sandbox_gets_an_address,
                a_launch_is_idempotent,
                an_unknown_sandbox_is_not_there,
                a_stop_is_idempotent,
                a_stop_overtakes_a_start,
                a_watch_begins_with_what_exists,
                a_watch_tells_every_end,
                an_unwatched_end_is_told_later,
                a_sandbox_takes_labels_and_has_a_log;
        }
    };
}

crate::__runtime_laws! { __runtime_list }

/// One named test per law of [`SandboxRuntime`](lap_core::runtime::SandboxRuntime), in the module where it stands.
///
/// The argument is an async expression that gives a [`RuntimeUnderTest`](crate::RuntimeUnderTest) without sandboxes;
/// it is evaluated once per law.
#[macro_export]
macro_rules! runtime_suite {
    ($make:expr) => {
        $crate::__runtime_laws! { __tests $make }
    };
}
