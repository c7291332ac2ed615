"""Settings: flag > environment > file > profile > default, and secrets that do not show."""

import json
from pathlib import Path

import pytest

from brokers.errors import InvalidSetting
from brokers.settings import Settings, mask_url


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
    ],
)
def test_wrong_setting_is_named(tmp_path: Path, file: str, fault: str) -> None:
    (tmp_path / "kubeml.toml").write_text(file)

    with pytest.raises(InvalidSetting, match=fault):
        load(tmp_path)


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
