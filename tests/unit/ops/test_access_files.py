"""``kubeml access``: hosts, URLs and names that cannot be are refused before a file is written."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from brokers.settings import Settings
from brokers.urls import mask_url
from kubeml.cli.app import run
from kubeml.errors import InvalidOption
from kubeml.ops.access import check_bucket, check_s3_url, url_host


def access(out: Path, *arguments: str) -> int:
    return run(["access", "--out", str(out), *arguments])


def variables(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


@pytest.mark.parametrize(
    ("host", "in_url"),
    [
        ("redis.example", "redis.example"),
        ("redis.example.", "redis.example."),
        ("kubeml_redis-1", "kubeml_redis-1"),
        ("10.0.0.7", "10.0.0.7"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("2001:DB8:0::7", "[2001:db8::7]"),
        (".".join(["a" * 63] * 3), ".".join(["a" * 63] * 3)),
    ],
)
def test_names_and_addresses_are_hosts(host: str, in_url: str) -> None:
    assert url_host(host, option="--host") == in_url


@pytest.mark.parametrize(
    "host",
    [
        "", " ", "http://x", "redis://x", "x/0", "a b", "a\n", " a", "a:6379", "[::1]:6379", "[a]",
        "[10.0.0.7]", "::g", "fe80::1%eth0", "-a", "a-", "a..b", ".a", "user@a", "a$b", "münchen",
        "300.1.1.1", "10.0.0", "12", "a" * 64, ".".join(["a" * 63] * 5),
    ],
)  # fmt: skip
def test_other_texts_are_no_hosts(host: str) -> None:
    with pytest.raises(InvalidOption, match="--state-host"):
        url_host(host, option="--state-host")


@pytest.mark.parametrize("name", ["kubeml", "a-b.c", "0ab", "a" * 63])
def test_s3s_names_are_buckets(name: str) -> None:
    check_bucket(name, option="--bucket")


@pytest.mark.parametrize(
    "name",
    ["", "ab", "a" * 64, "Kubeml", "a_b", "-ab", "ab-", "a..b", "a b", "a/b", "abc\n", "10.0.0.7"],
)
def test_other_names_are_no_buckets(name: str) -> None:
    with pytest.raises(InvalidOption, match="--bucket"):
        check_bucket(name, option="--bucket")


@pytest.mark.parametrize(
    "url",
    ["http://s3:8333", "https://s3.example", "http://[::1]:9000/", "https://a.example/storage/s3"],
)
def test_urls_of_servers_are_taken(url: str) -> None:
    check_s3_url(url, option="--s3")


@pytest.mark.parametrize(
    "url",
    [
        "", "s3.example", "s3.example:8333", "s3://bucket", "http://", "http://a b", "http://a\n",
        "http://a:99999", "http://a:0", "http://a:x", "http://[::1", "http://::1:9000",
        "http://a?x=1", "http://a/#x", "http://a/$(x)", "http://user@a",
    ],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidOption, match="--s3"):
        check_s3_url(url, option="--s3")


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(InvalidOption) as refused:
        check_s3_url("https://me:guess-it@s3.example", option="--s3")

    assert "s3.example" in str(refused.value)
    assert "guess-it" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--host", "http://x"], "--host"),
        (["--host", ""], "--host"),
        (["--state-host", ""], "--state-host"),
        (["--state-host", "a b"], "--state-host"),
        (["--bucket", "No"], "--bucket"),
        (["--s3", "s3.example"], "--s3"),
        (["--s3", ""], "--s3"),
        (["--host", "a.example", "--state-host", "A.example."], "--state-host"),
        (["--host", "::1", "--state-host", "0::1"], "--state-host"),
        (["--port", "7000", "--state-port", "7000"], "--state-host"),
    ],
)
def test_bad_input_is_a_usage_error_and_nothing_is_written(
    arguments: list[str], option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = access(tmp_path / "out", *arguments)

    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert f"error: {option} is " in told.err
    assert list(tmp_path.iterdir()) == []


def test_an_ipv6_address_is_read_back_from_what_is_written(tmp_path: Path) -> None:
    assert (
        access(tmp_path, "--host", "::1", "--state-host", "2001:db8::7", "--s3", "http://[::1]:9")
        == 0
    )

    settings = Settings.load(environ=variables(tmp_path / "ps.env") | {"KUBEML_HOME": "/none"})
    broker, state = urlsplit(settings.broker_url), urlsplit(settings.state_url)
    assert (broker.hostname, broker.port) == ("::1", 6379)
    assert (state.hostname, state.port) == ("2001:db8::7", 6379)
    assert mask_url(settings.broker_url) == "redis://[::1]:6379/0"


def test_one_host_may_have_two_servers(tmp_path: Path) -> None:
    assert access(tmp_path, "--state-port", "6380") == 0

    urls = variables(tmp_path / "ps.env")
    assert urlsplit(urls["KUBEML_STATE_URL"]).hostname == "127.0.0.1"
    assert urlsplit(urls["KUBEML_STATE_URL"]).port == 6380


def test_users_of_a_state_server_go_with_the_server(tmp_path: Path) -> None:
    assert access(tmp_path, "--state-host", "state.example") == 0
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}

    assert access(tmp_path) == 4
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before
    assert access(tmp_path, "--force") == 0

    assert {file.name for file in tmp_path.iterdir()} == before.keys() - {"state-users.acl"}
    assert "KUBEML_STATE_URL" not in variables(tmp_path / "ps.env")


def test_users_of_an_earlier_state_server_are_not_mixed_with_new_ones(tmp_path: Path) -> None:
    (tmp_path / "state-users.acl").write_text("user default off\n")

    assert access(tmp_path) == 4

    assert [file.name for file in tmp_path.iterdir()] == ["state-users.acl"]


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_is_no_folder_to_write_to(
    below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")

    assert access(file / below, "--force") == 2

    assert "error: --out is " in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_a_folder_in_a_files_place_stops_it_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "worker.env").mkdir()

    assert access(tmp_path, "--force") == 4

    assert [file.name for file in tmp_path.iterdir()] == ["worker.env"]
