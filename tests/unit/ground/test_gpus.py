"""Which GPUs there are, and which worker gets which: told by the environment, or found."""

from pathlib import Path

import pytest

from brokers.errors import InvalidSetting
from brokers.settings import Settings
from kubeml.errors import Conflict, InvalidOption
from kubeml.machine import VISIBLE, gpu_name, pinned_environment, pinned_gpus, spread, visible_gpus

UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"


def settings(**changes: object) -> Settings:
    values: dict[str, object] = {"home": Path("/nowhere"), "device": "gpu"}
    return Settings(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder without any GPU, and no nvidia-smi."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for folder in ("bin", "dev", "proc/driver/nvidia/gpus"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def give_nvidia_smi(machine: Path, script: str) -> None:
    tool = machine / "bin" / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


@pytest.mark.parametrize(
    ("gpus", "slots", "expected"),
    [
        (["0"], 1, "0"),
        (["0", "1", "2"], 1, "0 1 2"),
        (["0", "1"], 2, "0 1 0 1"),
        (["3"], 4, "3 3 3 3"),
        ([UUID, "1"], 2, f"{UUID} 1 {UUID} 1"),
    ],
)
def test_workers_are_spread_over_the_gpus_by_turns(
    gpus: list[str], slots: int, expected: str
) -> None:
    assert " ".join(spread(gpus, slots)) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("0,1", "0 1"),
        (" 2 , 0 ", "2 0"),
        (f"{UUID},MIG-1c/3/0", f"{UUID} MIG-1c/3/0"),
        ("0,-1,2", "0"),
        ("0,,2", "0"),
        ("1,1", "1"),
        ("", ""),
        ("NoDevFiles", ""),
        ("none", ""),
    ],
)
def test_environment_has_the_last_word_as_cuda_reads_it(
    machine: Path, told: str, expected: str
) -> None:
    give_nvidia_smi(machine, "echo 'GPU 0: Fake'")

    assert " ".join(visible_gpus({VISIBLE: told}, root=machine)) == expected


def test_gpus_are_found_by_the_tool_the_driver_or_the_device_files(machine: Path) -> None:
    assert visible_gpus({}, root=machine) == ()
    for name in ("nvidia0", "nvidia7", "nvidiactl", "nvidia-uvm"):
        (machine / "dev" / name).touch()
    assert visible_gpus({}, root=machine) == ("0", "1")
    for name in ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        (machine / "proc/driver/nvidia/gpus" / name).mkdir()
    assert visible_gpus({}, root=machine) == ("0", "1", "2")
    give_nvidia_smi(machine, "echo 'GPU 0: Fake (UUID: GPU-1)'; echo '  MIG 1g: Fake'")
    assert visible_gpus({}, root=machine) == ("0",)


def test_tool_that_fails_leaves_it_to_the_driver(machine: Path) -> None:
    give_nvidia_smi(machine, "echo 'has failed because it could not communicate'; exit 9")
    (machine / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir()

    assert visible_gpus({}, root=machine) == ("0",)


def test_workers_may_be_fewer_than_there_is_room_for() -> None:
    told = {VISIBLE: "0,1"}

    assert pinned_gpus(settings(slots_per_gpu=2), told) == ("0", "1", "0", "1")
    assert pinned_gpus(settings(slots_per_gpu=2), told, workers=3) == ("0", "1", "0")


def test_cpu_workers_are_pinned_to_nothing() -> None:
    # Both kinds of workers may be started with the same environment.
    both = settings(device="cpu", slots_per_gpu=2)

    assert pinned_gpus(both, {VISIBLE: "0,1"}, workers=8) == ()


def test_pinned_worker_sees_one_gpu_and_is_one_process() -> None:
    environment = pinned_environment("1")

    alone = Settings.load({"home": Path("/nowhere")}, environ=environment)

    assert environment[VISIBLE] == "1"
    assert pinned_gpus(alone, environment) == ("1",)


@pytest.mark.parametrize(
    ("changes", "options", "told", "fault"),
    [
        ({"device": "cpu", "slots_per_gpu": 2}, {"slots_given": True}, "0", "--slots-per-gpu is 2"),
        ({"slots_per_gpu": 2}, {"workers": 5}, "0,1", "--workers is 5, expected 4 at most"),
    ],
    ids=["slots on a CPU", "more workers than room"],
)
def test_impossible_option_is_refused(
    changes: dict[str, object], options: dict[str, int], told: str, fault: str
) -> None:
    with pytest.raises(InvalidOption, match=fault):
        pinned_gpus(settings(**changes), {VISIBLE: told}, **options)  # type: ignore[arg-type]


def test_machine_without_a_gpu_is_told(machine: Path) -> None:
    assert visible_gpus({}, root=machine) == ()

    with pytest.raises(Conflict, match="no GPU can be used here: CUDA_VISIBLE_DEVICES is ''"):
        pinned_gpus(settings(), {VISIBLE: ""})


@pytest.mark.parametrize(("told", "slots"), [("0,1", 1), ("0", 2)])
def test_pinned_worker_that_sees_more_starts_nothing(told: str, slots: int) -> None:
    environment = pinned_environment("1") | {VISIBLE: told}

    with pytest.raises(Conflict, match="was pinned to GPU 1"):
        pinned_gpus(settings(slots_per_gpu=slots), environment)


@pytest.mark.parametrize("slots", [0, -1])
def test_no_slots_at_all_is_refused(slots: int) -> None:
    with pytest.raises(InvalidSetting, match="slots_per_gpu"):
        settings(slots_per_gpu=slots)


def test_gpu_is_called_what_the_driver_calls_it(machine: Path) -> None:
    give_nvidia_smi(machine, '[ "$3" = --id=GPU-7 ] && echo "NVIDIA H100 80GB HBM3"')

    assert gpu_name("GPU-7") == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize("script", ["echo No devices were found; exit 6", "kill -9 $$", None])
def test_gpu_without_a_driver_to_ask_has_no_name(machine: Path, script: str | None) -> None:
    if script:
        give_nvidia_smi(machine, script)

    assert gpu_name("0") == ""
