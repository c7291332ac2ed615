"""The tests of the scripts can fail: with one check taken out, a test that is about it does."""

import inspect
from collections.abc import Callable

import pytest
from redis import Redis

from brokers.errors import KubemlError
from tests.protocol import test_scripts_advance as advance
from tests.protocol import test_scripts_clock as clock
from tests.protocol import test_scripts_contrib as contrib
from tests.protocol import test_scripts_hedge as hedge
from tests.protocol import test_scripts_life as life
from tests.protocol import test_scripts_overlap as overlap
from tests.protocol import test_scripts_scale as scale
from tests.protocol import test_scripts_share as share
from tests.protocol import test_scripts_take as take
from tests.protocol import test_scripts_timings as timings
from tests.protocol import test_scripts_trips as trips
from tests.protocol.jobs import ScriptedJob
from tests.protocol.script_variants import WEAKENINGS, weakened

Claim = Callable[[ScriptedJob], None]

CAUGHT_BY: dict[str, Claim] = {
    "no generation check": contrib.test_contrib_to_another_generation_is_gone,
    "no rid check in CONTRIB and ADVANCE": contrib.test_contrib_of_an_earlier_round_is_stale,
    "CONTRIB without rid check": contrib.test_contrib_of_an_earlier_round_is_stale,
    "CONTRIB takes anything": contrib.test_contrib_of_something_unreadable_is_refused,
    "CONTRIB without lease check": contrib.test_contrib_without_the_lease_is_lost,
    "CONTRIB replaces what is there": contrib.test_contrib_of_a_slot_that_is_in_is_a_duplicate,
    "CONTRIB knocks at every repetition": (contrib.test_contrib_knocks_once_for_parameter_servers),
    "CONTRIB without a look at the chunks": (
        trips.test_contrib_whose_chunks_are_not_there_changes_nothing
    ),
    "CONTRIB sends everybody to the bell": (
        trips.test_contrib_says_where_the_bell_stands_when_there_is_nothing_else_to_do
    ),
    "CONTRIB names no chunk": trips.test_a_knock_names_the_chunks_that_were_handed_in,
    "TAKE does not count the time behind the bell": trips.test_time_behind_the_bell_counts_as_idle,
    "CONTRIB keeps the lease": contrib.test_contrib_gives_the_lease_back,
    "ADVANCE without rid check": advance.test_advance_of_a_superseded_parameter_server_is_stale,
    "ADVANCE is not repeatable": advance.test_advance_repeated_is_ok_and_changes_nothing,
    "ADVANCE is repeatable by rid alone": (
        advance.test_advance_repeated_after_the_next_stage_began_is_ok
    ),
    "ADVANCE without all slots": advance.test_advance_asks_for_more_until_every_slot_is_in,
    "ADVANCE without cid comparison": advance.test_advance_says_when_the_contributions_have_changed,
    "ADVANCE without a look at the chunks": (
        advance.test_advance_says_when_staged_chunks_are_missing
    ),
    "ADVANCE keeps the contributions": (
        advance.test_advance_switches_to_the_staged_weights_in_one_step
    ),
    "ADVANCE keeps the optimizer states": (
        advance.test_advance_switches_the_optimizer_states_with_the_weights
    ),
    "ADVANCE keeps no local weights": (
        overlap.test_advance_keeps_what_each_slot_contributed_for_the_next_round
    ),
    "ADVANCE keeps local weights that nobody asked for": (
        overlap.test_advance_keeps_no_local_weights_without_overlap
    ),
    "stages keep the local weights of the one before": (
        overlap.test_advance_of_the_last_round_forgets_the_local_weights
    ),
    "TAKE forgets the local weights": overlap.test_take_hands_out_the_slots_own_local_weights,
    "TAKE hands out another slot's local weights": (
        overlap.test_take_hands_out_the_slots_own_local_weights
    ),
    "ADVANCE wants all slots in the last round": (
        advance.test_advance_wants_fewer_slots_in_a_short_last_round
    ),
    "TAKE without lease check": take.test_take_gives_no_slot_twice_while_its_lease_is_valid,
    "TAKE forgets its own lease": take.test_take_repeated_gives_the_same_slot_again,
    "TAKE without doubled check": take.test_take_sends_a_doubled_message_away,
    "TAKE without surplus check": take.test_take_sends_a_surplus_participant_away,
    "TAKE never yields": take.test_take_yields_when_served_for_long,
    "TAKE does not heed the share": share.test_who_exceeds_the_share_leaves_when_its_slot_is_done,
    "TAKE does not heed new jobs": share.test_a_new_job_gets_a_worker_at_the_end_of_a_slot,
    "TAKE yields by the clock although shares are laid down": (
        share.test_where_shares_are_laid_down_nobody_yields_by_the_clock
    ),
    "SEND does not heed the share": share.test_send_stops_at_the_share,
    "nobody heeds the user's cap": share.test_the_lower_of_share_and_cap_counts,
    "who joins is not booked": share.test_worker_time_goes_from_joining_to_the_end_of_the_stage,
    "who leaves is not booked": share.test_worker_time_ends_with_who_leaves,
    "the lost are not booked": (share.test_worker_time_of_the_lost_counts_until_they_are_given_up),
    "nobody is booked at the end of a stage": (
        share.test_worker_time_goes_from_joining_to_the_end_of_the_stage
    ),
    "a clock that steps back takes worker time away": (
        share.test_a_clock_that_steps_back_takes_no_worker_time_away
    ),
    "BEAT books nobody": share.test_worker_time_counts_again_from_a_late_beat,
    "CONTRIB books nobody": share.test_worker_time_counts_again_from_a_late_contribution,
    "TAKE copies at once": hedge.test_nobody_copies_in_the_first_second,
    "TAKE copies unasked": hedge.test_nobody_copies_where_the_job_does_not_want_it,
    "TAKE copies although others wait": hedge.test_nobody_copies_while_other_jobs_wait,
    "TAKE gives copies of copies": hedge.test_a_slot_is_copied_once,
    "a dead worker's copy is not promoted": (
        hedge.test_whoever_has_a_copy_has_the_slot_when_the_first_one_dies
    ),
    "CONTRIB takes no copies": hedge.test_the_copy_counts_if_it_is_first,
    "KICK drops the copy with the slot": hedge.test_a_slot_given_up_goes_to_whoever_has_a_copy,
    "KICK of a copy drops the slot": hedge.test_a_copy_given_up_leaves_the_slot_where_it_is,
    "TAKE does not count lost leases": (
        take.test_take_fails_the_job_when_a_slot_was_lost_too_often
    ),
    "TAKE gives slots that are in": take.test_take_gives_no_slot_that_has_contributed,
    "leases outlive a clock that steps back": (
        clock.test_a_lease_does_not_outlive_a_clock_that_steps_back
    ),
    "participants outlive a clock that steps back": (
        clock.test_participants_do_not_outlive_a_clock_that_steps_back
    ),
    "dead participants count": life.test_send_replaces_participants_that_died,
    "BEAT without token check": contrib.test_beat_of_a_lost_slot_is_lost,
    "BEAT without rid check": contrib.test_beat_of_an_earlier_round_is_lost,
    "KICK without id check": contrib.test_kick_of_anothers_lease_does_nothing,
    "KICK without rid check": contrib.test_kick_of_an_earlier_round_is_stale,
    "KICK counts drains": contrib.test_drains_never_fail_the_job,
    "KICK does not count errors": contrib.test_kick_fails_the_job_after_too_many_errors,
    "PLAN is not compared": life.test_plan_of_another_scheduler_is_stale,
    "PLAN keeps optimizer states of slots that went": (
        life.test_plan_forgets_the_optimizer_states_of_slots_that_went
    ),
    "FINISH without rid check": life.test_finish_of_a_superseded_parameter_server_is_stale,
    "FINISH of an incomplete validation": life.test_finish_waits_for_the_whole_validation,
    "FINISH stops without being asked": life.test_finish_stops_only_who_was_asked_to,
    "INIT over a living job": (
        life.test_init_does_not_touch_a_job_of_the_same_or_a_later_generation
    ),
    "INIT over a generation that nobody saw": (
        life.test_init_does_not_touch_a_generation_that_the_caller_did_not_see
    ),
    "INIT over a later generation": (
        life.test_init_does_not_touch_a_job_of_the_same_or_a_later_generation
    ),
    "INIT over a job that has ended": life.test_init_brings_back_no_job_that_is_done,
    "RETIRE of a living job": life.test_retire_does_not_touch_a_living_job,
    "INIT forgets the wish to stop": life.test_init_of_a_later_generation_keeps_the_wish_to_stop,
    "SEND is never FULL": life.test_send_is_full_when_the_burst_is_out,
    "STOP after the end": life.test_stop_does_nothing_after_the_end,
    "SCALE after the end": scale.test_scale_of_a_job_that_has_ended_is_final,
    "SCALE in any order": scale.test_scale_that_comes_late_does_not_undo_a_later_one,
    "PLAN forgets what is expected": scale.test_plan_keeps_what_is_expected_of_the_epoch,
    "TAKE forgets when a slot was first begun": (
        timings.test_a_slot_taken_over_keeps_when_it_was_first_begun
    ),
    "CONTRIB notes no time": timings.test_advance_notes_when_slots_were_taken_and_in,
    "ADVANCE does not open the next round": (
        timings.test_the_next_round_opens_when_the_last_is_merged
    ),
    "ACQ from a living owner": life.test_one_parameter_server_owns_a_job_until_its_lease_ends,
}


@pytest.mark.parametrize("name", WEAKENINGS)
def test_a_weakened_script_is_caught(client: Redis, job_id: str, name: str) -> None:
    claim = CAUGHT_BY[name]
    has_set_clock = "clocked_job" in inspect.signature(claim).parameters
    weak = ScriptedJob(
        client, f"{job_id}-weak", sources=weakened(name), has_set_clock=has_set_clock
    )

    with pytest.raises((AssertionError, KubemlError)):
        claim(weak)
    claim(ScriptedJob(client, f"{job_id}-real", has_set_clock=has_set_clock))
