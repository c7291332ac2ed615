"""torch's compiler stays out of a process that trains, and is whole once it is wanted."""

import json
import subprocess
import sys
from typing import Any

import pytest

TRAIN = """
import hashlib, json, sys
import torch

deferred = False
if {defer}:
    from kubeml.runtime.lazy_compiler import defer_compiler
    deferred = defer_compiler()

torch.manual_seed(0)
network = torch.nn.Linear(4, 4)
digest = hashlib.sha256()
for kind, options in ((torch.optim.SGD, {{"momentum": 0.9}}), (torch.optim.AdamW, {{}})):
    optimizer = kind(network.parameters(), lr=0.1, **options)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        schedule.step()
    optimizer.load_state_dict(optimizer.state_dict())
    for parameter in network.parameters():
        digest.update(parameter.detach().numpy().tobytes())
report = {{
    "deferred": deferred,
    "loaded": "torch._dynamo.eval_frame" in sys.modules,
    "digest": digest.hexdigest(),
}}
{then}
print(json.dumps(report))
"""

COMPILE = """
compiled = torch.compile(network, backend="eager")
report["same"] = torch.equal(compiled(torch.ones(1, 4)), network(torch.ones(1, 4)))
optimizer.state_dict()
report["module"] = type(torch._dynamo).__name__
report["loaded later"] = "torch._dynamo.eval_frame" in sys.modules
report["disabled"] = torch.optim.Optimizer.add_param_group.__wrapped__.__dict__.get(
    "__dynamo_disable"
) is torch.optim.Optimizer.add_param_group.__wrapped__
"""


def run(*, defer: bool, then: str = "") -> dict[str, Any]:
    script = TRAIN.format(defer=defer, then=then)
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_training_does_without_the_compiler_and_keeps_every_bit() -> None:
    usual = run(defer=False)
    deferred = run(defer=True)

    assert usual["loaded"]
    assert deferred["deferred"]
    assert not deferred["loaded"]
    assert deferred["digest"] == usual["digest"]


def test_compiler_is_whole_once_something_is_compiled() -> None:
    report = run(defer=True, then=COMPILE)

    assert not report["loaded"]
    assert report["same"]
    assert report["loaded later"]
    assert report["module"] == "module"
    assert not report["disabled"], "a function still goes by what the stand-in said of it"


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param("import torch._dynamo.utils", id="submodule"),
        pytest.param(
            "from torch._dynamo import config; config.cache_size_limit",
            id="from",
            marks=pytest.mark.full,
        ),
        pytest.param("torch._dynamo.reset()", id="attribute", marks=pytest.mark.full),
    ],
)
def test_compiler_is_loaded_however_it_is_asked_for(wanted: str) -> None:
    report = run(defer=True, then=wanted)

    assert not report["loaded"]


def test_compiler_that_is_loaded_already_is_left_alone() -> None:
    script = (
        "import torch._dynamo; from kubeml.runtime.lazy_compiler import defer_compiler;"
        "assert not defer_compiler(); assert torch._dynamo.reset"
    )

    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
