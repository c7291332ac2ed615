"""What ``python -m build`` makes: a wheel and a source package that run the demo anywhere."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("kubeml", "brokers", "tasks")


@dataclass(frozen=True, kw_only=True)
class Release:
    """The two files, and a folder that has nothing to do with the checkout."""

    wheel: Path
    source: Path
    folder: Path


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Built from a copy of the tree, since building leaves folders in it, and without network."""
    folder = tmp_path_factory.mktemp("release")
    tree = folder / "tree"
    tree.mkdir()
    for path in ROOT.iterdir():
        if path.name in {*PACKAGES, "scripts", "tests"}:
            shutil.copytree(path, tree / path.name)
        elif path.is_file():
            shutil.copy(path, tree)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(tree)],
        capture_output=True, text=True, check=False, env=outside(folder),
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    shutil.rmtree(tree)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Release(wheel=wheel, source=source, folder=folder)


def test_the_wheel_has_the_code_and_nothing_else(release: Release) -> None:
    with zipfile.ZipFile(release.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        info = [name for name in archive.namelist() if ".dist-info/" in name]

    assert names == code_files()
    assert any(name.endswith("licenses/LICENSE") for name in info)


def test_the_source_package_has_the_code_the_demo_and_the_examples(release: Release) -> None:
    with tarfile.open(release.source) as archive:
        files = {m.name.partition("/")[2]: m for m in archive.getmembers() if m.isfile()}

    examples = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "scripts" / "examples").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    needed = {
        "CHANGELOG.md", "LICENSE", "README.md", "constraints.txt", "pyproject.toml",
        "scripts/demo", "scripts/demo.py", "scripts/env.sh", "scripts/data/mnist_subset.npz",
    }  # fmt: skip
    assert code_files() | examples | needed <= files.keys()
    assert files["scripts/demo"].mode & 0o100
    assert not [name for name in files if name.endswith(".pyc") or name.startswith("tests/")]


@pytest.mark.full
@pytest.mark.timeout(300)
def test_the_demo_runs_from_the_source_package_with_the_wheels_code(release: Release) -> None:
    installed = release.folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    # What it depends on is that of this environment, without its kubeml.
    subprocess.run([*pip, "--target", str(installed), str(release.wheel)], check=True)
    with tarfile.open(release.source) as archive:
        archive.extractall(release.folder, filter="data")
    unpacked = release.folder / release.source.name.removesuffix(".tar.gz")
    for package in PACKAGES:
        shutil.rmtree(unpacked / package)
    env = outside(installed)

    where = subprocess.run(
        [sys.executable, "-P", "-c", "import kubeml; print(kubeml.__file__)"],
        capture_output=True, text=True, check=True, env=env, cwd=release.folder,
    )  # fmt: skip
    demo = subprocess.run(
        [sys.executable, str(unpacked / "scripts" / "demo.py")],
        capture_output=True, text=True, check=False, env=env, cwd=release.folder,
    )  # fmt: skip

    assert Path(where.stdout.strip()).is_relative_to(installed)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "accuracy on the test digits" in demo.stdout


def outside(folder: Path) -> dict[str, str]:
    """The environment, with the code of a folder rather than that of the checkout."""
    path = (
        f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    return os.environ | {"PYTHONPATH": str(folder), "PATH": path}


def code_files() -> set[str]:
    """Every file of the three packages, as a path from the root."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
