use std::fmt;
use std::pin::Pin;

/// One law about subjects of a kind, for programs that run laws themselves.
pub struct Law<S> {
    /// The name of its function.
    pub name: &'static str,
    /// Runs it; a broken law panics.
    pub check: for<'a> fn(&'a S) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl<S> Clone for Law<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Law<S> {}

impl<S> fmt::Debug for Law<S> {
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
            agents: a_created_agent_is_read,
                a_repeated_creation_is_replayed,
                concurrent_creations_make_one_agent,
                a_creation_is_remembered_for_a_day,
                an_update_loses_to_a_newer_one,
                concurrent_updates_have_one_winner,
                a_deleted_agent_is_gone,
                a_deletion_ends_every_session;
            agent_lists: a_search_takes_wildcards_literally,
                agents_are_listed_in_the_asked_order,
                pages_of_agents_cover_the_list,
                a_list_tells_about_sessions;
            claims: claims_are_exclusive,
                the_oldest_warm_sandbox_is_claimed_first,
                both_halves_of_the_pool_key_must_match,
                only_warm_sandboxes_are_claimed;
            opens: an_open_makes_its_session_and_sandbox,
                an_open_makes_its_first_events_turn_and_work,
                a_warm_open_claims_and_holds,
                a_far_sandbox_is_left_to_its_place,
                a_repeated_open_is_replayed,
                concurrent_repetitions_open_once,
                a_reused_open_key_is_refused,
                an_open_is_remembered_for_a_day,
                an_open_needs_the_agent_at_its_version;
            bring_up: phases_only_go_forward,
                a_ready_session_starts_its_first_turn,
                a_ready_session_has_its_sandbox,
                a_stale_hold_cannot_advance,
                a_failed_bring_up_ends_everything,
                a_bring_up_ends_once;
            replacements: a_broken_sandbox_is_replaced_by_a_warm_one,
                a_broken_sandbox_is_replaced_by_a_cold_one,
                a_repeated_replacement_takes_one,
                a_late_replacement_changes_nothing;
            turns: a_turn_of_an_idle_session_starts_at_once,
                a_turn_waits_behind_the_open_one,
                turns_wait_while_a_session_is_creating,
                the_queue_is_bounded,
                an_ended_session_takes_no_turns,
                a_repeated_turn_is_replayed,
                concurrent_repetitions_accept_one_turn,
                turn_numbers_have_no_gaps,
                a_turn_accepted_while_its_item_is_held_is_not_lost,
                turns_are_listed_in_pages;
            reach: a_far_turn_is_left_to_its_place,
                a_turn_in_the_cluster_is_its_acceptors;
            outcomes: a_turn_finishes_exactly_once,
                a_conclusion_is_whole_or_nothing,
                an_outcome_is_kept,
                the_next_turn_starts_with_the_finish,
                a_stale_hold_cannot_touch_a_turn,
                a_foreign_hold_cannot_touch_a_turn,
                a_taken_over_turn_is_begun_again,
                only_an_open_turn_gets_a_terminal_outcome;
            aborts: an_abort_ends_queued_turns,
                an_abort_of_the_open_turn_is_asked_once;
            endings: an_ended_session_is_dead_with_its_turns,
                an_ended_sessions_sandbox_is_cleaned_up,
                an_end_takes_every_hold,
                a_session_ends_once,
                an_idle_end_spares_sessions_in_use,
                a_sign_of_life_postpones_the_idle_end,
                sessions_are_listed_newest_first;
            revivals: an_ended_session_is_revived,
                a_revived_session_goes_on,
                a_ready_session_is_ended_before_it_is_revived,
                a_revival_claims_a_warm_sandbox,
                concurrent_revivals_revive_once,
                a_revival_needs_an_ended_session_and_its_agent;
            sandboxes: a_planned_sandbox_becomes_warm_once,
                a_lost_sandbox_takes_its_session_along,
                a_lost_sandbox_is_lost_once,
                only_ended_sandboxes_are_buried,
                sandboxes_are_found_and_counted;
            events: event_ids_have_no_gaps,
                events_are_kept_as_given,
                events_are_ingested_exactly_once,
                concurrent_ingests_have_one_winner,
                cursors_are_per_session_and_source,
                the_first_append_of_a_turn_says_that_it_runs,
                a_stale_entry_does_not_stop_the_others,
                events_are_read_in_pages;
            work: an_item_is_unique_by_kind_and_key,
                an_earlier_due_wins,
                an_item_enqueued_while_held_comes_again,
                a_take_is_exclusive,
                a_take_respects_kinds_and_places,
                a_take_prefers_the_longest_due,
                fences_only_grow,
                attempts_count_until_an_end,
                a_lost_hold_ends_nothing,
                no_item_is_lost_between_enqueue_and_done;
            workers: a_silent_workers_items_are_freed,
                an_unknown_workers_items_are_freed,
                a_retired_workers_items_are_free,
                a_worker_finds_what_it_holds;
            records: a_record_is_put_at_its_version,
                concurrent_puts_have_one_winner,
                a_unique_key_has_one_record,
                records_are_listed_newest_first,
                a_deleted_record_is_gone;
            installation: every_caller_gets_the_same_instance,
                a_working_store_answers_a_ping,
                hints_reach_listeners,
                an_acknowledged_write_is_read;
            repetition: a_repeated_write_of_an_agent_changes_nothing,
                a_repeated_open_changes_nothing,
                a_repeated_revival_changes_nothing,
                a_repeated_step_changes_nothing,
                a_repeated_write_of_a_turn_changes_nothing,
                a_repeated_write_of_a_sandbox_changes_nothing,
                a_repeated_ingest_changes_nothing,
                a_repeated_write_of_a_record_changes_nothing,
                a_lost_take_is_found;
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
macro_rules! __tests {
    ($make:expr; $($backend:ident: $($law:ident),+;)+) => {$($(
        #[test]
        fn $law() {
            $crate::run(async { $crate::$backend::$law(&$make.await).await });
        }
    )+)+};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_list {
    (; $($role:ident: $($law:ident),+;)+) => {
        /// Every law of a store.
        pub const LAWS: &[$crate::Law<$crate::StoreUnderTest>] = &[$($(
            $crate::Law { name: stringify!($law), check: |subject| Box::pin($role::$law(subject)) },
        )+)+];
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __runtime_list {
    (; $backend:ident: $($law:ident),+;) => {
        /// Every law of a runtime.
        pub const LAWS: &[$crate::Law<$crate::RuntimeUnderTest>] = &[$(
            $crate::Law { name: stringify!($law), check: |subject| Box::pin($law(subject)) },
        )+];
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __vault_list {
    (; $backend:ident: $($law:ident),+;) => {
        /// Every law of a vault.
        pub const LAWS: &[$crate::Law<$crate::VaultUnderTest>] = &[$(
            $crate::Law { name: stringify!($law), check: |subject| Box::pin($law(subject)) },
        )+];
    };
}

/// One named test per law of [`Store`](lap_core::store::Store), in the module where it stands.
///
/// The argument is an async expression that gives a [`StoreUnderTest`](crate::StoreUnderTest) with an empty store; it is evaluated
/// once per law.
#[macro_export]
macro_rules! store_suite {
    ($make:expr) => {
        $crate::__store_laws! { __store_tests $make }
    };
}
