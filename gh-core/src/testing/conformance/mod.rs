//! The conformance suite: every promise of the storage ports, as tests of somebody's store.
//!
//! A store keeps the promises of [`Store`](crate::ports::store::Store), [`Reader`](crate::ports::reader::Reader) and
//! [`Outbox`](crate::ports::outbox::Outbox) if it passes. One line in a test file runs everything:
//!
//! ```
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use gh_core::memory::MemoryStore;
//! use gh_core::ports::clock::Clock;
//! use gh_core::testing::conformance::{Handle, TestBed};
//!
//! struct Memory(Arc<MemoryStore>);
//!
//! #[async_trait]
//! impl TestBed for Memory {
//!     async fn create(clock: Arc<dyn Clock>) -> Self {
//!         Self(Arc::new(MemoryStore::new(clock, [7; 32])))
//!     }
//!
//!     async fn open(&self) -> Handle {
//!         Handle::of(Arc::clone(&self.0))
//!     }
//! }
//!
//! gh_core::store_conformance!(Memory);
//! ```
//!
//! The line emits one `#[tokio::test]` for each promise, named after it, in a module for each chapter (so the crate
//! needs tokio with `macros` and `rt` among its dev-dependencies). A test that fails also prints what breaks for users.
//! Every test gets a store of its own, and time stands still but where the test moves it.
//!
//! [`scenarios`] lists the same as data, for those who want to run them in another way.
//!
//! **Stability**: new scenarios may come in any version. A store that fails one after an update kept a promise by luck
//! only.

#![expect(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

mod bed;
mod brake;
mod callbacks;
mod claims;
mod commits;
mod dump;
mod every_command;
mod fencing;
mod holds;
mod interleavings;
mod new_claims;
mod paging;
mod racing_senders;
mod reads;
mod recalls;
mod round_trip;
mod snapshots;
mod steps;
mod sweeps;
mod values;
mod versions;
mod world;

pub use self::bed::{Handle, Scenario, TestBed, check};
pub use self::brake::each_of_a_fleet_is_given_up_in_time;

/// Lists the scenarios once: as data, and as the macro that makes tests of them.
macro_rules! suite {
    ($d:tt $($chapter:ident { $($breaks:literal $name:ident)* })*) => {
        /// Every scenario of the suite, in the order of its chapters.
        #[must_use]
        pub fn scenarios() -> Vec<Scenario> {
            vec![$($(Scenario {
                chapter: stringify!($chapter),
                name: stringify!($name),
                breaks: $breaks,
                run: |world| Box::pin($chapter::$name(world)),
            },)*)*]
        }

        /// Tests that a store keeps every promise of its ports: see the
        /// [module](mod@crate::testing::conformance) for how to write the one line.
        #[macro_export]
        macro_rules! store_conformance {
            ($d bed:ty) => {
                $(mod $chapter {
                    use super::*;
                    $(
                        #[doc = $breaks]
                        #[tokio::test]
                        async fn $name() {
                            $crate::testing::conformance::check::<$d bed>(stringify!($chapter), stringify!($name)).await;
                        }
                    )*
                })*
            };
        }
    };
}

