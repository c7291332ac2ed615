import pytest

from brokers import fail_points
from brokers.errors import InvalidSetting


@pytest.fixture(autouse=True)
def _disarm() -> object:
    yield
    fail_points.install("", "worker")


def test_rules_are_read() -> None:
    kill, stop = fail_points.parse(
        "ps.after_stage=kill@epoch=1,round=3;worker.mid_train=stop:20@slot=1,times=2"
    )

    assert (kill.role, kill.point, kill.action, kill.times) == ("ps", "after_stage", "kill", 1)
    assert kill.conditions == {"epoch": "1", "round": "3"}
    assert (stop.action, stop.seconds, stop.times) == ("stop", 20.0, 2)


@pytest.mark.parametrize(
    "text",
    ["worker.nowhere=kill", "ps.taken=kill", "worker.taken=explode", "worker.taken=stop",
     "worker.taken=sleep:x", "worker.taken=kill@slot", "nonsense"],
)  # fmt: skip
def test_a_rule_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting):
        fail_points.parse(text)


def test_a_point_fires_where_its_conditions_hold_and_so_often() -> None:
    fail_points.install("worker.taken=raise@epoch=2,slot=1;ps.read=raise", "worker")

    assert fail_points.reach("taken", epoch=1, slot=1) == ""
    fail_points.at(epoch=2)
    with pytest.raises(RuntimeError):
        fail_points.reach("taken", slot=1)
    assert fail_points.reach("taken", slot=1) == ""
    assert fail_points.reach("read") == ""


def test_actions_of_the_caller_are_returned() -> None:
    fail_points.install("worker.before_contrib=dup;worker.chunk=corrupt", "worker")

    assert fail_points.reach("before_contrib") == "dup"
    assert fail_points.reach("chunk", index=0) == "corrupt"
    assert fail_points.corrupted(b"ab") == b"\x9eb"
