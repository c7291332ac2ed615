"""What the processes that only pass things on do not import."""

import subprocess
import sys

import pytest

HEAVY = ("numpy", "torch", "boto3", "matplotlib", "rich")


@pytest.mark.parametrize(
    "module",
    ["tasks.train, tasks.validate, tasks.infer, tasks.schedule", "kubeml.supervisor"],
    ids=["Celery's parent", "supervisor"],
)
def test_process_that_does_no_work_imports_nothing_for_it(module: str) -> None:
    script = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )

    assert (done.stdout.strip(), done.stderr) == ("[]", "")
