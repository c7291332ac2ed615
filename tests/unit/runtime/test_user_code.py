"""The border to user code: what it raises and returns, as the user should see it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kubeml.errors import UserCodeError
from kubeml.runtime.function import FunctionRuntime
from kubeml.runtime.loading import load_function
from kubeml.runtime.user_code import as_number, as_predictions, seed_everything, user_code
from kubeml.sdk.context import JobArgs


def run(tmp_path: Path, **files: str) -> FunctionRuntime:
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    return load_function(
        tmp_path, entry="net.py", args=JobArgs(), reader=None, device="cpu",
        logger=logging.getLogger("test"), init_seed=1,
    )  # fmt: skip


def frames(shown: str) -> list[str]:
    return [line.split('"')[1] for line in shown.splitlines() if line.startswith('  File "')]


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        ({"net": "raise OSError('at import')\n"}, ["net.py"]),
        ({"net": "import helper\n", "helper": "1 / 0\n"}, ["net.py", "helper.py"]),
        ({"net": "def main():\n    import helper\n", "helper": "1 / 0\n"}, ["net.py", "helper.py"]),
        ({"net": "import not_there_at_all\n"}, ["net.py"]),
    ],
    ids=["at import", "in a helper", "late import", "missing module"],
)
def test_traceback_shows_the_users_files_alone(
    tmp_path: Path, files: dict[str, str], seen: list[str]
) -> None:
    with pytest.raises(UserCodeError) as caught:
        run(tmp_path, **files)

    assert frames(caught.value.user_traceback) == [str(tmp_path / name) for name in seen]


def test_traceback_shows_the_cause_too(tmp_path: Path) -> None:
    code = """
def main():
    try:
        {}["colour"]
    except KeyError as err:
        raise ValueError("no colour") from err
"""
    with pytest.raises(UserCodeError, match="no colour") as caught:
        run(tmp_path, net=code)

    assert "KeyError: 'colour'" in caught.value.user_traceback
    assert "direct cause" in caught.value.user_traceback


def test_exit_in_user_code_is_an_error_and_not_the_end_of_the_worker(tmp_path: Path) -> None:
    code = "import argparse\n\ndef main():\n    argparse.ArgumentParser().parse_args(['--gpu'])\n"

    with pytest.raises(UserCodeError, match="SystemExit"):
        run(tmp_path, net=code)


def test_exit_of_the_workers_own_signal_handler_passes() -> None:
    handler: dict[str, Any] = {"__name__": "billiard.common"}
    exec("def shut_down():\n    raise SystemExit(-15)\n", handler)  # noqa: S102 - a module's stand-in

    with pytest.raises(SystemExit), user_code("train()"):
        handler["shut_down"]()


def test_module_called_kubeml_does_not_hide_the_sdk(tmp_path: Path) -> None:
    code = """
import torch
from kubeml import KubeDataset, KubeModel

def main():
    return KubeModel(torch.nn.Linear(2, 1), KubeDataset("points")).start()
"""
    runtime = run(tmp_path, net=code, kubeml="raise ImportError('the wrong one')\n")

    assert runtime.dataset_name == "points"


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (np.float32(0.5), 0.5),
        (torch.tensor([2.0]), 2.0),
        (torch.tensor(3.0, requires_grad=True) * 2, 6.0),
    ],
    ids=["int", "numpy", "one element", "with gradient"],
)
def test_number_may_come_as_people_return_it(value: Any, number: float) -> None:
    assert as_number(value, "train()") == number


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (torch.tensor([1, 2]), [1, 2]),
        (np.array([[0.5]]), [[0.5]]),
        ([torch.tensor(3), np.int64(4), "cat", None], [3, 4, "cat", None]),
        (({"digit": torch.tensor(3), "p": np.float32(0.5)},), [{"digit": 3, "p": 0.5}]),
        ([[torch.tensor([1.0])]], [[[1.0]]]),
    ],
    ids=["tensor", "array", "mixed list", "records", "nested"],
)
def test_predictions_become_json_able(value: Any, plain: Any) -> None:
    assert as_predictions(value) == plain


@pytest.mark.parametrize("value", ["yes", None, [object()]], ids=["text", "none", "object"])
def test_predictions_that_are_none_are_told(value: Any) -> None:
    with pytest.raises(UserCodeError, match=r"infer\(\)"):
        as_predictions(value)


def test_seeding_is_what_torch_does_itself() -> None:
    torch.manual_seed(2**40 + 3)
    expected = torch.rand(4)

    seed_everything(2**40 + 3)

    assert torch.equal(torch.rand(4), expected)
