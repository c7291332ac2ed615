"""A function's code as one content-addressed zip: made from a file or folder, unpacked safely.

A client makes it when a function is created; workers unpack it.
"""

import ast
import hashlib
import io
import os
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kubeml.errors import Corrupted, InvalidFunction

MAX_BYTES = 16 * 2**20
MAX_NAME = 200
MAX_FILES = 2000

_SKIPPED = {"__pycache__", ".git", ".venv", "venv", "node_modules", ".mypy_cache", ".ruff_cache"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A function's code.

    Attributes:
        data: The zip.
        sha256: The zip's hash, which names it.
        entry: The file that defines ``main``.
    """

    data: bytes
    sha256: str
    entry: str


def make_bundle(code: Path) -> Bundle:
    """Pack a file or folder. Equal contents give equal bytes.

    Raises:
        InvalidFunction: The code is missing or too large, has a syntax error, or defines no
            ``main`` or several.
    """
    if not code.exists():
        raise InvalidFunction(where=str(code), fault="does not exist", hint="check --code")
    if code.is_dir():
        code = code.resolve()  # "." has no name
    files = {code.name: code} if code.is_file() else dict(_files(code))
    sources = {name: path for name, path in files.items() if name.endswith(".py")}
    if not sources:
        raise InvalidFunction(where=str(code), fault="holds no .py file", hint="check --code")
    entry = _entry(code, {name: _parse(path, name) for name, path in sources.items()})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(files.items()):
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, path.read_bytes())
    data = buffer.getvalue()
    return Bundle(data=data, sha256=hashlib.sha256(data).hexdigest(), entry=entry)


def unpack(data: bytes, sha256: str, directory: Path) -> Path:
    """Unpack a bundle into ``directory/sha256``, unless it is there already, and return that.

    Two processes may do it at once: the folder appears by one rename.

    Raises:
        Corrupted: The bytes do not have this hash, or the zip is not one of ours.
    """
    target = directory / sha256
    if target.is_dir():
        return target
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise Corrupted(what="function bundle", got=digest, expected=sha256)
    fresh = directory / f".{sha256}.{uuid.uuid4().hex}"
    fresh.mkdir(parents=True)
    try:
        for name, content in _members(data):
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            fresh.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def read_sources(data: bytes) -> dict[str, str]:
    """Return the text of every Python file of a bundle, by its name."""
    return {
        name: content.decode("utf-8", "replace")
        for name, content in _members(data)
        if name.endswith(".py")
    }


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a zip. All bounds are checked before a byte is inflated."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as err:
        raise Corrupted(what="function bundle", got=str(err), expected="a zip file") from err
    with archive:
        infos = archive.infolist()
        if len(infos) > MAX_FILES or sum(info.file_size for info in infos) > MAX_BYTES:
            raise Corrupted(
                what="function bundle",
                got=f"{len(infos)} files, {sum(i.file_size for i in infos)} bytes",
                expected=f"at most {MAX_FILES} files and {MAX_BYTES} bytes",
            )
        names = {info.filename for info in infos}
        parents = {str(parent) for name in names for parent in PurePosixPath(name).parents}
        if len(names) < len(infos) or names & parents:
            raise Corrupted(
                what="function bundle", got="a name twice", expected="a name for each file"
            )
        for info in infos:
            path = PurePosixPath(info.filename)
            mode = info.external_attr >> 16
            is_odd = "\\" in info.filename or not info.filename.isprintable()
            if path.is_absolute() or ".." in path.parts or is_odd or len(info.filename) > MAX_NAME:
                raise Corrupted(what="function bundle", got=info.filename, expected="a plain path")
            if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
                raise Corrupted(what="function bundle", got=info.filename, expected="a plain file")
            content = _inflate(archive, info)
            if len(content) != info.file_size:
                raise Corrupted(
                    what=info.filename, got="more bytes", expected=f"{info.file_size} bytes"
                )
            yield info.filename, content


def _inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as member:
            return member.read(info.file_size + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as err:
        # A RuntimeError means an encrypted file, or a compression that zipfile does not know.
        raise Corrupted(what="function bundle", got=str(err), expected="a zip file") from err


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    count = total = 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in _SKIPPED and not f.startswith("."))
        for name in sorted(names):
            path = Path(root) / name
            if name.startswith(".") or name.endswith((".pyc", ".pyo")) or not path.is_file():
                continue
            count += 1
            total += path.stat().st_size
            if count > MAX_FILES or total > MAX_BYTES:
                raise InvalidFunction(
                    where=str(folder),
                    fault=f"more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB",
                    hint="put data into a dataset, and only code into the function's folder",
                )
            yield path.relative_to(folder).as_posix(), path


def _parse(path: Path, name: str) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=name)
    except SyntaxError as err:
        text = (err.text or "").rstrip()
        shown = f'  File "{name}", line {err.lineno}\n    {text.strip()}\nSyntaxError: {err.msg}'
        raise InvalidFunction(
            where=f"{name}, line {err.lineno}",
            fault=f"syntax error: {err.msg}",
            user_traceback=shown,
            hint="correct the file and create the function again",
        ) from err
    except (ValueError, UnicodeDecodeError) as err:
        raise InvalidFunction(where=name, fault=f"is not Python source: {err}") from err


def _entry(code: Path, trees: dict[str, ast.Module]) -> str:
    found = [name for name, tree in trees.items() if "/" not in name and _defines_main(tree)]
    preferred = ["main.py", "network.py", f"{code.name}.py"]
    for name in preferred:
        if name in found:
            return name
    if len(found) == 1:
        return found[0]
    where = code.name
    if not found:
        raise InvalidFunction(
            where=where,
            fault="defines no main()",
            hint="add: def main(): return MyModel(network, dataset).start()",
        )
    raise InvalidFunction(
        where=where,
        fault=f"main() is defined in {', '.join(sorted(found))}",
        hint="keep one, or call its file main.py",
    )


def _defines_main(tree: ast.Module) -> bool:
    return any(
        (isinstance(node, ast.FunctionDef) and node.name == "main")
        or (
            isinstance(node, ast.ImportFrom)
            and any((a.asname or a.name) == "main" for a in node.names)
        )
        for node in tree.body
    )
