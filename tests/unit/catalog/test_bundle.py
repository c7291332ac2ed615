"""Function bundles: content-addressed, refused when broken, unpacked without surprises."""

import io
import zipfile
from pathlib import Path

import pytest

from kubeml.catalog.bundle import MAX_BYTES, make_bundle, read_sources, unpack
from kubeml.errors import Corrupted, InvalidFunction

MAIN = "def main():\n    return 1\n"


def make_zip(*members: tuple[str, bytes], mode: int = 0o644) -> tuple[bytes, str]:
    import hashlib

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    data = buffer.getvalue()
    return data, hashlib.sha256(data).hexdigest()


def test_equal_contents_give_equal_bundles_whatever_their_age(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "net.py").write_text(MAIN)
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "x.pyc").write_bytes(folder.name.encode())

    assert make_bundle(one).sha256 == make_bundle(two).sha256


def test_folder_keeps_its_modules_packages_and_small_files(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MAIN)
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "__init__.py").write_text("")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / ".hidden").write_text("no")

    bundle = make_bundle(tmp_path)
    folder = unpack(bundle.data, bundle.sha256, tmp_path / "out")

    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == {"net.py", "layers/__init__.py", "classes.txt"}
    assert bundle.entry == "net.py"
    assert set(read_sources(bundle.data)) == {"net.py", "layers/__init__.py"}


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"net.py": "def main(:\n"}, "syntax error"),
        ({"net.py": "x = 1\n"}, "defines no main"),
        ({"a.py": MAIN, "b.py": MAIN}, "a.py, b.py"),
        ({"readme.txt": "hi"}, "no .py file"),
        ({"net.py": "x = '\x00'\n"}, "syntax error|not Python"),
    ],
    ids=["syntax", "no main", "two mains", "no code", "null byte"],
)
def test_broken_code_is_refused(tmp_path: Path, files: dict[str, str], fault: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    with pytest.raises(InvalidFunction, match=fault) as caught:
        make_bundle(tmp_path)

    assert caught.value.exit_code == 6


def test_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFunction, match="does not exist"):
        make_bundle(tmp_path / "nothing.py")


def test_too_large_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MAIN)
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(MAX_BYTES + 1)

    with pytest.raises(InvalidFunction, match="16 MiB"):
        make_bundle(tmp_path)


@pytest.mark.parametrize(
    "name", ["../evil.py", "/etc/evil.py", "a/../../evil.py", "a\\..\\evil.py"]
)
def test_paths_that_lead_out_are_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    data, digest = make_zip((name, b"x"))

    with pytest.raises(Corrupted):
        unpack(data, digest, tmp_path / "cache")

    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_links_are_refused(tmp_path: Path) -> None:
    data, digest = make_zip(("link.py", b"/etc/passwd"), mode=0o120777)

    with pytest.raises(Corrupted, match="plain file"):
        unpack(data, digest, tmp_path)


def test_zip_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.py", b"\0" * (MAX_BYTES + 1))
    import hashlib

    data = buffer.getvalue()

    with pytest.raises(Corrupted, match="at most"):
        unpack(data, hashlib.sha256(data).hexdigest(), tmp_path)


def test_bytes_that_do_not_match_their_name_are_refused(tmp_path: Path) -> None:
    data, _ = make_zip(("net.py", MAIN.encode()))

    with pytest.raises(Corrupted, match="function bundle"):
        unpack(data, "0" * 64, tmp_path)


def test_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (f"{tmp_path.name}.py", "other.py"):
        (tmp_path / name).write_text(MAIN)
    monkeypatch.chdir(tmp_path)

    assert make_bundle(Path()).entry == f"{tmp_path.name}.py"
