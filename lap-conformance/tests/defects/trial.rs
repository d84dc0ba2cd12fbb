//! How a law is tried on a backend that may be broken.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::thread;

use lap_conformance::Law;

thread_local! {
    /// What the last law that failed on this thread said, and in which file.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

const LAW_THREAD: &str = "law";

/// The laws of a kind of backend, and the defects that trip them.
pub(crate) struct Trial<S: 'static, D: 'static> {
    pub(crate) laws: &'static [Law<S>],
    /// Which laws each defect must trip. It may trip others.
    pub(crate) trips: &'static [(D, &'static [&'static str])],
    /// Nothing is wrong.
    pub(crate) none: D,
    /// Makes a backend with this defect.
    pub(crate) make: fn(D) -> S,
}

impl<S: 'static, D: Copy + fmt::Debug + Send + 'static> Trial<S, D> {
    pub(crate) fn every_law_has_a_defect(&self) {
        let tripped: BTreeSet<_> = self
            .trips
            .iter()
            .flat_map(|(_, laws)| laws.iter().copied())
            .collect();
        let names = self.laws.iter().map(|law| law.name);
        let safe: Vec<_> = names.filter(|law| !tripped.contains(law)).collect();
        assert!(safe.is_empty(), "no defect trips these laws: {safe:#?}");
    }

    pub(crate) fn every_law_holds_without_a_defect(&self) {
        for law in self.laws {
            assert_eq!(
                self.check(*law, self.none),
                Ok(()),
                "{law:?} on a backend without a defect"
            );
        }
    }

    pub(crate) fn every_defect_trips_its_laws(&self) {
        let mut kept = Vec::new();
        for (defect, names) in self.trips {
            for name in *names {
                let law = self.laws.iter().find(|law| law.name == *name);
                let law = law.unwrap_or_else(|| panic!("there is no law {name}"));
                match self.check(*law, *defect) {
                    Ok(()) => kept.push(format!("{name} holds in spite of {defect:?}")),
                    // A panic elsewhere would be the broken backend's own and prove nothing.
                    Err(said) if !said.contains("lap-conformance/src/") => {
                        kept.push(format!("{name} did not fail: {said}"));
                    }
                    Err(_) => {}
                }
            }
        }
        assert!(kept.is_empty(), "{kept:#?}");
    }

    /// Checks the law on a backend with this defect; `Err` is what the law says when it fails. Time is paused, so a law
    /// that waits in vain ends at once.
    fn check(&self, law: Law<S>, defect: D) -> Result<(), String> {
        listen_to_laws();
        let make = self.make;
        let check = move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused(true).build().unwrap();
            runtime.block_on(async move { (law.check)(&make(defect)).await });
        };
        let check =
            move || catch_unwind(AssertUnwindSafe(check)).map_err(|_| SAID.take().unwrap_or_default());
        thread::Builder::new()
            .name(LAW_THREAD.to_owned())
            .spawn(check)
            .unwrap()
            .join()
            .unwrap()
    }
}

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

/// The three tests of a trial.
macro_rules! trial {
    ($trial:ident) => {
        #[test]
        fn every_law_has_a_defect_that_trips_it() {
            $trial.every_law_has_a_defect();
        }

        #[test]
        fn every_law_holds_without_a_defect() {
            $trial.every_law_holds_without_a_defect();
        }

        #[test]
        fn every_defect_trips_its_laws() {
            $trial.every_defect_trips_its_laws();
        }
    };
}

/// The defects of a kind of backend, with the laws that each must trip.
macro_rules! defects {
    ($($(#[$doc:meta])* $defect:ident: $($law:ident),+;)+) => {
        /// What is wrong with a broken backend.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Defect {
            /// Nothing.
            None,
            $($(#[$doc])* $defect,)+
        }

        pub(crate) const TRIPS: &[(Defect, &[&str])] = &[$((Defect::$defect, &[$(stringify!($law)),+]),)+];
    };
}

pub(crate) use {defects, trial};
