"""What the processes that only pass things on do not import."""

import subprocess
import sys

import pytest

HEAVY = ("numpy", "torch", "boto3", "matplotlib", "rich")


@pytest.mark.parametrize(
    ("module", "more"),
    [
        ("tasks.worker, tasks.schedule, tasks.lifecycle", ()),
        # It looks at queues without speaking the language of those who use them.
        ("kubeml.stack.supervisor", ("celery", "kombu")),
    ],
    ids=["Celery's parent", "supervisor"],
)
def test_process_that_does_no_work_imports_nothing_for_it(
    module: str, more: tuple[str, ...]
) -> None:
    heavy = HEAVY + more
    script = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )

    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_process_that_serves_no_metrics_does_not_import_their_library() -> None:
    modules = (
        "kubeml.server.server, kubeml.worker.participant, kubeml.scheduling.scheduler,"
        " tasks.lifecycle, kubeml.cli"
    )
    script = f"import sys, {modules}; print('prometheus_client' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )

    assert (done.stdout.strip(), done.stderr) == ("False", "")
