"""What users import from ``kubeml``: all that they need, and nothing before they use it."""

import importlib
import inspect
import subprocess
import sys

import pytest

import kubeml
import kubeml.errors

HEAVY = ("torch", "numpy", "boto3", "botocore", "celery", "kombu", "redis", "matplotlib")

#: Beside the errors, which are held against the whole tree.
NAMES = {
    "Client", "DataWarning", "DatasetManifest", "EpochAudit", "EpochRow", "EpochTimes", "Event",
    "FunctionInfo", "Job", "JobAudit", "JobEnd", "JobSpec", "JobStatus", "JobTimes", "KubeDataset",
    "KubeModel", "LogLine", "PoolView", "QueueDemand", "Scale", "Settings", "State",
}  # fmt: skip


def test_public_names_are_these_and_every_error() -> None:
    errors = {
        name
        for name, value in vars(kubeml.errors).items()
        if inspect.isclass(value) and issubclass(value, kubeml.errors.KubemlError)
    }

    assert set(kubeml.__all__) == NAMES | errors
    assert dir(kubeml) == sorted(kubeml.__all__)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_public_name_is_what_it_says_and_has_a_docstring(name: str) -> None:
    public = getattr(kubeml, name)

    assert public.__name__ == name
    assert inspect.getdoc(public)


def test_name_that_is_not_public_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Worker'"):
        _ = kubeml.Worker  # type: ignore[attr-defined]


def test_types_for_checkers_are_those_that_programs_get() -> None:
    """What stands behind TYPE_CHECKING is never run: each import must lead to the same thing."""
    source = inspect.getsource(kubeml)
    block = source.split("if TYPE_CHECKING:\n")[1].split("\n__all__")[0]
    named: dict[str, object] = {}
    exec(inspect.cleandoc(block), named)  # noqa: S102 - our own imports
    del named["__builtins__"]

    assert {name: getattr(kubeml, name) for name in named} == named
    assert set(named) == set(kubeml.__all__)


@pytest.mark.parametrize(
    "script",
    [
        "import kubeml",
        "import kubeml; kubeml.KubemlError, kubeml.Settings",
        "import kubeml; kubeml.Client",
        "import sys; sys.argv = ['kubeml', '--help']\n"
        "from kubeml.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n",
    ],
    ids=["import", "errors and settings", "client", "help"],
)
def test_nothing_heavy_is_imported_before_it_is_used(script: str) -> None:
    told = f"import sys; print([n for n in {HEAVY} if n in sys.modules], file=sys.stderr)"

    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{script}\n{told}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stderr.strip() == "[]"


def test_every_module_behind_the_face_can_be_imported() -> None:
    assert all(importlib.import_module(home) for home in set(kubeml._HOMES.values()))
