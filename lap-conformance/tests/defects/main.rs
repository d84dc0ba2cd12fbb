//! Every law can fail: each is shown to fail on a store with a defect that it forbids.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod broken;
mod defect;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::thread;

use lap_conformance::store::LAWS;
use lap_conformance::{ManualClock, StoreLaw, StoreUnderTest};

use broken::Broken;
use defect::{Defect, TRIPS};

thread_local! {
    /// What the last law that failed on this thread said, and in which file.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

const LAW_THREAD: &str = "law";

/// A broken law is expected here, so what it says is kept instead of printed.
fn listen_to_laws() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if thread::current().name() == Some(LAW_THREAD) {
                SAID.set(Some(panic.to_string()));
            } else {
                print(panic);
            }
        }));
    });
}

/// Checks the law on a store with this defect; `Err` is what the law says when it fails. Time is paused, so a law that
/// waits in vain ends at once.
fn check(law: StoreLaw, defect: Defect) -> Result<(), String> {
    listen_to_laws();
    let check = move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let clock = ManualClock::default();
            let store = Arc::new(Broken::new(defect, &clock));
            (law.check)(&StoreUnderTest::with_clock(store, clock)).await;
        });
    };
    let check = move || catch_unwind(AssertUnwindSafe(check)).map_err(|_| SAID.take().unwrap_or_default());
    thread::Builder::new()
        .name(LAW_THREAD.to_owned())
        .spawn(check)
        .unwrap()
        .join()
        .unwrap()
}

fn law(name: &str) -> StoreLaw {
    *LAWS
        .iter()
        .find(|law| law.name == name)
        .unwrap_or_else(|| panic!("there is no law {name}"))
}

#[test]
fn every_law_has_a_defect_that_trips_it() {
    let tripped: BTreeSet<_> = TRIPS.iter().flat_map(|(_, laws)| laws.iter().copied()).collect();
    let safe: Vec<_> = LAWS
        .iter()
        .map(|law| law.name)
        .filter(|law| !tripped.contains(law))
        .collect();
    assert!(safe.is_empty(), "no defect trips these laws: {safe:#?}");
}

#[test]
fn every_law_holds_without_a_defect() {
    for law in LAWS {
        assert_eq!(
            check(*law, Defect::None),
            Ok(()),
            "{law:?} on a store without a defect"
        );
    }
}

#[test]
fn every_defect_trips_its_laws() {
    let mut kept = Vec::new();
    for (defect, laws) in TRIPS {
        for name in *laws {
            match check(law(name), *defect) {
                Ok(()) => kept.push(format!("{name} holds in spite of {defect:?}")),
                // A panic elsewhere would be the broken store's own and prove nothing.
                Err(said) if !said.contains("lap-conformance/src/") => {
                    kept.push(format!("{name} did not fail: {said}"))
                }
                Err(said) => println!("{defect:?} / {name}: {said}"),
            }
        }
    }
    assert!(kept.is_empty(), "{kept:#?}");
}
