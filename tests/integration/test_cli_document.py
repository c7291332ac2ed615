"""Every command line of the KubeML document, verbatim, through real processes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kubeml.client.client import Client
from tests.cli import Cli
from tests.cluster import Cluster
from tests.integration.conftest import FUNCTIONS

MNIST = Path(__file__).parents[2] / "scripts" / "data" / "mnist_subset.npz"
LENET = Path(__file__).parents[2] / "scripts" / "examples" / "lenet" / "lenet.py"


@pytest.fixture(scope="module")
def cli(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command, in a folder with the files that the document's lines name."""
    folder = tmp_path_factory.mktemp("document")
    shutil.copy(LENET, folder / "network.py")
    with np.load(MNIST) as digits:
        np.save(folder / "train.npy", digits["x_train"][:1500])
        np.save(folder / "trainlabels.npy", digits["y_train"][:1500])
        np.save(folder / "test.npy", digits["x_test"][:300])
        np.save(folder / "testlabels.npy", digits["y_test"][:300])
        (folder / "data.json").write_text(json.dumps(digits["x_test"][:3].tolist()))
    return Cli(cluster.settings, folder)


@pytest.fixture(scope="module")
def ready(cli: Cli) -> Cli:
    """After the lines that create the function and the dataset."""
    created = cli("function create --name example --code network.py")
    assert created.code == 0, created.err
    uploaded = cli(
        "dataset create --name mnist --traindata train.npy --trainlabels trainlabels.npy "
        "--testdata test.npy --testlabels testlabels.npy"
    )
    assert uploaded.code == 0, uploaded.err
    return cli


@pytest.fixture(scope="module")
def finished(ready: Cli, client: Client) -> str:
    """Id of a job that the document's train line submitted, after its end."""
    ran = ready("train --function example --dataset mnist --epochs 10 --batch 128 --lr 0.01")
    assert ran.code == 0, ran.err
    job_id = ran.out.strip()
    client.job(job_id).wait(90)
    return job_id


def test_train_prints_the_job_id_alone_and_trains(finished: str, client: Client) -> None:
    rows = client.job(finished).history()

    assert len(finished) == 8
    assert len(rows) == 10
    assert rows[-1].accuracy is not None
    assert rows[-1].accuracy > 60


def test_short_flags_and_alias_are_the_same(ready: Cli, client: Client) -> None:
    assert ready("fn list -q").out.split() == ready("function list -q").out.split()

    ran = ready("train -f example -d mnist -e 1 -b 128 --lr 0.01")

    assert ran.code == 0, ran.err
    assert client.job(ran.out.strip()).wait(60).epoch == 1


def test_options_of_the_document_mean_what_they_say(ready: Cli, client: Client) -> None:
    ran = ready(
        "train --function example --dataset mnist --epochs 2 --batch 64 --lr 0.01 --parallelism 3 "
        "--static --validate-every 2 --K 4 --goal-accuracy 99.9"
    )
    assert ran.code == 0, ran.err
    job = client.job(ran.out.strip())
    job.wait(60)

    spec, rows = job.spec, job.history()
    assert (spec.parallelism, spec.static, spec.k) == (3, True, 4)
    assert (spec.validate_every, spec.goal_accuracy) == (2, 99.9)
    assert [row.parallelism for row in rows] == [3, 3]
    assert [row.accuracy is not None for row in rows] == [False, True]


def test_sparse_avg_merges_once_per_epoch(ready: Cli, client: Client) -> None:
    ran = ready(
        "train --function example --dataset mnist --epochs 1 --batch 64 --lr 0.01 --sparse-avg"
    )
    job = client.job(ran.out.strip())
    job.wait(60)

    assert [row.rounds for row in job.history()] == [1]
    assert ready("train -f example -d mnist --sparse-avg --K 3").code == 2


def test_task_audit_says_that_every_row_counted_once(ready: Cli, finished: str) -> None:
    shown = ready(f"task audit --id {finished}")

    assert shown.code == 0, shown.err
    assert shown.out.strip().endswith("rows counted 1x: 100 %")
    assert ready(f"task audit --id {finished} --verify --json").json["is_exact"] is True


def test_task_list_short_prints_ids(ready: Cli, finished: str) -> None:
    ids = ready("task list --short").out.split()

    assert finished in ids
    assert {row["id"] for row in ready("task list --json").json} >= {finished}


def test_history_get_shows_every_epoch(ready: Cli, finished: str) -> None:
    table = ready(f"history get --id {finished}")
    rows = ready(f"history get --id {finished} --json").json

    assert table.code == 0
    assert "ACCURACY" in table.out
    assert [row["epoch"] for row in rows] == list(range(1, 11))
    assert f"{rows[-1]['accuracy']:.2f}" in table.out


