"""A bundle's modules: their own, whatever they are called, and nobody else's."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeml.runtime.isolated_import import IsolatedBundle


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[IsolatedBundle]:
    files = {
        "net.py": """
import json
import tasks
import utils as helpers
from layers import conv
from layers.conv import SIZE
import layers.deep.block

def main():
    import late            # an import inside a function finds the bundle's modules too
    up = layers.deep.block.up()
    return tasks.NAME, helpers.NAME, conv.SIZE, SIZE, up, late.NAME, json.dumps(1)
""",
        "tasks.py": "NAME = 'my tasks'\n",
        "utils.py": "NAME = 'my utils'\n",
        "late.py": "import utils\nNAME = 'late ' + utils.NAME\n",
        "layers/__init__.py": "",
        "layers/conv.py": "SIZE = 3\n",
        "layers/deep/__init__.py": "",
        "layers/deep/block.py": """
from ..conv import SIZE
from tasks import NAME

def up():
    return NAME, SIZE
""",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    loaded = IsolatedBundle(tmp_path)
    yield loaded
    loaded.close()


def test_bundle_sees_its_own_modules(bundle: IsolatedBundle) -> None:
    assert bundle.module("net").main() == (
        "my tasks", "my utils", 3, 3, ("my tasks", 3), "late my utils", "1",
    )  # fmt: skip


def test_bundle_does_not_touch_ours(bundle: IsolatedBundle) -> None:
    import tasks

    path_before = list(sys.path)

    bundle.module("net").main()

    assert not hasattr(tasks, "NAME")
    assert sys.modules["tasks"] is tasks
    assert "utils" not in sys.modules
    assert sys.path == path_before


def test_two_bundles_with_equal_names_do_not_see_each_other(tmp_path: Path) -> None:
    loaded = []
    for text in ("one", "two"):
        folder = tmp_path / text
        folder.mkdir()
        (folder / "net.py").write_text("import helper\n\ndef main():\n    return helper.NAME\n")
        (folder / "helper.py").write_text(f"NAME = {text!r}\n")
        loaded.append(IsolatedBundle(folder))

    assert [bundle.module("net").main() for bundle in loaded] == ["one", "two"]
    for bundle in loaded:
        bundle.close()


def test_closing_forgets_the_modules(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("VALUE = 1\n")
    before = set(sys.modules)
    bundle = IsolatedBundle(tmp_path)
    bundle.module("net")

    bundle.close()

    assert set(sys.modules) == before
