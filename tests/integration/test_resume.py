"""A job that ended goes on from its last checkpoint, as if it had never ended."""

from pathlib import Path

import pytest

from kubeml.client.client import Client
from kubeml.client.job import Job
from kubeml.errors import Conflict, InvalidFunction, InvalidOption, JobFailed, JobStopped
from kubeml.jobs.spec import State
from tests.cli import Cli
from tests.cluster import Cluster
from tests.integration.conftest import FUNCTIONS, Submit, wait_for_round

OPTIONS = {"epochs": 3, "k": 5, "parallelism": 2, "optimizer_state": "carry", "seed": 4}


def stopped(submit: Submit) -> Job:
    job = submit("slow", **OPTIONS)
    wait_for_round(job, epoch=2, round_number=1)
    job.stop()
    with pytest.raises(JobStopped):
        job.wait(30)
    return job


def test_a_stopped_job_goes_on_to_the_same_bits(client: Client, submit: Submit) -> None:
    calm = submit("tiny", **OPTIONS).wait(60).weights_sha256
    job = stopped(submit)
    lines = len(list(job.logs()))

    end = job.resume().wait(60)

    assert end.weights_sha256 == calm
    assert [row.epoch for row in job.history()] == [1, 2, 3]
    audit = job.audit(verify=True)
    assert audit.is_exact
    assert [generation["why"] for generation in audit.generations] == ["submitted", "resumed"]
    assert len(list(job.logs())) > lines
    assert client.job(job.id).status().state is State.DONE


def test_a_failed_job_goes_on_with_a_repaired_function(
    client: Client, submit: Submit, tmp_path: Path
) -> None:
    calm = submit("tiny", **OPTIONS).wait(60).weights_sha256
    (tmp_path / "mends").mkdir()
    tiny = (FUNCTIONS / "tiny.py").read_text()
    raising = tiny.replace("x, y = batch\n", "x, y = batch\n        self.check()\n", 1).replace(
        "class Tiny(KubeModel):\n",
        "class Tiny(KubeModel):\n    def check(self):\n        if self.epoch == 2:\n"
        '            raise ValueError("out of ink")\n\n',
    )
    code = tmp_path / "mends" / "mends.py"
    code.write_text(raising)
    client.functions.create("mends", code, check=False)
    job = client.train("mends", "points", batch_size=16, lr=0.05, static=True, **OPTIONS)
    with pytest.raises(JobFailed, match="out of ink"):
        job.wait(60)
    code.write_text(tiny)
    client.functions.create("mends", code, replace=True, check=False)

    end = job.resume(function="mends").wait(60)

    assert end.weights_sha256 == calm
    assert job.audit().is_exact


def test_a_function_with_other_tensors_is_refused_and_nothing_changes(
    client: Client, submit: Submit, tmp_path: Path
) -> None:
    job = stopped(submit)
    tiny = (FUNCTIONS / "tiny.py").read_text()
    (tmp_path / "wider.py").write_text(tiny.replace("16", "24"))
    client.functions.create("wider", tmp_path / "wider.py", check=False)

    with pytest.raises(InvalidFunction, match=r"one\.weight was float32\[16, 8\], is .*24"):
        job.resume(function="wider")

    assert job.status().state is State.STOPPED


def test_a_done_job_trains_on_for_more_epochs_alone(submit: Submit) -> None:
    longer = submit(**OPTIONS).wait(60).weights_sha256
    job = submit(**(OPTIONS | {"epochs": 2}))
    job.wait(60)

    with pytest.raises(Conflict, match="nothing to resume"):
        job.resume()
    with pytest.raises(InvalidOption, match="more than the 2"):
        job.resume(epochs=2)

    assert job.resume(epochs=3).wait(60).weights_sha256 == longer


def test_a_running_job_is_not_resumed(submit: Submit) -> None:
    job = submit("slow", **OPTIONS)

    with pytest.raises(Conflict, match="has not ended"):
        job.resume()
    job.stop()


def test_a_resumption_that_dies_half_way_is_finished_by_the_parameter_server(
    cluster: Cluster, client: Client, submit: Submit
) -> None:
    job = stopped(submit)

    # All that a client wrote before it died.
    client.backends.records.add_life(client.backends.records.spec(job.id), 1)

    assert job.wait(60).state is State.DONE
    assert job.audit().is_exact


@pytest.mark.full
def test_task_resume_follows_to_the_end(cluster: Cluster, submit: Submit, tmp_path: Path) -> None:
    job = stopped(submit)
    cli = Cli(cluster.settings, tmp_path)

    resumed = cli(f"task resume --id {job.id} --follow")

    assert (resumed.code, resumed.out.strip()) == (0, job.id), resumed.err
    assert cli(f"task resume --id {job.id}").code == 4
    assert cli("task resume --id nobody").code == 3