def test_logs_follow_until_the_end(ready: Cli, finished: str) -> None:
    ran = ready(f"logs --id {finished} -f")

    lines = [json.loads(line) for line in ready(f"logs --id {finished} --json").out.splitlines()]
    assert ran.code == 0
    assert "Index 0, error:" in ran.out
    assert {line["epoch"] for line in lines} == set(range(1, 11))
    assert {"worker", "slot", "round", "level", "text", "at"} <= set(lines[0])


def test_infer_prints_json(ready: Cli, finished: str) -> None:
    ran = ready(f"infer -n {finished} --datafile data.json")

    assert ran.code == 0, ran.err
    assert len(ran.json) == 3
    assert all(digit in range(10) for digit in ran.json)


def test_follow_tells_each_epoch_in_plain_lines_without_a_terminal(ready: Cli) -> None:
    ran = ready(
        "train --function example --dataset mnist --epochs 2 --batch 128 --lr 0.01 --follow"
    )

    assert ran.code == 0
    assert len(ran.out.split()) == 1
    assert "epoch 1/2 done" in ran.err
    assert "epoch 2/2 done" in ran.err
    assert "DONE" in ran.err
    assert "\x1b[" not in ran.err


def test_task_stop_ends_the_job_with_exit_code_seven_for_followers(
    cluster: Cluster, ready: Cli, client: Client, tmp_path: Path
) -> None:
    for name in ("slow.py", "tiny.py"):
        text = (FUNCTIONS / name).read_text()
        (tmp_path / name).write_text(text if name == "slow.py" else text.split("def main")[0])
    assert Cli(cluster.settings, tmp_path)("fn create --name lazy --code .").code == 0
    job_id = ready("train -f lazy -d points -e 50 -b 16 --lr 0.01 --K 2").out.strip()

    stopped = ready(f"task stop --id {job_id}")
    watched = ready(f"task watch --id {job_id}")

    assert stopped.code == 0
    assert watched.code == 7
    assert ready(f"task show --id {job_id} --json").json["state"] == "STOPPED"
    assert ready(f"task stop --id {job_id}").code == 4


def test_failed_job_shows_the_users_traceback_and_exit_code_one(
    cluster: Cluster, ready: Cli, client: Client, tmp_path: Path
) -> None:
    for name in ("raises.py", "tiny.py"):
        text = (FUNCTIONS / name).read_text()
        (tmp_path / name).write_text(text if name == "raises.py" else text.split("def main")[0])
    created = Cli(cluster.settings, tmp_path)("fn create --name broken --code .")
    assert created.code == 0, created.err

    ran = ready("train -f broken -d points -e 3 -b 16 --lr 0.01 --follow")

    shown = ready(f"task show --id {ran.out.strip()}")
    assert ran.code == 1
    assert 'raise ValueError("the ink has run out")' in ran.err
    assert "raises.py" in ran.err
    assert "kubeml/runtime/" not in ran.err
    assert "the ink has run out" in shown.out


def test_prune_and_delete_ask_and_take_yes(ready: Cli, client: Client) -> None:
    job_id = ready("train -f example -d mnist -e 1 -b 128 --lr 0.01 -q").out.strip()
    client.job(job_id).wait(60)

    refused = ready("task prune")
    listed = ready("task list --short").out.split()
    pruned = ready("task prune --yes")

    assert refused.code == 2
    assert "--yes" in refused.err
    assert job_id in listed
    assert pruned.code == 0
    assert job_id not in ready("task list --short").out.split()
    assert job_id in ready("history list -q").out.split()
    assert ready("history list --limit 1 -q").out.split() == [job_id]
    assert ready(f"history delete --id {job_id}").code == 2
    assert ready(f"history delete --id {job_id} --yes").code == 0
    assert ready(f"history get --id {job_id}").code == 3


def test_function_and_dataset_can_be_shown_updated_and_deleted(ready: Cli) -> None:
    assert ready("fn create --name second --code network.py").code == 0
    before = ready("fn show second --json").json
    (ready.cwd / "network2.py").write_text((ready.cwd / "network.py").read_text() + "\n# newer\n")

    updated = ready("fn update --name second --code network2.py")

    after = ready("fn show second --json --source").json
    assert updated.code == 0, updated.err
    assert after["sha256"] != before["sha256"]
    assert "# newer" in after["source"]["network2.py"]
    assert ready("fn delete --name second --yes").code == 0
    assert ready("fn show second").code == 3
    assert ready("dataset show --name mnist --json").json["train"]["num_rows"] == 1500
