//! What every store with an outbox must do about the notes of merges. The cases are beside the others of aggregates.

pub(super) use super::aggregates::outbox::{
    a_reader_of_notes_goes_on_behind_its_cursor, concurrent_merges_have_each_a_note,
    delivered_notes_leave_unless_there_is_a_stream, each_merged_update_has_a_note_and_no_other_has,
    notes_survive_a_restart_and_leave_with_their_hook,
    the_oldest_notes_leave_at_the_bound_and_no_merge_is_refused,
};

/// Passes the cases to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            each_merged_update_has_a_note_and_no_other_has,
            a_reader_of_notes_goes_on_behind_its_cursor,
            delivered_notes_leave_unless_there_is_a_stream,
            the_oldest_notes_leave_at_the_bound_and_no_merge_is_refused,
            concurrent_merges_have_each_a_note,
            notes_survive_a_restart_and_leave_with_their_hook,
        }
    };
}
pub(super) use cases;