suite! { $
    commits {
        "Two servers that change one job at once would both believe that they did, and one change would be lost."
        of_two_decisions_on_one_version_only_the_first_is_stored_and_the_second_leaves_no_trace

        "A deregistration that was refused would have retired half of the fleet, or told a client of jobs that still run."
        nothing_of_a_refused_deregistration_is_visible_whichever_of_its_members_moved

        "A call of a language model would be billed twice: once by the refused report and once by its repetition."
        nothing_of_a_refused_report_of_costs_is_visible

        "A client would be told that its key was used, for a job that does not exist."
        nothing_of_a_refused_submission_is_visible_and_its_key_is_free

        "A worker that was told to come again would count as heard from, or its figures would be another's."
        nothing_of_a_refused_heartbeat_is_visible

        "A server that gathers commands could not store two of one job together, and would be slow just when it is busy."
        several_commands_for_one_job_are_stored_in_one_batch_each_on_what_the_one_before_left

        "A cancelled job would run on, because a report was decided on something that never happened."
        what_was_decided_on_a_refused_change_of_its_batch_is_refused_with_it

        "A client that submits twice in a moment, as after a time-out, would have its job done twice."
        of_two_submissions_with_one_key_in_one_batch_only_one_is_stored

        "A client whose repeated submission reaches another server would have its job done twice."
        of_submissions_with_one_key_through_many_handles_at_once_only_one_makes_a_job

        "One client would be answered with the job of another that happens to use the same key."
        keys_of_different_clients_do_not_meet

        "What was answered as stored would be missing on another server, or after a restart."
        what_one_handle_stored_every_other_sees_at_once_also_one_opened_afterwards

        "Deadlines would pass early on one server and late on another, and workers be given up that live."
        what_one_handle_told_as_the_time_no_other_goes_behind

        "Workers would be refused by every server but the one where they registered, or anyone could forge a token."
        all_handles_share_one_secret_for_tokens

        "A repeated request that has nothing left to do would be refused again and again."
        a_changeset_that_changes_nothing_is_stored

        "Heartbeats of one worker would stand in each other's way, and what one of them said would be lost."
        two_heartbeats_decided_on_one_moment_both_count

        "An operator would not see that a retired process still calls, and how often."
        refused_calls_of_a_retired_process_are_all_counted_whichever_server_they_reach
    }

    versions {
        "A job would be given to a worker that a client was just told is gone, and be lost with it."
        a_grant_and_a_deregistration_refuse_each_other

        "A worker that is about to be replaced in a deploy would get one more job, and keep the deploy waiting."
        a_grant_and_a_drain_refuse_each_other

        "A job would be given to a process that died, and wait for its time-out although its successor is idle."
        a_grant_and_the_registration_of_another_process_refuse_each_other

        "A job would be given to a process that has just shut down, and wait for its time-out."
        a_grant_and_a_goodbye_refuse_each_other

        "A job would be given to a worker that was just given up, and wait for its time-out."
        a_grant_and_the_end_of_a_silent_worker_refuse_each_other

        "A client would be told that a worker is reserved for its job, when the worker is being deregistered."
        a_reservation_and_a_deregistration_refuse_each_other

        "A client would be told that a worker is reserved for its job, when the worker takes no more."
        a_reservation_and_a_drain_refuse_each_other

        "A client would be told that a worker is reserved for its job, when another process has taken its place."
        a_reservation_and_the_registration_of_another_process_refuse_each_other

        "A client would be told that a worker is reserved for its job, when the worker is dead."
        a_reservation_and_the_end_of_a_silent_worker_refuse_each_other

        "A worker that lives would be given up, and its job started a second time beside it."
        a_worker_that_was_heard_from_meanwhile_is_not_given_up

        "A worker that was given up would be told that all is well, and work on a job that another one has."
        a_heartbeat_that_was_decided_before_its_worker_was_given_up_is_decided_anew

        "A worker would come up under a name that its client has just retired, and take jobs that nobody expects there."
        a_hold_on_a_name_and_a_registration_under_it_refuse_each_other

        "Two jobs of one batch would be promised the same browser."
        of_two_strict_submissions_that_saw_one_idle_worker_only_one_gets_it

        "Two jobs that reach different servers would be promised the same browser."
        of_strict_submissions_that_race_for_one_idle_worker_just_one_is_reserved

        "A client would be told that its job is cancelled while a worker begins with it."
        a_grant_and_a_cancellation_of_its_job_refuse_each_other
    }

    holds {
        "A machine that a client shuts down would be filled with new workers while its old ones finish."
        nobody_registers_under_a_name_while_its_workers_are_being_retired_nor_while_the_hold_lasts

        "A retired process that wakes up late would come back as if nothing had happened, or its name be lost for ever."
        a_hold_that_has_expired_lets_a_new_process_in_and_never_the_old_one

        "A client that wants its workers back would wait an hour for them."
        a_hold_that_a_client_lifted_is_over_at_once_on_every_server

        "A machine that is being shut down would get new workers, or machines beside it would get none."
        a_machine_that_is_retired_holds_its_name_and_those_of_its_workers
    }

    claims {
        "Urgent jobs would wait behind others, or old ones for ever."
        higher_priority_comes_first_then_older

        "An application would be sent twice, or a worker drive two jobs in one browser."
        every_job_is_started_once_and_no_worker_gets_two_however_many_servers_claim

        "Workers would stand idle beside waiting jobs."
        one_claim_gives_every_idle_worker_a_job_while_there_are_any

        "A worker whose call moved to another server would get nothing there."
        a_server_may_claim_for_workers_that_wait_on_another

        "A job would run in a browser that is not signed in for its user."
        a_job_for_one_target_goes_to_a_worker_of_that_target_only

        "A job that would rather have its own worker would never get it, or wait for it for ever."
        a_preferred_job_waits_for_its_target_first_and_then_goes_to_anyone

        "A job that anyone may do would wait for a worker that does not exist."
        a_job_for_anyone_goes_to_anyone_whatever_target_it_names

        "A client that names a worker by its id would wait in vain, or be served by a namesake's neighbour."
        a_name_that_no_worker_carries_as_target_means_the_worker_of_that_id

        "A queue for one busy target would bring all others to a standstill."
        jobs_that_a_worker_may_not_take_do_not_hide_those_behind_them

        "A job would wait for its time-out beside the only worker that may take it."
        a_fenced_job_that_its_worker_may_no_longer_take_does_not_hide_another

        "A job that fails would be tried again at once, over and over, and keep others from running."
        a_job_that_backs_off_is_passed_over_until_its_time

        "A job would be started on a second worker while the first, which is only slow, still acts on it."
        a_fenced_job_is_for_the_worker_that_lost_it_until_the_fence_passes

        "A job whose worker is gone would never run again."
        when_its_fence_has_passed_anyone_may_take_the_job

        "A cancelled job would be started, a reserved one stolen, or a job given to a worker that is not there."
        jobs_that_are_reserved_or_ended_and_workers_that_do_not_listen_are_left_out

        "A job whose grant was lost on the way would stand still until it times out."
        a_job_whose_worker_never_heard_of_it_is_answered_again_on_every_server

        "A worker that lost its memory would begin a job again that it has half done."
        a_job_that_its_worker_knows_of_is_not_answered_again

        "A job that its worker does not have would stand still until it times out."
        a_job_that_its_worker_twice_denies_is_put_back_whichever_servers_hear_it
    }

    new_claims {
        "A worker would be given a job by a call that was never written down, or wait for one that it has."
        a_claim_and_the_job_that_it_is_granted_are_one_change

        "A worker that came when there was nothing to do would get nothing when there is."
        a_claim_for_which_there_is_no_job_is_stored_as_waiting

        "Those who wait would be passed over while others come."
        new_claims_and_those_that_wait_are_served_together

        "A worker that is to be shut down would begin a job, or a job be given to somebody who is not there to take it."
        a_claim_that_the_rules_refuse_is_given_no_job

        "A worker that called twice would get two jobs, or its job would go to the call that it has given up."
        a_newer_claim_ends_the_older_that_came_with_it

        "A job whose grant was lost on the way would stand still until it times out."
        a_claim_whose_answer_was_lost_is_given_the_same_job_again

        "A reserved job would wait beside the worker that it is reserved for."
        a_claim_takes_the_job_that_is_reserved_for_its_worker

        "A worker would count as waiting, or as busy, for a claim that was never answered."
        of_a_claim_that_met_a_conflict_nothing_is_stored
    }

    fencing {
        "A late report of a failed attempt would end, or fail, the one that runs now."
        an_earlier_attempt_of_the_same_worker_says_nothing_but_what_it_cost

        "Two workers would act on one job, and neither be told to stop."
        a_worker_that_asks_after_a_job_which_another_has_is_told_that_it_lost_it

        "A process that was replaced in a deploy would go on beside its successor, and its reports be believed."
        a_process_that_was_replaced_is_refused_everything_but_usage_and_counted

        "A worker that comes back from a network failure would end a job that another one has by now."
        a_process_that_was_given_up_is_refused_everything_but_usage_and_counted

        "A worker that a client retired would go on working, unseen."
        a_process_that_was_deregistered_is_refused_for_good_and_counted

        "A job whose worker crashed would never be tried again."
        a_job_whose_worker_is_lost_before_the_point_of_no_return_is_tried_again

        "An application would be sent twice because its worker was cut off for a while, or one that was sent would count as failed."
        a_job_past_its_point_of_no_return_is_given_to_nobody_and_its_own_worker_may_still_tell_the_end

        "An application would be sent twice because its worker died after it was sent."
        a_job_past_its_point_of_no_return_fails_when_its_worker_stays_away_and_is_never_started_again

        "A job would run in a browser that is not signed in for its user, after its own worker was lost."
        a_strict_job_never_runs_on_a_worker_of_another_target

        "A worker whose answer was lost would be told that its finished job is not its own."
        an_end_that_is_reported_again_is_answered_alike_on_every_server
    }

    sweeps {
        "Jobs would expire too early, or wait although nobody needs them any more."
        jobs_are_due_at_their_deadline_and_no_sooner

        "A server that was down would come up with one sweep that lasts for minutes, or leave the rest undone."
        a_sweep_takes_no_more_than_its_limit_and_says_that_there_is_more

        "A client would be told twice that its job expired, or a worker be given up twice."
        what_is_due_happens_once_however_many_servers_sweep

        "The job of a dead worker would wait for its time-out, or that of a living one be taken from it."
        a_silent_worker_is_given_up_and_its_job_put_back_while_one_that_beats_stays

        "A worker that once was heard from would never be given up."
        a_worker_that_beat_since_it_was_last_looked_at_is_due_again_when_it_falls_silent

        "In a large fleet the dead would never be found among the living."
        workers_that_beat_take_no_place_in_a_sweep_with_a_limit

        "A job would stay reserved for a worker that does not pick it up."
        a_reservation_that_is_not_picked_up_lapses_though_the_worker_lives

        "A deploy would wait for a job without end."
        a_drain_deadline_takes_the_job_from_a_living_worker

        "A worker would be given up without its job, which then waits for its time-out."
        a_worker_that_only_comes_along_with_a_due_job_is_not_given_up_without_its_own_job
    }

    brake {
        "A server that could not be reached for a minute would give up the whole fleet and start its jobs a second time."
        while_the_brake_holds_nobody_is_given_up_and_no_deadline_that_hangs_on_hearing_is_over

        "Half of a fleet that the control plane cannot hear would be given up before anybody counts."
        nobody_is_given_up_before_the_silence_of_the_whole_fleet_is_counted

        "The workers of a zone that burnt down would keep their jobs for ever."
        whoever_is_still_silent_after_the_episode_is_lost_within_twice_the_time

        "A job that had ten seconds left when the control plane went away would be over time the moment it is back."
        blind_time_is_added_to_every_deadline_that_hangs_on_hearing

        "Jobs would expire late, or names be held too long, because workers cannot be heard."
        expiry_callbacks_and_holds_on_names_are_not_held_back

        "A server that starts beside others would give up their workers, or keep all of them from giving up the dead."
        a_server_that_has_just_started_holds_back_alone_while_another_looks

        "An operator would not know why nobody is given up, or see one episode told by each server."
        what_one_server_found_is_told_once_and_known_to_all

        "A process that was suspended between looking and acting would act on what it saw long ago."
        what_was_seen_too_long_ago_gives_nobody_up

        "In a fleet of thousands a dead worker's job would wait for those before it in the list."
        of_many_workers_each_is_given_up_within_a_second_of_its_deadline
    }

    snapshots {
        "A cancelled job's worker would not be told to stop."
        a_job_brings_the_worker_that_has_it_or_had_it_last

        "A reservation would lapse without its worker being marked, and the next job be reserved there again."
        a_job_that_is_reserved_brings_its_worker_and_the_one_that_had_it_last

        "A worker that has a job would be given another, or lose the one that is reserved for it."
        a_worker_brings_the_job_that_occupies_it_and_what_its_calls_left_behind

        "A deregistration would never end, although its last worker is free."
        a_worker_brings_the_deregistration_that_waits_for_it_whichever_way_it_comes_in

        "A worker would come up under a name that was just retired."
        a_name_brings_its_record_and_the_deregistration_that_holds_it

        "A client that retires a target or a machine would leave some of its workers running."
        a_name_brings_every_worker_that_carries_it_with_its_job_and_its_own_names

        "Jobs would wait for a target that was retired, or jobs of another target fail with it."
        a_target_brings_just_the_jobs_that_wait_for_it_where_asked_for

        "A job that failed just before its target was retired would wait for nobody."
        a_target_brings_also_the_jobs_that_back_off_or_are_fenced

        "A repeated submission would make a second job."
        an_idempotency_key_brings_the_job_it_made

        "A call of a language model that is reported twice would be billed twice."
        reported_calls_are_found_by_job_and_call_and_a_greater_report_takes_the_place

        "A client that retires a target would be told that it is done when half of it is."
        all_workers_of_a_target_can_be_deregistered_in_one_change

        "Retiring one machine would fail jobs that another machine could do."
        deregistering_a_machine_leaves_strict_jobs_to_workers_of_their_target_elsewhere

        "A decision would be made on a state that never was: a worker free and busy at once."
        a_snapshot_is_of_one_moment_while_others_write
    }

    reads {
        "A client would be shown other jobs than those it asked for."
        every_filter_of_the_list_of_jobs_leaves_out_what_does_not_match

        "An operator would look for a machine's workers and not find them."
        workers_are_listed_by_name_and_found_by_target_and_machine

        "A worker would be sought where it no longer is, and jobs be piled on a machine that looks empty."
        a_worker_that_comes_back_with_other_names_is_found_by_these_only

        "Whoever scales the fleet by how many jobs wait would start too many workers, or none."
        figures_group_what_waits_by_target_and_obstacle

        "Metrics would take the longer to answer the more jobs there ever were."
        figures_count_live_jobs_and_no_history

        "A wrong id would look like a failure of the server."
        what_does_not_exist_is_absent_and_no_error
    }

    callbacks {
        "A client would see its job end before it starts, or two servers would tell it the same thing at once."
        a_job_has_one_sender_at_a_time_and_its_callbacks_go_in_order

        "One client whose server is slow or away would delay the callbacks of all others."
        jobs_do_not_wait_for_each_other_and_the_longest_due_comes_first

        "With several servers running, clients would get every callback several times, or some never."
        when_many_servers_look_at_once_each_callback_goes_to_one_of_them

        "A client whose server was away would miss a callback, or could not tell a repetition from a new one."
        a_failed_attempt_is_repeated_at_its_time_with_the_same_id_and_bytes

        "Callbacks of a server that crashed would never be sent, or its last word would undo what another one did."
        when_a_sender_is_lost_another_takes_over_and_the_first_comes_too_late

        "A server that was slow with one client would send all its callbacks to others a second time."
        one_settlement_that_comes_too_late_does_not_touch_the_others

        "A client that refuses one callback would never learn how its job ended."
        a_callback_that_is_refused_three_times_is_overtaken_and_leaves_an_event

        "Nobody would see that a client was not told, or the job's history would have two events of one number."
        a_dead_letter_leaves_a_numbered_event_in_the_same_transaction

        "A client would get a flood of outdated costs, or would miss that its job started."
        a_newer_cost_replaces_an_unsent_one_but_never_a_transition

        "A client that compares repetitions would see two different callbacks of one id, or an outdated cost."
        frozen_bytes_stay_while_the_ledger_grows_and_unfrozen_cost_follows_it

        "The end of a job would be told with a cost that is still incomplete, or much too late."
        the_end_is_told_when_announced_calls_are_reported_or_after_a_short_wait

        "Senders would sleep through a callback that is due, or look again and again for nothing."
        the_next_time_to_look_is_that_of_the_earliest_queue

        "Senders would try to call nobody, for ever."
        a_job_without_a_callback_address_has_nothing_to_send

        "An operator would not see that callbacks pile up."
        figures_count_what_is_open_and_what_is_due

        "A client would miss a callback that came up just while another one was being sent."
        what_is_enqueued_while_others_send_and_settle_is_neither_lost_nor_out_of_order
    }

    recalls {
        "A decision would be made on a job or a worker that never was, and nobody would find out."
        what_is_remembered_of_a_job_or_a_worker_was_stored_with_that_version

        "A worker would go on with a job that was cancelled, or wait while it has one, because a server remembers wrongly."
        what_is_decided_on_memory_is_refused_where_another_server_made_it_wrong

        "A job would be made twice, or be taken for a worker that has gone, because nobody looked."
        only_jobs_and_workers_that_are_there_are_remembered
    }

    interleavings {
        "Depending on who is faster, a callback would be lost, sent twice at once or out of order, or never again."
        enqueueing_and_settling_give_the_same_queue_in_every_order_of_steps
    }

    every_command {
        "A job that waits could be lost, or would wait for a worker that it was taken from."
        every_command_on_a_job_that_waits_leaves_what_was_decided

        "A reservation could stay for ever, or a worker would be taken for free that has one."
        every_command_on_a_job_that_is_reserved_leaves_what_was_decided

        "A worker could run a job that the server gave to somebody else."
        every_command_on_a_job_that_was_granted_leaves_what_was_decided

        "What a worker reports could be stored in part: a job that is done without a trace of how."
        every_command_on_a_job_that_runs_leaves_what_was_decided

        "A job could be tried more often than the client allowed."
        every_command_on_a_job_that_runs_for_the_last_time_leaves_what_was_decided

        "What must not happen twice could happen twice."
        every_command_on_a_job_past_its_point_of_no_return_leaves_what_was_decided

        "The outcome of a job whose worker was away for a while could be lost, or be taken twice."
        every_command_on_a_job_whose_worker_was_lost_in_the_act_leaves_what_was_decided

        "A job that is done could change afterwards, or its late costs would be lost."
        every_command_on_a_job_that_is_completed_leaves_what_was_decided

        "A job that failed could not be retried, or be retried with half of its past."
        every_command_on_a_job_that_failed_leaves_what_was_decided

        "A job that was cancelled could come back to life, or its worker would never be free again."
        every_command_on_a_job_that_is_cancelled_leaves_what_was_decided

        "A job that nobody took in time could still be started."
        every_command_on_a_job_that_expired_leaves_what_was_decided
    }

    paging {
        "A client that pages through its jobs would miss some, or count some twice, whenever new ones come in."
        pages_of_jobs_neither_repeat_nor_skip_while_jobs_arrive_with_every_filter

        "Whoever reads a job's history would not know whether something is missing from it."
        events_of_a_job_are_numbered_without_gaps_and_paged_and_filtered

        "A live view of a job would miss steps that its worker reports while it is read."
        who_follows_the_events_of_a_job_misses_none_that_arrive_meanwhile

        "An operator who pages back through a worker's past would miss some of it."
        events_of_a_worker_are_listed_newest_first_while_it_goes_on

        "An operator who looks for a lost callback would miss it in the list."
        deliveries_are_paged_by_sequence_while_callbacks_come_and_go
    }

    round_trip {
        "A worker would fill in forms with other text than the client gave, or a budget would lose its cents."
        submissions_are_read_back_as_they_were_accepted

        "A worker would be known by another name than its own, and whoever retires it would miss it."
        what_workers_say_of_themselves_is_read_back_exactly

        "Clients would be billed for other tokens than were used, and read other results than were reported."
        what_is_reported_of_a_job_is_read_back_exactly

        "Deadlines and histories would be off by as much as a store rounds times."
        times_of_the_far_future_are_read_back_to_the_microsecond

        "A client that checks the signature of a callback would refuse its repetition."
        bodies_of_callbacks_are_kept_to_the_byte
    }
}
