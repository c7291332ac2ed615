"""Settings: flag > environment > file > profile > default, and secrets that do not show."""

import json
from pathlib import Path

import pytest

from brokers.errors import InvalidSetting
from brokers.settings import Settings, find_home
from brokers.urls import mask_url


def load(tmp_path: Path, *, env: dict[str, str] | None = None, **flags: object) -> Settings:
    environ = {"KUBEML_HOME": str(tmp_path), **(env or {})}
    return Settings.load(flags, environ=environ, directory=tmp_path)


def test_precedence_is_flag_environment_file_profile_default(tmp_path: Path) -> None:
    profile = {"settings": {"s3_bucket": "from-profile", "device": "gpu", "tick_s": 9.0}}
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    (tmp_path / "kubeml.toml").write_text('s3_bucket = "from-file"\nlease_s = 3.5\ntick_s = 8.0\n')
    env = {"KUBEML_S3_BUCKET": "from-env", "KUBEML_TICK_S": "7"}

    settings = load(tmp_path, env=env, tick_s=0.25)

    assert settings.tick_s == 0.25
    assert settings.s3_bucket == "from-env"
    assert settings.lease_s == 3.5
    assert settings.device == "gpu"
    assert settings.cache_bytes == 10 * 2**30


def test_state_url_is_the_brokers_unless_set(tmp_path: Path) -> None:
    one = load(tmp_path, env={"KUBEML_BROKER_URL": "redis://a:1/0"})
    two = load(
        tmp_path, env={"KUBEML_BROKER_URL": "redis://a:1/0", "KUBEML_STATE_URL": "redis://b:2/0"}
    )

    assert one.state_url == "redis://a:1/0"
    assert two.state_url == "redis://b:2/0"


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ('s3_bukket = "x"', "did you mean 's3_bucket'"),
        ("tick_s = 0", "more than zero"),
        ('tick_s = "soon"', "cannot read"),
        ('broker_url = "amqp://x"', "redis://"),
        ("tick_s = ", "Invalid value"),
        ("cache_bytes = inf", "cannot read inf, expected a whole number"),
        ('log_level = "loud"', "'LOUD', expected DEBUG or INFO or WARNING or ERROR or CRITICAL"),
        ('s3_bucket = "a b"', "'a b', expected a name"),
    ],
)
def test_wrong_setting_is_named(tmp_path: Path, file: str, fault: str) -> None:
    (tmp_path / "kubeml.toml").write_text(file)

    with pytest.raises(InvalidSetting, match=fault):
        load(tmp_path)


@pytest.mark.parametrize("name", ["lease_s", "stall_s", "tick_s", "idle_s", "metrics_keep_s"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_time_without_end_is_refused(tmp_path: Path, name: str, value: str) -> None:
    variable = f"KUBEML_{name.upper()}"

    with pytest.raises(InvalidSetting, match=f"{name}: {value}, must be .* finite") as told:
        load(tmp_path, env={variable: value})

    assert told.value.exit_code == 2
    assert told.value.hint == f"it comes from {variable}"


def test_log_level_may_be_in_small_letters(tmp_path: Path) -> None:
    assert load(tmp_path, env={"KUBEML_LOG_LEVEL": "debug"}).log_level == "DEBUG"


@pytest.mark.parametrize("name", ["broker_url", "state_url", "s3_endpoint_url"])
@pytest.mark.parametrize(
    ("rest", "fault"),
    [
        ("u:hunter2@foo:notaport", "no valid port"),
        ("u:hunter2@h:99999", "no valid port"),
        ("u:hunter2@h:0", "no valid port"),
        (":hunter2/x@h:1", "no valid port"),
        (":12#hunter2@h:1", "names no host"),
        ("h:12#hunter2@h:1", "has a #"),
        ("u:hunter2@[h:1", "not a URL"),
        ("u:hunter2@:1", "names no host"),
    ],
)
def test_torn_url_is_refused_and_its_password_is_not_shown(
    tmp_path: Path, name: str, rest: str, fault: str
) -> None:
    scheme = "http" if name == "s3_endpoint_url" else "redis"

    with pytest.raises(InvalidSetting, match=f"{name}: .*{fault}") as told:
        load(tmp_path, env={f"KUBEML_{name.upper()}": f"{scheme}://{rest}"})

    assert "hunter2" not in str(told.value) + told.value.hint
    assert ("***@" in str(told.value)) == ("@" in rest)
    assert "hunter2" not in mask_url(f"{scheme}://u:hunter2@foo:notaport")


@pytest.mark.parametrize(
    ("name", "url", "fault"),
    [
        ("s3_endpoint_url", "nonsense", "must start with http:// or https://"),
        ("s3_endpoint_url", "h:9000", "must start with http:// or https://"),
        ("broker_url", "redis://h:12/hunter2@h", "no number of a database"),
        ("broker_url", "unix:///run/x", "must start with redis:// or rediss://"),
        ("state_url", "unix://", "names no socket"),
        ("state_url", "unix://run/x", "names no socket"),
    ],
)
def test_url_of_another_form_is_refused(tmp_path: Path, name: str, url: str, fault: str) -> None:
    with pytest.raises(InvalidSetting, match=f"{name}: .*{fault}"):
        load(tmp_path, env={f"KUBEML_{name.upper()}": url})


@pytest.mark.parametrize(
    "url",
    [
        "redis://h", "redis://h/", "rediss://u:p%2F%40@h:6380/12?ssl_ca_certs=/x", "redis://[::1]:1/0",
        "unix:///run/x.sock?db=1", "unix://u:p@/run/x.sock",
    ],
)  # fmt: skip
def test_url_that_the_clients_understand_is_taken(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, env={"KUBEML_STATE_URL": url}).state_url == url


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": 3}', "\x00"])
def test_damaged_profile_is_named_with_the_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "profile.json").write_text(text)

    with pytest.raises(InvalidSetting, match=r"profile\.json: the file is damaged") as told:
        load(tmp_path)

    assert "kubeml down" in told.value.hint


def test_home_is_found_without_any_other_setting(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("{")

    assert find_home(environ={"KUBEML_HOME": str(tmp_path)}) == tmp_path
    assert find_home(tmp_path, environ={"KUBEML_HOME": "/elsewhere"}) == tmp_path


def test_secrets_do_not_show(tmp_path: Path) -> None:
    settings = load(tmp_path, env={"KUBEML_BROKER_URL": "redis://u:hunter2@h:1/0"})

    assert "hunter2" not in repr(settings)
    assert mask_url(settings.broker_url) == "redis://h:1/0"


def test_keys_of_the_profile_are_for_its_own_server_alone(tmp_path: Path) -> None:
    own = {"s3_endpoint_url": "http://own", "s3_access_key": "a", "s3_secret_key": "b"}
    (tmp_path / "profile.json").write_text(json.dumps({"settings": own}))
    aws = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}

    embedded = load(tmp_path, env=aws)
    elsewhere = load(tmp_path, env={**aws, "KUBEML_S3_ENDPOINT_URL": "http://elsewhere"})

    # Somebody who has AWS keys exported can use the embedded stack as well.
    assert (embedded.s3_access_key, embedded.s3_secret_key) == ("a", "b")
    assert elsewhere.s3_access_key == ""


def test_children_get_the_same_settings_by_environment(tmp_path: Path) -> None:
    settings = load(tmp_path, lease_s=2.0, s3_bucket="b2")

    again = Settings.load(environ=settings.environment(), directory=tmp_path / "elsewhere")

    assert again == settings
