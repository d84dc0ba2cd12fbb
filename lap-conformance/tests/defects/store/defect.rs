use crate::trial::defects;

defects! {
    // Agents.
    LosesNames: a_created_agent_is_read;
    IgnoresCreationKeys: a_repeated_creation_is_replayed, concurrent_creations_make_one_agent;
    /// Every second creation of an id makes another agent.
    CreatesTwice: a_repeated_write_of_an_agent_changes_nothing;
    /// Requests are remembered for an hour only.
    ForgetsRequestsEarly: a_creation_is_remembered_for_a_day, an_open_is_remembered_for_a_day;
    LastUpdateWins: an_update_loses_to_a_newer_one, concurrent_updates_have_one_winner;
    KeepsDeletedAgents: a_deleted_agent_is_gone;
    HidesEndedSessions: a_deletion_ends_every_session;
    /// As with an unescaped `LIKE`.
    SearchHasWildcards: a_search_takes_wildcards_literally;
    IgnoresDirection: agents_are_listed_in_the_asked_order;
    /// The total is the length of the page.
    CountsThePage: pages_of_agents_cover_the_list;
    CountsActiveSessionsOnly: a_list_tells_about_sessions;

    // Claims and opens.
    SharesWarmSandboxes: claims_are_exclusive;
    /// Without a time of warming the id decides.
    ClaimsTheSmallestId: the_oldest_warm_sandbox_is_claimed_first;
    IgnoresPlatforms: both_halves_of_the_pool_key_must_match;
    IgnoresBlueprints: both_halves_of_the_pool_key_must_match;
    ClaimsTheDead: only_warm_sandboxes_are_claimed;
    LosesTitles: an_open_makes_its_session_and_sandbox;
    LosesPrompts: an_open_makes_its_first_events_turn_and_work;
    LeavesBringUpsDue: a_warm_open_claims_and_holds;
    /// The bring-up is given to the opener whether it reaches the sandbox or not.
    TakesFarBringUps: a_far_sandbox_is_left_to_its_place;
    ForgetsOpenKeys: a_repeated_open_is_replayed, concurrent_repetitions_open_once;
    OpensTwice: a_repeated_open_changes_nothing;
    IgnoresBodies: a_reused_open_key_is_refused, a_repeated_creation_is_replayed, a_repeated_turn_is_replayed;
    IgnoresAgentVersions: an_open_needs_the_agent_at_its_version;

    // Bring-ups and replacements.
    PhasesGoBack: phases_only_go_forward;
    ForgetsTheQueueWhenReady: a_ready_session_starts_its_first_turn;
    NeverReaps: a_ready_session_has_its_sandbox;
    /// The events stay when the outcome is refused.
    ConcludesInHalves: a_conclusion_is_whole_or_nothing;
    /// Whoever comes is taken for the holder.
    IgnoresFences: a_stale_hold_cannot_advance, a_stale_hold_cannot_touch_a_turn, a_stale_entry_does_not_stop_the_others,
        a_late_replacement_changes_nothing, a_lost_hold_ends_nothing;
    AbortsTurnsOfFailedSessions: a_failed_bring_up_ends_everything;
    TakesLateSteps: a_bring_up_ends_once;
    ReplacesColdOnly: a_broken_sandbox_is_replaced_by_a_warm_one;
    ReplacesWarmAlways: a_broken_sandbox_is_replaced_by_a_cold_one;
    /// Whatever sandbox the session has is the broken one.
    ReplacesTwice: a_repeated_replacement_takes_one, a_repeated_step_changes_nothing;

    // Turns.
    QueuesEverything: a_turn_of_an_idle_session_starts_at_once;
    StartsEverything: a_turn_waits_behind_the_open_one, turns_wait_while_a_session_is_creating;
    IgnoresQueueLimits: the_queue_is_bounded;
    AcceptsAfterTheEnd: an_ended_session_takes_no_turns;
    ForgetsTurnKeys: a_repeated_turn_is_replayed, concurrent_repetitions_accept_one_turn;
    AcceptsTwice: a_repeated_write_of_a_turn_changes_nothing;
    /// The turn is given to its acceptor whether it reaches the sandbox or not.
    TakesFarTurns: a_far_turn_is_left_to_its_place;
    /// Only the acceptor's own place is within its reach.
    IgnoresTheCluster: a_turn_in_the_cluster_is_its_acceptors;
    NumbersHaveGaps: turn_numbers_have_no_gaps;
    /// A done item is gone whatever was enqueued meanwhile.
    LosesEnqueuesWhileHeld: a_turn_accepted_while_its_item_is_held_is_not_lost, an_item_enqueued_while_held_comes_again,
        no_item_is_lost_between_enqueue_and_done;
    ListsFromTheStart: turns_are_listed_in_pages, events_are_read_in_pages;
    FinishesTwice: a_turn_finishes_exactly_once;
    LosesReplies: an_outcome_is_kept;
    StopsAfterATurn: the_next_turn_starts_with_the_finish;
    /// A hold on any item is a hold on every item.
    IgnoresKeys: a_foreign_hold_cannot_touch_a_turn;
    SkipsTheOpenTurn: a_taken_over_turn_is_begun_again;
    TakesAnyOutcome: only_an_open_turn_gets_a_terminal_outcome;
    AbortsEverything: an_abort_ends_queued_turns;
    AsksToAbortAgain: an_abort_of_the_open_turn_is_asked_once;

    // Endings.
    WritesAfterTheEnd: an_ended_session_is_dead_with_its_turns;
    LosesCleanups: an_ended_sessions_sandbox_is_cleaned_up, a_lost_sandbox_is_lost_once;
    /// Appends look at no hold.
    AppendsWithoutHold: an_end_takes_every_hold;
    EndsAgain: a_session_ends_once;
    EndsBusySessions: an_idle_end_spares_sessions_in_use;
    IgnoresTouches: a_sign_of_life_postpones_the_idle_end;
    IgnoresStates: sessions_are_listed_newest_first;

    // Revivals.
    /// The attempt is not counted.
    RevivesInPlace: an_ended_session_is_revived;
    /// The bring-up is left to whoever comes.
    RevivesForOthers: a_revived_session_goes_on;
    /// A ready session loses its sandbox instead of being ended.
    RevivesOverTurns: a_ready_session_is_ended_before_it_is_revived;
    RevivesColdOnly: a_revival_claims_a_warm_sandbox;
    RevivesTwice: concurrent_revivals_revive_once, a_repeated_revival_changes_nothing;
    RevivesTheDeleted: a_revival_needs_an_ended_session_and_its_agent;

    // Sandboxes.
    WarmsAnything: a_planned_sandbox_becomes_warm_once;
    /// The queued turns of a lost sandbox are aborted instead of failed.
    AbortsTurnsOfLostSandboxes: a_lost_sandbox_takes_its_session_along;
    LosesAgain: a_lost_sandbox_is_lost_once;
    TellsLossesAgain: a_repeated_write_of_a_sandbox_changes_nothing;
    BuriesTheLiving: only_ended_sandboxes_are_buried;
    FindsSandboxesEverywhere: sandboxes_are_found_and_counted;

    // Events.
    EventIdsHaveGaps: event_ids_have_no_gaps;
    LosesOrigins: events_are_kept_as_given;
    IgnoresCursors: events_are_ingested_exactly_once, concurrent_ingests_have_one_winner,
        a_repeated_ingest_changes_nothing;
    OneCursorPerSession: cursors_are_per_session_and_source;
    ForgetsRunning: the_first_append_of_a_turn_says_that_it_runs;
    RefusesWholeBatches: a_stale_entry_does_not_stop_the_others;

    // Work.
    IgnoresKinds: an_item_is_unique_by_kind_and_key;
    FirstDueWins: an_earlier_due_wins;
    /// An item goes to everybody who asks.
    SharesItems: a_take_is_exclusive;
    IgnoresPlaces: a_take_respects_kinds_and_places;
    TakesByKey: a_take_prefers_the_longest_due;
    /// Fences count the takes of one item.
    FencesPerItem: fences_only_grow;
    ForgetsAttempts: attempts_count_until_an_end;
    NeverFrees: a_silent_workers_items_are_freed, an_unknown_workers_items_are_freed;
    RetiresInName: a_retired_workers_items_are_free;
    HoldsNothing: a_worker_finds_what_it_holds, a_lost_take_is_found;

    // Records and the rest.
    LastPutWins: a_record_is_put_at_its_version, concurrent_puts_have_one_winner,
        a_repeated_write_of_a_record_changes_nothing;
    IgnoresUniqueKeys: a_unique_key_has_one_record;
    ListsOldestFirst: records_are_listed_newest_first;
    KeepsDeletedRecords: a_deleted_record_is_gone;
    EveryCandidateWins: every_caller_gets_the_same_instance;
    FailsPings: a_working_store_answers_a_ping;
    SwallowsHints: hints_reach_listeners;
    /// The first read of a session's turns is from a replica that lags.
    ReadsLate: an_acknowledged_write_is_read;
}
