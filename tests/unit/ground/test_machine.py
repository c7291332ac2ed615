"""What a worker says it has, in a container and out of one."""

import os
from pathlib import Path

import pytest

from brokers.settings import Settings
from kubeml.machine import memory_limit, resident_bytes, share


def test_machine_without_limits_is_declared_whole(tmp_path: Path) -> None:
    whole = share(root=tmp_path)

    assert whole["cores"] == len(os.sched_getaffinity(0))
    assert whole["memory_bytes"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("cpu", "memory", "cores", "memory_bytes"),
    [
        ("50000 100000", "1073741824", 1, 2**30),
        ("100000 100000", "max", 1, None),
        ("max 100000", "4096", None, 4096),
        ("max 100000", "9" * 18, None, None),
        ("nonsense", "nonsense", None, None),
    ],
)
def test_limits_of_a_container_are_declared(
    tmp_path: Path, cpu: str, memory: str, cores: int | None, memory_bytes: int | None
) -> None:
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text(f"{cpu}\n")
    (group / "memory.max").write_text(f"{memory}\n")
    whole = share(root=tmp_path / "elsewhere")

    limited = share(root=tmp_path)

    assert limited["cores"] == (cores or whole["cores"])
    assert limited["memory_bytes"] == (memory_bytes or whole["memory_bytes"])


def test_memory_limit_is_a_workers_part_and_never_more_than_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gib = 2**30

    def limit(total: int, *, workers: int = 1, asked: int = 0) -> float:
        monkeypatch.setattr(
            "kubeml.machine.share", lambda: {"cores": 1, "memory_bytes": total * gib}
        )
        return memory_limit(Settings(home=tmp_path, memory_bytes=asked), workers=workers) / gib

    assert limit(40) == 36
    assert limit(40, workers=4) == 9
    assert limit(10, workers=8) == 2
    assert limit(1, workers=8) == pytest.approx(0.9)
    assert limit(40, workers=4, asked=gib) == 1


def test_resident_bytes_are_those_of_this_process() -> None:
    before = resident_bytes()
    kept = bytearray(b"x") * 2**26

    assert resident_bytes() - before >= len(kept) * 0.9
