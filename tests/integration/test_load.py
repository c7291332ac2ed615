"""The load tests in a size for every run of the tests; all of them with ``--faults``."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "scripts.loads", *arguments], text=True,
        capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def passed(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """The reports of loads, none of which found anything wrong."""
    ran = load(*arguments, "--json", "--out", str(folder))
    assert ran.returncode == 0, ran.stderr[-6000:]
    reports: list[dict[str, Any]] = json.loads(ran.stdout)
    assert all(report["passed"] and not report["faults"] for report in reports)
    for report in reports:
        assert (folder / f"load-{report['load']}.png").read_bytes()[:4] == b"\x89PNG"
        for job in report["jobs"]:
            assert job["state"] == "DONE"
            assert job["epochs"] > 0
            assert job["first_wait_s"] > 0
    return reports


def bits(report: dict[str, Any]) -> set[str]:
    return {job["bits"] for job in report["jobs"]}


def test_load_lists_what_there_is() -> None:
    ran = load()

    assert ran.returncode == 0, ran.stderr
    names = [line.split()[0] for line in ran.stdout.splitlines()]
    assert names == ["crowd", "arrivals", "churn", "straggler", "all"]


@pytest.mark.timeout(240)
def test_jobs_of_different_weights_share_two_workers(tmp_path: Path) -> None:
    (crowd,) = passed(tmp_path, "crowd", "--quick", "--jobs", "4", "--epochs", "1")

    assert bits(crowd) == {"same"}
    assert [job["weight"] for job in crowd["jobs"]] == [1, 2, 3, 1]
    # Of each weight, and of each job. How fair they are is for `./scripts/load crowd` to judge:
    # what a few seconds come to depends on the machine.
    assert len(crowd["shares"]) == 3 + 4
    # So small a crowd has a job that has had its first turn when another one is through.
    assert all(row["due_s"] > 0 for row in crowd["shares"])
    assert sum(row["got_s"] for row in crowd["shares"]) > 0


@pytest.mark.timeout(240)
def test_workers_come_and_go_and_die_and_no_job_is_the_worse(tmp_path: Path) -> None:
    (churn,) = passed(tmp_path, "churn", "--quick", "--minutes", "0.15")

    assert "same" in bits(churn)
    assert "0 workers came" not in churn["facts"]["churn"]


@pytest.mark.full
@pytest.mark.timeout(480)
def test_all_loads_in_ci_size(tmp_path: Path) -> None:
    crowd, arrivals, churn, straggler = passed(tmp_path, "all", "--quick")

    assert all(row["fair"] for row in crowd["shares"])
    assert {"same", "-"} == bits(arrivals)
    assert "0 killed" not in churn["facts"]["churn"]
    walls = {series["name"]: series["median"] for series in straggler["series"]}
    assert bits(straggler) == {"same"}
    assert walls["round, one is slow, hedged"] < walls["round, one is slow"]
