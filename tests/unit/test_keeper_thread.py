"""When a parameter server's thread looks at its job."""

from typing import Any, cast

from kubeml.parameter_server import KeeperThread


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
