"""Growing at once, shrinking to what was wanted at most for a while."""

from hypothesis import given
from hypothesis import strategies as st

from kubeml.pool.autoscaler import Autoscaler


def scaler(*, low: int = 0, high: int = 4, idle_s: float = 10.0) -> Autoscaler:
    return Autoscaler(low=low, high=high, idle_s=idle_s)


def goals(made: Autoscaler, *looks: tuple[float, int]) -> list[int]:
    return [made.goal(wanted, at) for at, wanted in looks]


def test_pool_grows_at_once_and_no_further_than_its_bound() -> None:
    assert goals(scaler(), (0.0, 0), (0.5, 1), (1.0, 3), (1.5, 9)) == [0, 1, 3, 4]


def test_pool_shrinks_only_when_nobody_wanted_more_for_the_whole_time() -> None:
    looks = [(float(at), 2 if at == 0 else 0) for at in range(13)]

    assert goals(scaler(), *looks) == [2] * 11 + [0] * 2


def test_short_lulls_shrink_nothing() -> None:
    looks = [(float(at), 3 if at % 9 == 0 else 0) for at in range(60)]

    assert set(goals(scaler(), *looks)) == {3}


def test_pool_shrinks_to_the_most_that_was_wanted_meanwhile() -> None:
    looks = [(0.0, 4), (4.0, 1), (8.0, 2), (9.0, 1), (11.0, 1), (18.5, 0), (19.5, 0), (29.0, 0)]

    assert goals(scaler(), *looks) == [4, 4, 4, 4, 2, 1, 1, 0]


def test_pool_never_goes_below_its_minimum() -> None:
    assert goals(scaler(low=2), *((float(at), 0) for at in range(30))) == [2] * 30


def test_nothing_shrinks_after_a_time_in_which_nobody_looked() -> None:
    looks = [(0.0, 3), (1.0, 3), (100.0, 0), (105.0, 0), (110.0, 0), (110.1, 0)]

    assert goals(scaler(), *looks) == [3, 3, 3, 3, 3, 0]


@given(
    steps=st.lists(st.tuples(st.floats(0.1, 6.0), st.integers(0, 9)), min_size=1, max_size=60),
    low=st.integers(0, 2),
)
def test_goal_is_what_was_wanted_at_most_within_the_time(
    steps: list[tuple[float, int]], low: int
) -> None:
    made, now, seen = scaler(low=low), 0.0, []
    for pause_s, wanted in steps:
        now += pause_s
        seen.append((now, min(4, max(low, wanted))))

        assert made.goal(wanted, now) == max(n for at, n in seen if now - at <= 10.0)
