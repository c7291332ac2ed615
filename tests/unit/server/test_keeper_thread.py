"""When a parameter server's thread looks at its job."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from kubeml.server.keeper_thread import KeeperThread, next_backoff


class Watched:
    """Notes how it is called, and has ended after the first look."""

    job_id = "watched"
    is_owner = False

    def __init__(self) -> None:
        self.looks: list[bool] = []

    def reconcile(self, *, is_tick: bool, news: Any) -> bool:
        assert news is None
        self.looks.append(is_tick)
        return False

    def secure(self) -> None:
        raise AssertionError("the job has ended: there is nothing to secure")


def test_a_new_job_is_taken_on_at_once() -> None:
    # Who has not taken it on does not hear of contributions, and would be up to a tick late.
    keeper = Watched()
    thread = KeeperThread(cast(Any, keeper), tick_s=60.0)

    thread.start()
    thread.join(10.0)

    assert keeper.looks == [True]


class Resumed(Watched):
    """A job that is resumed while its end is written, which is told by a hint."""

    hint: Callable[[], bool]

    def reconcile(self, *, is_tick: bool, news: Any) -> bool:
        super().reconcile(is_tick=is_tick, news=news)
        return len(self.looks) == 1 and not self.hint()


def test_a_hint_during_the_last_look_is_not_lost() -> None:
    keeper = Resumed()
    thread = KeeperThread(cast(Any, keeper), tick_s=60.0)
    keeper.hint = thread.hint

    thread.start()
    thread.join(10.0)

    assert keeper.looks == [True, False]
    # Who hints now knows that another thread is needed.
    assert thread.is_over
    assert not thread.hint()


@pytest.mark.parametrize(
    ("is_outage", "waits"),
    [
        # However long a server was away, its jobs go on within three seconds of its return.
        (True, [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]),
        (False, [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]),
    ],
)
def test_a_keeper_waits_longer_after_every_error(is_outage: bool, waits: list[float]) -> None:
    found, wait = [], 0.0
    for _ in waits:
        wait = next_backoff(wait, is_outage=is_outage)
        found.append(wait)

    assert found == waits
