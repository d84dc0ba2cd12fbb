use std::fmt;
use std::pin::Pin;

use crate::StoreUnderTest;

/// One law, for programs that run laws themselves.
#[derive(Clone, Copy)]
pub struct StoreLaw {
    /// The name of its function.
    pub name: &'static str,
    /// Runs it; a broken law panics.
    pub check: for<'a> fn(&'a StoreUnderTest) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl fmt::Debug for StoreLaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The one list of the laws of a store.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_laws {
    ($callback:ident $($make:expr)?) => {
        $crate::$callback! {
            $($make)?;
            claims: claims_are_exclusive,
                the_oldest_warm_sandbox_is_claimed_first,
                both_halves_of_the_pool_key_must_match,
                only_warm_sandboxes_are_claimed;
            opens: an_open_is_one_commit,
                a_warm_open_claims_and_holds,
                a_far_sandbox_is_left_to_its_place,
                a_repeated_open_is_replayed,
                concurrent_repetitions_open_once,
                a_reused_open_key_is_refused,
                an_open_is_remembered_for_a_day,
                an_open_needs_the_agent_at_its_version;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_tests {
    ($make:expr; $($role:ident: $($law:ident),+;)+) => {$($(
        #[test]
        fn $law() {
            $crate::run(async { $crate::store::$role::$law(&$make.await).await });
        }
    )+)+};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_list {
    (; $($role:ident: $($law:ident),+;)+) => {
        /// Every law of a store.
        pub const LAWS: &[$crate::StoreLaw] = &[$($(
            $crate::StoreLaw { name: stringify!($law), check: |subject| Box::pin($role::$law(subject)) },
        )+)+];
    };
}

/// One named test per law of [`Store`](lap_core::store::Store), in the module where it stands.
///
/// The argument is an async expression that gives a [`StoreUnderTest`] with an empty store; it is evaluated
/// once per law.
#[macro_export]
macro_rules! store_suite {
    ($make:expr) => {
        $crate::__store_laws! { __store_tests $make }
    };
}
