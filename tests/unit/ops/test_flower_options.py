"""``kubeml flower`` and its probe: what cannot work is told before Flower begins."""

import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from kubeml.cli.app import run
from kubeml.errors import InvalidSetting
from kubeml.ops.flower import check_auth
from kubeml.stack.servers import free_ports


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A KUBEML_HOME that is not there yet; who gets as far as Flower has not been refused."""
    monkeypatch.setenv("KUBEML_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBEML_FLOWER_AUTH", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.execve", lambda *_: pytest.fail("Flower was started"))
    return tmp_path / "home"


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """Somebody who listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("auth", ["", "me:secret", "me:a:b", "me:one,you:two"])
def test_users_with_passwords_are_taken(auth: str) -> None:
    check_auth(auth)


@pytest.mark.parametrize(
    "auth", ["guess-it", ":guess-it", "me:", "me:one,guess-it", "me:one,", ","]
)
def test_other_texts_are_refused_and_not_repeated(auth: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        check_auth(auth)

    assert "KUBEML_FLOWER_AUTH" in str(refused.value)
    assert "user:password" in str(refused.value)
    assert "guess-it" not in str(refused.value) + refused.value.hint


def test_a_password_without_a_user_stops_the_command(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBEML_FLOWER_AUTH", "guess-it")

    assert run(["flower"]) == 2

    told = capsys.readouterr()
    assert "KUBEML_FLOWER_AUTH" in told.err
    assert "guess-it" not in told.err + told.out
    assert not home.exists()


def test_a_taken_port_is_named(
    home: Path, taken: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    port = taken.getsockname()[1]

    assert run(["flower", "--port", str(port)]) == 4

    assert f"--port {port} on 127.0.0.1 is taken" in capsys.readouterr().err
    assert not home.exists()


@pytest.mark.parametrize("host", ["192.0.2.1", "http://x", "", "a" * 64])
def test_a_host_that_is_not_this_machine_is_refused(
    host: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBEML_FLOWER_AUTH", "me:secret")

    assert run(["flower", "--host", host]) == 2

    assert "error: --host is " in capsys.readouterr().err
    assert not home.exists()


def test_the_probe_says_how_flower_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    (nobody,) = free_ports(1)

    assert run(["probe", "flower", "--port", str(nobody)]) == 5

    told = " ".join(capsys.readouterr().err.split())
    assert f"127.0.0.1:{nobody}" in told
    assert "Connection refused)" in told
    assert "kubeml flower" in told
    assert "--port" in told
    assert "kubeml up" not in told


def test_the_probe_takes_nobody_else_for_flower(
    taken: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer() -> None:
        connection, _ = taken.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(b"-ERR unknown command\r\n")

    thread = Thread(target=answer)
    thread.start()
    code = run(["probe", "flower", "--port", str(taken.getsockname()[1])])
    thread.join(10)

    assert code == 5
    assert "does not answer" in capsys.readouterr().err


def test_the_probe_refuses_what_is_no_port() -> None:
    assert run(["probe", "flower", "--port", "70000"]) == 2
