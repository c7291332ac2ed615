from dataclasses import replace

import pytest

from kubeml.jobs.spec import State
from kubeml.ops.chaos.report import (
    Change,
    ChaosReport,
    JobRun,
    Kill,
    rounds_lost,
    usual_interval,
    with_recovery,
)


def seen(*points: tuple[float, int, str, int]) -> list[Change]:
    return [Change(at=at, gen=gen, state=state, version=v) for at, gen, state, v in points]


def a_run(job_id: str = "j", **changes: object) -> JobRun:
    values = {"job_id": job_id, "state": State.DONE, "accuracy": 97.0, "weights_sha256": "a",
              "elapsed_s": 1.0}  # fmt: skip
    return JobRun(**(values | changes))  # type: ignore[arg-type]


def a_report(*runs: JobRun, kills: list[Kill] | None = None) -> ChaosReport:
    return ChaosReport(
        calm=a_run("calm"), runs=list(runs), kills=kills or [], usual_s=0.5, merges=[]
    )


def test_recovery_is_the_time_to_the_next_merge() -> None:
    kills = [Kill(at=10.5, kind="ps", name="ps"), Kill(at=12.0, kind="s3", name="s3")]
    points = seen((10, 1, "RUN", 3), (11, 1, "RUN", 4), (14, 1, "VAL", 4))

    assert [kill.recovery_s for kill in with_recovery(kills, points)] == [0.5, 2.0]


def test_recovery_is_the_longest_pause_before_the_next_kill() -> None:
    kills = [Kill(at=10.5, kind="worker", name="worker-1"), Kill(at=19.0, kind="s3", name="s3")]
    # What was under way is merged at once; then the dead worker's slot is missed for 6 s.
    points = seen((10, 1, "RUN", 3), (10.6, 1, "RUN", 4), (16.6, 1, "RUN", 5), (19.5, 1, "RUN", 6))

    assert [kill.recovery_s for kill in with_recovery(kills, points)] == pytest.approx([6, 0.5])


def test_the_time_between_two_jobs_is_no_pause() -> None:
    ended = seen((10, 1, "RUN", 1), (11, 1, "DONE", 1))
    begun = [replace(p, job_id="next") for p in seen((18, 1, "INIT", 0), (18.5, 1, "PLAN", 1))]

    (kill,) = with_recovery([Kill(at=10.75, kind="ps", name="ps")], [*ended, *begun])

    assert kill.recovery_s == 0.5


def test_a_new_generation_alone_is_no_recovery() -> None:
    points = seen((10, 1, "RUN", 7), (12, 2, "END", 5), (15, 2, "RUN", 5), (16, 2, "RUN", 6))

    (kill,) = with_recovery([Kill(at=11, kind="broker", name="valkey")], points)

    assert kill.recovery_s == 4
    assert rounds_lost(points) == 2


def test_without_progress_there_is_no_recovery() -> None:
    (kill,) = with_recovery([Kill(at=11, kind="ps", name="ps")], seen((10, 1, "RUN", 1)))

    assert kill.recovery_s is None


def test_usual_interval_is_the_median_between_merges() -> None:
    points = seen((1, 1, "RUN", 1), (2, 1, "RUN", 2), (3, 1, "RUN", 3), (9, 1, "RUN", 4))

    assert usual_interval(points) == 3.5
    assert usual_interval(points[:1]) == 0.0


def test_summaries_are_by_kind_and_take_off_the_usual_time() -> None:
    kills = [
        Kill(at=t, kind="ps", name="ps", recovery_s=r) for t, r in ((1, 2.0), (2, 4.0), (3, 3.0))
    ]
    kills.append(Kill(at=4, kind="worker", name="worker-1"))

    ps, worker = a_report(kills=kills).summaries()

    assert (ps.kind, ps.kills, ps.median_s, ps.max_s, ps.cost_s) == ("ps", 3, 3.0, 4.0, 2.5)
    assert (worker.kills, worker.median_s, worker.cost_s) == (1, None, None)


@pytest.mark.parametrize(
    "run", [a_run(state=State.FAILED), a_run(faults=["epoch 1: 3 rows counted 0 times"])]
)
def test_a_job_that_went_wrong_is_a_fault(run: JobRun) -> None:
    assert a_report(run).faults
    assert not a_report(a_run()).faults


def test_accuracy_and_bits_are_compared_with_the_undisturbed_run() -> None:
    report = a_report(a_run(accuracy=96.5), a_run(accuracy=97.1, weights_sha256="b"))

    assert report.accuracy_gap == 0.5
    assert not report.same_bits
    assert report.to_wire()["accuracy_gap"] == 0.5
