"""Bad input: its exit code, one clear line and a hint, and nothing changed."""

import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from brokers.objects.store import ObjectStore
from brokers.settings import Secret
from kubeml.client.client import Client
from tests.cli import Cli, Ran
from tests.cluster import Cluster
from tests.integration.conftest import FUNCTIONS


@pytest.fixture(scope="module")
def cli(cluster: Cluster, client: Client, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command, in a folder of its own."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "tiny.py").write_text((FUNCTIONS / "tiny.py").read_text())
    rng = np.random.default_rng(0)
    for name, rows in (("x", 50), ("short", 49), ("none", 0)):
        np.save(folder / f"{name}.npy", rng.normal(size=(rows, 8)).astype(np.float32))
        np.save(folder / f"{name}_labels.npy", rng.integers(0, 3, rows))
    if "tiny" not in [f.name for f in client.functions.list()]:
        client.functions.create("tiny", folder / "tiny.py")
    return Cli(cluster.settings, folder)


def assert_told(ran: Ran, code: int, *parts: str) -> None:
    """One error line with what it must name; no frame of our own code, nothing on stdout."""
    assert ran.code == code, ran.err
    assert sum(line.lower().startswith("error:") for line in ran.err.splitlines()) == 1, ran.err
    for part in parts:
        assert part in ran.err
    assert "kubeml/cli" not in ran.err
    assert "kubeml/client/" not in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("line", "code", "part"),
    [
        ("train -f nobody -d points", 3, "'nobody'"),
        ("train -f tiny -d nothing", 3, "'nothing'"),
        ("train -f tiny -d points --epochs 0", 2, "--epochs"),
        ("train -f tiny -d points --epochs many", 2, "--epochs"),
        ("train -f tiny -d points --batch 0", 2, "--batch"),
        ("train -f tiny -d points --batch 100000", 2, "--batch"),
        ("train -f tiny -d points --lr 0", 2, "--lr"),
        ("train -f tiny -d points --lr nan", 2, "--lr"),
        ("train -f tiny -d points --K 0", 2, "--K"),
        ("train -f tiny -d points --K -5", 2, "--K"),
        ("train -f tiny -d points --parallelism 0", 2, "--parallelism"),
        ("train -f tiny -d points --parallelism 100000", 2, "--parallelism"),
        ("train -f tiny -d points --goal-accuracy 200", 2, "--goal-accuracy"),
        ("train -f tiny -d points --optimizer-state keep", 2, "--optimizer-state"),
        ("train -f tiny -d points --id a/b", 2, "--id"),
        ("train -f ../tiny -d points", 2, "--function"),
        ("train -d points", 2, "--function"),
        ("train -f tiny -d points --colour red", 2, "--colour"),
        ("task show --id nope1234", 3, "'nope1234'"),
        ("task show", 2, "--id"),
        ("task stop --id nope1234", 3, "'nope1234'"),
        ("history get --id nope1234", 3, "'nope1234'"),
        ("logs --id nope1234", 3, "'nope1234'"),
        ("infer -n nope1234 --datafile x.json", 6, "x.json"),
        ("infer -n nope1234 --datafile x.json --timeout nan", 2, "--timeout"),
        ("probe --within inf", 2, "--within"),
        ("train -f tiny -d points --deadline inf", 2, "--deadline"),
        (f"chaos -f tiny -d points --for {'9' * 400}", 2, "--for"),
        ("fn show nope", 3, "'nope'"),
        ("fn delete --name nope --yes", 3, "'nope'"),
        ("fn create --name tiny --code tiny.py", 4, "'tiny'"),
        ("fn create --name ../x --code tiny.py", 2, "--name"),
        ("fn create --name x --code gone.py", 6, "gone.py"),
        ("fn update --name nope --code tiny.py", 3, "'nope'"),
        ("dataset delete --name nope --yes", 3, "'nope'"),
    ],
)
def test_mistake_is_told_with_its_exit_code(cli: Cli, line: str, code: int, part: str) -> None:
    before = {status.id for status in Client(cli.settings).histories()}

    ran = cli(line)

    assert_told(ran, code, part)
    assert {status.id for status in Client(cli.settings).histories()} == before


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("def main(:\n    pass\n", ("syntax error", "line 1")),
        ("x = 1\n", ("no main()", "hint:")),
        ("def main():\n    raise RuntimeError('boom here')\n", ("boom here", "line 2")),
        ("import nothing_like_it\n\ndef main():\n    pass\n", ("nothing_like_it",)),
        ("def main():\n    return 3\n", ("start()",)),
    ],
    ids=["syntax", "no main", "main raises", "import fails", "no model"],
)
def test_broken_function_is_refused_and_not_stored(
    cli: Cli, text: str, parts: tuple[str, ...]
) -> None:
    (cli.cwd / "bad.py").write_text(text)

    ran = cli("fn create --name bad --code bad.py")

    assert_told(ran, 6, *parts)
    assert cli("fn show bad").code == 3


