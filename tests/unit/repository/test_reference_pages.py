"""The pages of docs/reference that are written by hand say what the code says."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import kubeml
from brokers import errors as broker_errors
from brokers.settings import Settings, find_home
from kubeml import errors

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "docs" / "reference"

#: Settings without a variable of their own: the profile alone has them.
OF_THE_PROFILE = {"s3_access_key", "s3_secret_key"}


def rows(page: str, *, columns: int) -> list[list[str]]:
    """The table rows of a page that have so many columns, without their code marks."""
    found = re.findall(r"^\| (.*) \|$", (REFERENCE / page).read_text(), re.M)
    cells = [[cell.strip() for cell in line.split(" | ")] for line in found]
    return [[cell.replace("`", "") for cell in row] for row in cells if len(row) == columns]


def default_of(name: str) -> str:
    """How the page shows a setting's default."""
    if name == "home":
        home = find_home(environ={})
        return f"~/{home.relative_to(Path.home())}"
    settings = Settings(home=Path("home"))
    value = str(getattr(settings, name))
    if name == "state_url" and value == settings.broker_url:
        return "broker_url"
    return value or "empty"


def test_settings_page_has_every_setting_with_its_variable_and_default() -> None:
    told = {
        name: (variable, default) for name, variable, default, _ in rows("settings.md", columns=4)
    }
    told.pop("setting")  # the tables' heads

    known = {
        f.name: (
            "none" if f.name in OF_THE_PROFILE else f"KUBEML_{f.name.upper()}",
            default_of(f.name),
        )
        for f in fields(Settings)
    }
    assert told == known
    assert all(f.default is not MISSING for f in fields(Settings) if f.name != "home")


def test_a_setting_has_the_variable_that_the_page_names(tmp_path: Path) -> None:
    values = {"device": "gpu", "log_level": "ERROR", "log_format": "json"}
    urls = {"broker_url": "redis://a:1/0", "state_url": "redis://b:1/0"}
    urls["s3_endpoint_url"] = "http://c:1"
    for name, variable, default, _ in rows("settings.md", columns=4):
        if not variable.startswith("KUBEML_") or name == "home":
            continue
        value = values.get(name) or urls.get(name) or ("7" if default[0].isdigit() else "7.7.7.7")
        environ = {"KUBEML_HOME": str(tmp_path), variable: value}

        settings = Settings.load(environ=environ, directory=tmp_path)

        assert str(getattr(settings, name)).removesuffix(".0") == value, name


def test_exit_codes_page_has_every_error_with_its_code() -> None:
    told = {
        name: int(code)
        for code, _, names in rows("exit-codes.md", columns=3)
        if code.isdigit()
        for name in filter(None, names.split(", "))
    }

    classes = {
        value
        for module in (errors, broker_errors)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, errors.KubemlError)
    }
    assert told == {cls.__name__: cls.exit_code for cls in classes}


def test_live_state_page_has_every_script_and_every_key_of_the_pool() -> None:
    scripts = {path.stem.upper() for path in (ROOT / "brokers").rglob("lua/[a-z]*.lua")}
    code = "".join(path.read_text() for path in (ROOT / "brokers").rglob("*.py"))

    told = {row[0] for row in rows("live-state.md", columns=2)} - {"script"}
    keys = {row[0] for row in rows("live-state.md", columns=3) if row[0].startswith("kubeml:")}

    assert len(scripts) > 10
    assert told == scripts
    assert keys == set(re.findall(r'"(kubeml:[a-z]+)"', code))


def test_python_page_has_every_public_name() -> None:
    told = re.findall(r"^::: kubeml\.(\w+)$", (REFERENCE / "python.md").read_text(), re.M)

    assert sorted(told) == sorted(kubeml.__all__)
