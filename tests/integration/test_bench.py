"""The benchmarks can be found; what they measure is for ``scripts/bench`` to say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "scripts.benchmarks", *arguments], text=True,
        capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """Name to line of every benchmark, as the command lists them."""
    ran = bench()
    assert ran.returncode == 0, ran.stderr
    return dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())


def test_bench_lists_every_benchmark_with_a_line_about_it(listed: dict[str, str]) -> None:
    modules = (ROOT / "scripts" / "benchmarks").glob("*.py")
    measuring = {path.stem for path in modules if "\ndef run(" in path.read_text("utf-8")}

    assert set(listed) == measuring
    assert {"scaling", "round", "start", "ddp"} <= set(listed)
    assert all(about.endswith(".") for about in listed.values())


def test_bench_refuses_an_unknown_name_and_says_which_there_are() -> None:
    ran = bench("sprint")

    assert ran.returncode == 2
    assert "scaling" in ran.stderr


def test_bench_on_a_gpu_ends_clearly_where_there_is_none(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one here")
    ran = bench("gpu", "--quick", "--out", str(tmp_path / "results"))

    assert ran.returncode == 1
    assert ran.stderr.startswith("no GPU here")
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()