def test_function_whose_step_fails_is_refused_with_its_traceback(cli: Cli) -> None:
    text = (FUNCTIONS / "tiny.py").read_text().replace("nn.Linear(8, 16)", "nn.Linear(9, 16)")
    (cli.cwd / "wrong.py").write_text(text)

    ran = cli("fn create --name wrong --code wrong.py")

    assert_told(ran, 6, "mat1 and mat2", "wrong.py")
    assert cli("fn show wrong").code == 3


def test_modules_of_the_current_folder_are_not_taken_for_ours(cli: Cli) -> None:
    for name in ("tasks", "brokers", "kubeml", "celery"):
        (cli.cwd / f"{name}.py").write_text("raise SystemExit('not this one')\n")

    ran = cli("fn create --name apart --code tiny.py")
    for name in ("tasks", "brokers", "kubeml", "celery"):
        (cli.cwd / f"{name}.py").unlink()

    assert ran.code == 0, ran.err


def test_function_for_a_gpu_is_refused_where_there_is_none(cli: Cli) -> None:
    text = (FUNCTIONS / "tiny.py").read_text().replace("gpu=False", "gpu=True")
    (cli.cwd / "gpu.py").write_text(text)

    assert_told(cli("fn create --name gpu --code gpu.py --device gpu"), 6, "no GPU")
    assert cli("fn create --name gpu --code gpu.py --device cpu").code == 0


def create_line(**files: str) -> str:
    names = {
        "traindata": "x.npy", "trainlabels": "x_labels.npy", "testdata": "short.npy",
        "testlabels": "short_labels.npy",
    } | files  # fmt: skip
    return "dataset create --name fresh " + " ".join(f"--{k} {v}" for k, v in names.items())


