"""How fast a job trains, and for how long yet: from its events alone."""

from brokers.rounds.events import Event
from kubeml.pool.speed import WINDOW_S, pause_s, samples_per_s, time_left_s


def planned(at: float, *, epoch: int = 1) -> Event:
    fields = {"epoch": epoch, "epochs": 3, "rounds": 2, "samples": 400}
    return Event(id=f"{at}", kind="epoch", at=at, fields=fields)


def merged(at: float, number: int, *, epoch: int = 1, samples: int = 200) -> Event:
    fields = {"epoch": epoch, "round": number, "rounds": 2, "samples": samples}
    return Event(id=f"{at}", kind="round", at=at, fields=fields)


def test_speed_is_rows_by_the_time_of_the_rounds() -> None:
    assert samples_per_s([planned(10), merged(11, 1), merged(14, 2)]) == 100


def test_time_between_epochs_does_not_count() -> None:
    events = [planned(10), merged(11, 1), merged(12, 2), planned(15, epoch=2)]

    assert samples_per_s([*events, merged(16, 1, epoch=2)]) == 200


def test_nothing_is_claimed_without_history() -> None:
    assert samples_per_s([]) is None
    assert samples_per_s([planned(10)], open_s=30) is None


def test_rows_handed_in_are_the_first_that_is_known() -> None:
    assert samples_per_s([planned(10)], open_s=30, handed_in=60) == 2


def test_a_round_whose_beginning_is_not_known_is_left_out() -> None:
    # Events before these were not read, and one in between was lost.
    assert samples_per_s([merged(11, 1)]) is None
    assert samples_per_s([planned(10), merged(20, 2)]) is None


def test_only_the_last_rounds_count() -> None:
    slow = [planned(0), merged(100, 1, samples=1)]
    quick = [merged(99 + number, number, samples=7) for number in range(2, 2 + int(WINDOW_S))]

    assert samples_per_s([*slow, *quick]) == 7
    assert samples_per_s([*slow, *quick[:-1]]) < 1


def test_a_round_that_takes_longer_than_any_other_slows_the_job_down() -> None:
    events = [planned(10), merged(11, 1)]

    assert samples_per_s(events, open_s=0.9) == 200
    assert samples_per_s(events, open_s=3) == 50
    assert samples_per_s(events, open_s=3, handed_in=100) == 75


def test_pause_is_the_mean_from_the_last_merge_to_the_next_plan() -> None:
    events = [planned(10), merged(12, 2), planned(13, epoch=2), merged(14, 2, epoch=2)]

    assert pause_s(events) == 1
    assert pause_s([*events, planned(17, epoch=3)]) == 2
    assert pause_s([planned(10), merged(11, 1)]) == 0


def test_what_a_rebuilt_job_lost_is_no_pause() -> None:
    rebuilt = Event(id="x", kind="rebuilt", at=90, fields={"epoch": 1})

    assert pause_s([merged(12, 2), rebuilt, planned(100, epoch=2)]) == 0


def test_time_left_is_rows_by_speed_and_the_pauses_on_the_way() -> None:
    assert time_left_s(500, 100) == 5
    assert time_left_s(500, 100, pauses=2, pause_s=1.5) == 8
    assert time_left_s(0, 100) == 0


def test_time_left_is_not_known_without_a_speed() -> None:
    assert time_left_s(500, None) is None
    assert time_left_s(500, 0.0) is None
    # But nothing is left, however slow.
    assert time_left_s(0, None) == 0
