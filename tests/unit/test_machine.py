"""What a worker says it has, in a container and out of one."""

import os
from pathlib import Path

import pytest

from kubeml.machine import share


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