def test_bad_arrays_are_refused_and_nothing_is_stored(cli: Cli) -> None:
    folder = cli.cwd
    np.save(folder / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    (folder / "torn.npy").write_bytes((folder / "x.npy").read_bytes()[:-100])
    (folder / "text.npy").write_text("hello")
    np.savez(folder / "many.npz", a=np.zeros((2, 2)))
    (folder / "evil.pkl").write_bytes(
        b"cos\nsystem\n(S'touch %s'\ntR." % str(folder / "pwned").encode()
    )
    cases = {
        "length": (create_line(trainlabels="short_labels.npy"), "49"),
        "object dtype": (create_line(traindata="objects.npy"), "object"),
        "truncated": (create_line(traindata="torn.npy"), "torn.npy"),
        "no array": (create_line(traindata="text.npy"), "text.npy"),
        "empty": (create_line(traindata="none.npy", trainlabels="none_labels.npy"), "none.npy"),
        "member": (create_line(traindata="many.npz:b"), "b"),
        "code": (create_line(traindata="evil.pkl"), "system"),
        "missing": (create_line(traindata="gone.npy"), "gone.npy"),
    }

    for what, (line, part) in cases.items():
        ran = cli(line)
        assert ran.code == 6, (what, ran.err)
        assert part in ran.err, (what, ran.err)
    assert not (folder / "pwned").exists()
    assert cli("dataset show fresh").code == 3
    assert not list(Client(cli.settings).backends.objects.list("datasets/fresh/"))


def test_nan_in_the_data_is_a_warning(cli: Cli) -> None:
    data = np.load(cli.cwd / "x.npy")
    data[3, 3] = np.nan
    np.save(cli.cwd / "nan.npy", data)

    ran = cli(create_line(traindata="nan.npy").replace("fresh", "holes"))

    assert ran.code == 0, ran.err
    assert "warning:" in ran.err
    assert "NaN" in ran.err


def test_name_that_is_taken_is_a_conflict(cli: Cli) -> None:
    assert_told(cli(create_line().replace("fresh", "points")), 4, "'points'")


def test_pickled_arrays_are_taken(cli: Cli) -> None:
    for name in ("x", "x_labels"):
        (cli.cwd / f"{name}.pkl").write_bytes(pickle.dumps(np.load(cli.cwd / f"{name}.npy")))

    ran = cli(
        create_line(traindata="x.pkl", trainlabels="x_labels.pkl").replace("fresh", "pickled")
    )

    assert ran.code == 0, ran.err


def test_dataset_in_use_cannot_be_deleted(cli: Cli, client: Client) -> None:
    job = client.train("tiny", "points", epochs=200, batch_size=16, lr=0.01)

    ran = cli("dataset delete --name points --yes")
    job.stop()

    assert_told(ran, 4, job.id)
    assert client.datasets.show("points").name == "points"


@pytest.mark.parametrize(
    ("backend", "line"),
    [
        ("redis", "task list"),
        ("redis", "train -f tiny -d points"),
        ("s3", "dataset list"),
        ("s3", "train -f tiny -d points"),
    ],
)
def test_server_that_is_down_is_named_with_exit_code_five(
    cli: Cli, backend: str, line: str
) -> None:
    down = (
        {
            "broker_url": Secret("redis://127.0.0.1:9/0"),
            "state_url": Secret("redis://127.0.0.1:9/0"),
        }
        if backend == "redis"
        else {"s3_endpoint_url": "http://127.0.0.1:9"}
    )
    started = time.monotonic()

    ran = Cli(cli.settings.with_changes(**down), cli.cwd)(line)

    assert_told(ran, 5, backend, "127.0.0.1:9", "hint:")
    assert time.monotonic() - started < 10


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys; sys.argv=['kubeml','--help']\n"
        "try:\n import kubeml.cli as c; c.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch','numpy','boto3','celery','redis','kombu'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", ["history list", "fn show tiny", "dataset list"])
def test_bucket_that_is_not_there_is_named(cli: Cli, line: str) -> None:
    elsewhere = Cli(cli.settings.with_changes(s3_bucket="nope"), cli.cwd)

    ran = elsewhere(line)

    assert_told(ran, 5, "'nope'", cli.settings.s3_endpoint_url, "KUBEML_S3_BUCKET")


def test_doctor_makes_no_bucket(cli: Cli) -> None:
    settings = cli.settings.with_changes(s3_bucket="nope-either")

    ran = Cli(settings, cli.cwd)("doctor --json")

    assert ran.code != 0
    [s3] = [finding for finding in ran.json if finding["check"] == "s3"]
    assert s3["level"] == "bad"
    assert "'nope-either'" in s3["found"]
    assert "KUBEML_S3_BUCKET" in s3["hint"]
    assert not ObjectStore(settings).has_bucket()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_S", "nan"), ("LOG_LEVEL", "loud"), ("S3_ENDPOINT_URL", "nonsense"),
        ("S3_ENDPOINT_URL", "http://a_b!:9000"), ("BROKER_URL", "redis://h:notaport/0"),
        ("STATE_URL", "redis://h:1/0?socket_timeout=soon"),
    ],
)  # fmt: skip
def test_wrong_setting_is_told_by_its_variable(cli: Cli, name: str, value: str) -> None:
    wrong = Cli(cli.settings, cli.cwd)
    wrong.env = {f"KUBEML_{name}": value}

    # Each of the two asks one server alone.
    ran = wrong("history list" if name.startswith("S3") else "task list")

    assert_told(ran, 2, f"setting {name.lower()}: ")
