"""The catalogue of functions on S3: create, check, look up, fetch, delete.

functions/{name}.json            {name, sha256, size, created_at, entry}
functions/bundles/{sha256}.zip   the code; it stays when a name is deleted, since jobs pin it
"""

import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from brokers.objects.store import ObjectStore
from brokers.settings import child_environment
from brokers.wire import from_wire, parse_object
from kubeml.catalog.bundle import make_bundle, read_sources, unpack
from kubeml.errors import (
    FunctionNotFound,
    InvalidFunction,
    NameTaken,
    ObjectExists,
    ObjectMissing,
)
from kubeml.validation import check_name
from kubeml.weights.layout import Layout

#: The folder of the bundles, which are named by their hashes.
BUNDLES = "functions/bundles/"

_CHECK_TIMEOUT_S = 120

#: A verdict has a layout, which takes some 100 characters for each tensor.
_MAX_VERDICT_CHARS = 50_000_000


@dataclass(frozen=True, kw_only=True)
class FunctionInfo:
    """A function's entry; ``created_at`` is in Unix seconds, ``size`` in bytes."""

    name: str
    sha256: str
    size: int
    created_at: float
    entry: str

    def to_wire(self) -> dict[str, Any]:
        """Return the info as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read an info.

        Raises:
            MalformedMessage: The value is not an info.
        """
        return from_wire(cls, wire, what="function")


class Functions:
    """Create, look up and fetch functions."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def create(
        self,
        name: str,
        code: Path | str,
        *,
        device: str = "cpu",
        check: bool = True,
        replace: bool = False,
    ) -> FunctionInfo:
        """Store a function. Nothing is stored if it is refused.

        Args:
            name: Its name.
            code: A Python file, or a folder with one file that defines ``main``.
            device: What it will be trained on. With ``gpu`` the check needs a GPU.
            check: Whether to try it first, in a process of its own: import it, build the model, and
                make one forward and backward pass on a few rows if its dataset exists.
            replace: Whether the name must exist (``update``) rather than be free.

        Raises:
            InvalidOption: The name cannot be used.
            NameTaken: It exists already.
            FunctionNotFound: With ``replace``: it does not exist.
            InvalidFunction: The code is refused; ``user_traceback`` says where it failed.
        """
        key = f"functions/{check_name('--name', name)}.json"
        exists = self._objects.exists(key)
        if exists and not replace:
            raise NameTaken(kind="function", name=name, hint="kubeml function update replaces it")
        if replace and not exists:
            raise FunctionNotFound(name=name)
        bundle = make_bundle(Path(code))
        if check:
            check_in_child(bundle.data, bundle.sha256, bundle.entry, self._objects, device=device)
        info = FunctionInfo(
            name=name,
            sha256=bundle.sha256,
            size=len(bundle.data),
            created_at=time.time(),
            entry=bundle.entry,
        )
        self._objects.put(bundle_key(bundle.sha256), bundle.data)
        try:
            # Two writers of the same content, time included, may both take it for their own.
            self._objects.put_json(key, info.to_wire(), create=not replace, is_unique=True)
        except ObjectExists as err:
            raise NameTaken(kind="function", name=name) from err
        return info

    def list(self) -> list[FunctionInfo]:
        """Return all functions, in the order of their names."""
        keys = [
            info.key
            for info in self._objects.list("functions/")
            if info.key.endswith(".json") and "/" not in info.key.removeprefix("functions/")
        ]
        found = []
        for key in keys:
            with suppress(ObjectMissing):  # deleted since it was listed
                found.append(FunctionInfo.from_wire(self._objects.get_json(key)))
        return found

    def show(self, name: str) -> FunctionInfo:
        """Return one function's entry.

        Raises:
            FunctionNotFound: There is no function of this name.
        """
        try:
            check_name("--function", name)
            return FunctionInfo.from_wire(self._objects.get_json(f"functions/{name}.json"))
        except ObjectMissing as err:
            raise FunctionNotFound(name=name) from err

    def source(self, name: str) -> dict[str, str]:
        """Return the text of each of a function's Python files, by file name."""
        return read_sources(self._objects.get(bundle_key(self.show(name).sha256)))

    def delete(self, name: str) -> None:
        """Remove a function's name. Its bundle stays, since running and ended jobs need it.

        Raises:
            FunctionNotFound: There is no function of this name.
        """
        self.show(name)
        self._objects.delete([f"functions/{name}.json"])

    def layout(self, info: FunctionInfo, *, device: str) -> Layout:
        """Check a function as ``create`` does, and return its network's layout.

        Raises:
            InvalidFunction: The function does not work.
        """
        data = self._objects.get(bundle_key(info.sha256))
        return check_in_child(data, info.sha256, info.entry, self._objects, device=device)

    def fetch(self, sha256: str, directory: Path) -> Path:
        """Unpack a bundle under ``directory``, verified by its hash, and return its folder.

        Raises:
            ObjectMissing: There is no such bundle.
            Corrupted: Its bytes do not have the hash that names it.
        """
        folder = directory / sha256
        if folder.is_dir():
            return folder
        return unpack(self._objects.get(bundle_key(sha256)), sha256, directory)


def check_in_child(
    data: bytes, sha256: str, entry: str, objects: ObjectStore, *, device: str
) -> Layout:
    """Run a bundle's check in a process of its own, and return its network's layout.

    Raises:
        InvalidFunction: The function is refused.
    """
    with tempfile.TemporaryDirectory(prefix="kubeml-check-") as folder:
        code = unpack(data, sha256, Path(folder))
        command = [
            sys.executable,
            "-P",
            "-m",
            "kubeml.runtime.check",
            str(code),
            entry,
            device,
        ]
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter and module
                command,
                capture_output=True,
                timeout=_CHECK_TIMEOUT_S,
                check=False,
                env=child_environment(objects.settings),
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as err:
            raise InvalidFunction(
                where=entry, fault=f"its check took longer than {_CHECK_TIMEOUT_S} s"
            ) from err
    return _read_verdict(entry, done.returncode, done.stdout, done.stderr)


def _read_verdict(entry: str, status: int, out: bytes, err: bytes) -> Layout:
    lines = out.decode("utf-8", "replace").splitlines()
    if not lines:
        shown = err.decode("utf-8", "replace")[-4000:]
        raise InvalidFunction(
            where=entry, fault=f"its check died (exit {status})", user_traceback=shown
        )
    verdict = parse_object(lines[-1], what="check verdict", max_chars=_MAX_VERDICT_CHARS)
    if verdict.get("fault"):
        raise InvalidFunction(
            where=str(verdict["where"]),
            fault=str(verdict["fault"]),
            user_traceback=str(verdict.get("traceback", "")),
            hint=str(verdict.get("hint", "")),
        )
    return Layout.from_wire(verdict["layout"])


def bundle_key(sha256: str) -> str:
    """Return the key of the bundle with this hash."""
    return f"{BUNDLES}{sha256}.zip"
