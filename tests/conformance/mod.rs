//! One suite for all backends: a case is an async function that is named as a sentence and
//! listed once, and runs against each of them.

mod cache;
mod checkpoints;
mod fills;
pub(crate) mod fixture;
mod generations;
mod leases;
mod locks;
mod series;
mod validity;

use self::fixture::Backend;

/// Makes one test per backend of each case.
macro_rules! conformance {
    ($($resource:ident: $($case:ident),+ $(,)?;)+) => {
        mod memory {
            $(mod $resource {
                use crate::conformance::{$resource as cases, Backend};
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        cases::$case(Backend::Memory.open()).await;
                    }
                )+
            })+
        }

        mod redis {
            $(mod $resource {
                use crate::conformance::{$resource as cases, Backend};
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        cases::$case(Backend::Redis.open()).await;
                    }
                )+
            })+
        }

        mod redis_cluster {
            $(mod $resource {
                use crate::conformance::{$resource as cases, Backend};
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        cases::$case(Backend::RedisCluster.open()).await;
                    }
                )+
            })+
        }

        mod embedded {
            $(mod $resource {
                use crate::conformance::{$resource as cases, Backend};
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        cases::$case(Backend::Embedded.open()).await;
                    }
                )+
            })+
        }
    };
}

conformance! {
    series:
        the_newest_sample_wins_and_keeps_its_life,
        a_point_past_the_retention_is_stale_and_creates_nothing,
        a_point_without_a_time_is_not_older_than_one_of_the_same_millisecond,
        an_expired_series_is_gone_from_every_read_and_is_a_deletion,
        expired_series_do_not_use_up_the_budget,
        a_batch_over_the_budget_changes_nothing,
        racing_writers_never_exceed_the_budget,
        values_and_metadata_are_kept_to_the_bit,
        a_snapshot_is_sorted_paged_and_selected,
        deletions_by_selector_can_be_tried_first,
        a_cursor_is_honoured_until_a_deletion_behind_it_is_forgotten,
        waiting_readers_are_woken_by_every_change,
        any_order_of_steps_equals_a_plain_model,
        snapshot_and_deltas_equal_a_fresh_snapshot_under_any_concurrency,
        ;
    locks:
        exactly_one_of_many_concurrent_callers_gets_a_lock,
        a_held_lock_is_an_answer_with_its_end,
        a_lock_is_free_when_its_time_is_over_and_not_before,
        a_batch_claims_what_is_free_and_each_key_once,
        the_kinds_are_name_spaces_of_their_own,
        keys_may_contain_anything,
        locks_survive_a_restart,
        what_expired_is_not_counted,
        ;
    leases:
        one_of_many_concurrent_callers_gets_a_lease,
        the_same_holder_acquires_again_under_a_new_token,
        renewing_needs_the_current_token,
        releasing_needs_the_current_token,
        a_late_release_does_not_free_the_next_holders_lease,
        a_lease_lives_as_long_as_promised_and_not_longer,
        tokens_grow_over_all_leases_across_release_expiry_and_restart,
        a_restart_does_not_shorten_a_lease,
        leases_are_listed_by_name_in_pages,
        ;
    checkpoints:
        what_was_set_is_read_to_the_nanosecond,
        if_later_refuses_to_move_back,
        org_and_repo_are_never_joined,
        checkpoints_expire_with_the_retention_counted_from_the_write,
        a_deleted_checkpoint_is_gone,
        checkpoints_are_listed_by_org_in_pages,
        a_fence_that_does_not_hold_refuses_the_write,
        a_takeover_is_never_overwritten_by_the_former_holder,
        checkpoints_survive_a_restart,
        racing_writers_with_if_later_leave_the_latest,
        ;
    generations:
        a_key_that_is_not_known_is_zero_and_its_first_bump_gives_one,
        bumps_of_many_tasks_are_all_counted,
        a_batch_raises_each_key_once,
        a_snapshot_is_in_the_order_of_its_keys,
        generations_of_any_key_survive_a_restart,
        a_cleanup_forgets_what_was_not_bumped_for_the_retention,
        a_cleanup_of_many_keys_misses_none,
        a_fence_holds_until_its_key_is_bumped,
        a_fence_of_a_key_that_is_bumped_survives_the_cleanup_of_others,
        a_fence_never_holds_again_after_a_cleanup,
        a_fence_never_holds_again_after_a_restart,
        a_fence_never_holds_again_on_a_wiped_store,
        a_fence_never_holds_again_on_a_restored_store,
        bumps_that_race_with_cleanups_end_every_fence,
        ;
    cache:
        what_was_put_is_found_as_it_was,
        namespaces_and_keys_are_never_joined,
        a_value_lives_as_long_as_its_ttl_and_not_longer,
        a_bump_ends_a_value,
        a_put_whose_generation_has_moved_changes_nothing,
        a_number_holds_as_long_as_it_stands,
        a_value_depends_on_the_key_that_it_was_put_with,
        a_deleted_value_is_absent,
        many_lookups_are_answered_each_for_itself,
        a_cache_starts_empty,
        a_value_larger_than_its_namespace_is_refused,
        a_value_that_is_not_refused_is_held,
        there_are_only_so_many_namespaces,
        what_is_held_never_exceeds_the_bounds,
        a_small_namespace_is_not_pushed_out_by_a_busy_one,
        what_is_read_often_survives_a_scan,
        what_is_no_longer_used_makes_room_for_what_is,
        ;
    fills:
        one_of_many_callers_gets_the_turn,
        a_turn_ends_by_its_put_its_token_a_delete_or_its_time,
        a_put_that_is_refused_ends_its_own_turn_only,
        a_token_whose_time_is_over_does_not_end_the_next_turn,
        a_token_of_an_earlier_life_ends_nothing,
        ;
    validity:
        no_order_of_steps_makes_an_old_value_true,
        lookups_of_many_race_with_bumps,
        ;
}
