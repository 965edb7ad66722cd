//! What the engine promises of what every engine does. Sums without a window are none of it: `windows` has those that it can.

use crate::bench::bench;

conformance!(
    on_embedded,
    bench,
    [
        a_wrong_text_is_refused_with_its_place,
        what_is_deployed_writes_its_rows_once,
        what_is_stopped_goes_on_without_loss_or_double,
        an_update_keeps_the_state,
        a_refused_update_leaves_the_old_one_running,
        a_final_stop_ends_it_and_what_is_gone_has_stopped,
        a_query_gives_its_rows_and_keeps_every_digit,
        a_query_is_live_and_ends_with_its_reader,
        a_query_of_what_comes_now_leaves_out_what_was,
        a_query_ends_when_its_time_is_over,
        a_query_that_fails_in_the_middle_says_why,
        a_wrong_query_is_refused_before_it_begins,
    ]
);
