//! One suite for all backends: a case is an async function that is named as a sentence and
//! listed once, and runs against each of them.

pub(crate) mod fixture;
mod series;

use self::fixture::Backend;

/// Makes one test per backend of each case.
macro_rules! conformance {
    ($($resource:ident: $($case:ident),+ $(,)?;)+) => {
        mod memory {
            use super::Backend;
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$resource::$case(Backend::Memory.open()).await;
                }
            )+)+
        }

        mod embedded {
            use super::Backend;
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$resource::$case(Backend::Embedded.open()).await;
                }
            )+)+
        }
    };
}

conformance! {
    series:
        the_newest_sample_wins_and_keeps_its_life,
        a_point_past_the_retention_is_stale_and_creates_nothing,
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
}
