"""docs/how-to/team.md and back-up.md, tried.

TLS, ACLs, two Redis servers, two parameter servers, backup and restore.
"""

import base64
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004 - Redis's own is meant
    NoPermissionError,
    RedisError,
)

from brokers.errors import BackendRefused
from brokers.objects.store import ObjectStore
from kubeml.client.client import Client
from kubeml.jobs.checkpoint import Checkpoints
from kubeml.jobs.records import JobRecords
from kubeml.stack.servers import free_ports
from tests.eventually import eventually
from tests.integration.conftest import FUNCTIONS, make_points
from tests.team import Team, block


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    team = Team(tmp_path_factory.mktemp("team"))
    try:
        team.make_access()
        team.start_servers()
        team.start_processes()
        yield team
    finally:
        team.close()


@pytest.fixture(scope="module")
def first(team: Team) -> str:
    """The team's first job, done; made with the command line and ``client.env`` alone."""
    laptop = team.folder / "laptop"
    laptop.mkdir()
    data, labels = make_points(240)
    for name, part in (("x", data), ("y", labels)):
        np.save(laptop / f"{name}.npy", part)
    (laptop / "rows.json").write_text(json.dumps([[0.0] * 8]))
    (laptop / "slow").mkdir()
    shutil.copy(FUNCTIONS / "tiny.py", laptop / "tiny.py")
    shutil.copy(FUNCTIONS / "slow.py", laptop / "slow" / "slow.py")
    tiny = (FUNCTIONS / "tiny.py").read_text().split("def main")[0]
    (laptop / "slow" / "tiny.py").write_text(tiny)
    team.ok(
        "dataset create --name points --traindata x.npy --trainlabels y.npy"
        " --testdata x.npy --testlabels y.npy"
    )
    team.ok("function create --name tiny --code tiny.py --no-check")
    team.ok("function create --name slow --code slow --no-check")
    ran = team.ok(
        "train --function tiny --dataset points --epochs 12 --parallelism 2 --batch 10 --lr 0.05"
        " --K 5 --seed 4 --optimizer-state carry --static --follow"
    )
    return ran.out.strip()


def submit(team: Team, *, epochs: int, slots: int) -> str:
    """A job that takes a while, submitted within milliseconds; its other options are `first`'s."""
    with Client(team.settings("client")) as client:
        job = client.train(
            "slow", "points", epochs=epochs, parallelism=slots, batch_size=10, lr=0.05, k=5, seed=4,
            optimizer_state="carry", static=True,
        )  # fmt: skip
    return job.id


def checkpoints(team: Team, job: str) -> int:
    """The last epoch of a job that has a checkpoint."""
    latest = Checkpoints(team.objects("client")).latest(job)
    return latest.epoch if latest else 0


def test_a_team_trains_with_an_env_file_for_each_role_and_no_more(team: Team, first: str) -> None:
    assert team.json(f"task show --id {first}")["state"] == "DONE"
    assert [row["epoch"] for row in team.json(f"history get --id {first}")] == list(range(1, 13))
    assert team.json(f"task audit --id {first} --verify")["is_exact"]
    assert len(json.loads(team.ok(f"infer -n {first} --datafile rows.json").out)) == 1
    assert {f["level"] for f in team.json("doctor")} <= {"ok", "warning"}
    # Nobody was refused anything on the way, at a server that knows its own keys alone.
    assert not [name for name in team.processes if "NOPERM" in team.log(name).upper()]


def test_servers_speak_tls_with_those_who_have_a_password_and_know_the_authority(
    team: Team,
) -> None:
    for server, name in ((team.broker, "BROKER"), (team.state, "STATE")):
        mine = team.env("client")[f"KUBEML_{name}_URL"]
        assert Redis.from_url(mine).ping()
        with pytest.raises(ConnectionError):
            Redis.from_url(mine.replace("rediss:", "redis:").split("?")[0]).ping()
        url = f"rediss://localhost:{server.port}"
        with pytest.raises(RedisError, match="certificate"):
            Redis.from_url(url).ping()
        with pytest.raises(AuthenticationError):
            Redis.from_url(f"{url}?ssl_ca_certs={team.etc}/ca.pem").ping()


MAY_NOT = {
    "worker deletes weights": ("worker", "state", ["UNLINK", "kml:{j}:w:a:0"]),
    "worker drops the list of jobs": ("worker", "state", ["DEL", "kubeml:jobs"]),
    "worker touches a queue at the state server": ("worker", "state", ["DEL", "kubeml.ps"]),
    "worker has state at the broker": ("worker", "broker", ["SET", "kml:{j}:c:a:0", "x"]),
    "worker empties the broker": ("worker", "broker", ["FLUSHALL"]),
    "client reads weights": ("client", "state", ["GET", "kml:{j}:w:a:0"]),
}


@pytest.mark.parametrize("what", MAY_NOT)
def test_what_a_role_may_not_do_at_either_server(team: Team, what: str) -> None:
    role, server, command = MAY_NOT[what]

    with pytest.raises(NoPermissionError):
        team.redis(role, server).execute_command(*command)


def test_passwords_of_one_server_are_none_at_the_other(team: Team) -> None:
    env = team.env("worker")
    broker = env["KUBEML_BROKER_URL"].split("@")[0]
    state = env["KUBEML_STATE_URL"].split("@")

    with pytest.raises(AuthenticationError):
        Redis.from_url(f"{broker}@{state[1]}").ping()
    assert "KUBEML_STATE_URL" not in team.env("flower")
    assert "kubeml-flower" not in (team.etc / "state-users.acl").read_text()


def test_a_worker_reads_the_bucket_and_no_more(team: Team, first: str) -> None:
    objects = team.objects("worker")

    assert objects.get(f"jobs/{first}/spec.json")
    with pytest.raises(BackendRefused):
        objects.delete([f"jobs/{first}/spec.json"])


def test_jobs_of_a_parameter_server_that_goes_are_the_others(team: Team, first: str) -> None:
    """Two jobs, which each of the two looks after in turn, as it happens."""
    jobs = [submit(team, epochs=5, slots=2) for _ in range(2)]

    def are_all(owner: str) -> bool:
        return {team.owner(job) for job in jobs} == {owner}

    eventually(
        lambda: all(checkpoints(team, job) >= 1 for job in jobs), within_s=30, what="checkpoints"
    )
    gone = team.owner(jobs[0])
    other = {"ps-1": "ps-2", "ps-2": "ps-1"}[gone]

    assert team.terminate(gone) == 0

    eventually(lambda: are_all(other), within_s=10, what=f"job of {other}")
    team.start("ps", gone)
    with Client(team.settings("client")) as client:
        for job in map(client.job, jobs):
            assert job.wait(60).epoch == 5
            assert job.audit(verify=True).is_exact


def test_flower_looks_at_the_broker_and_asks_for_its_password(team: Team, first: str) -> None:
    (port,) = free_ports(1)
    team.start("flower", "flower", options=f"--port {port}")
    password = team.env("flower")["KUBEML_FLOWER_AUTH"]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/queues/length",
        headers={"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"},
    )

    def queues() -> set[str]:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - our own
                return {queue["name"] for queue in json.loads(answer.read())["active_queues"]}
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            return set()

    assert "kubeml.train.cpu" in eventually(queues, within_s=30, what="queues in Flower")
    assert team.terminate("flower") == 0


# -- backup and restore: last, since it takes the pool down --------------------------------------


def copy_bucket(objects: ObjectStore, after: dict[str, Callable[[], object]]) -> dict[str, bytes]:
    """What the document's loop over ``aws s3 sync`` does; ``after`` is called after those parts."""
    copy = {}
    for part in re.findall(r"for part in ([\w ]+); do", block("backup"))[0].split():
        for info in objects.list(f"{part}/"):
            copy[info.key] = objects.get(info.key)
        after.get(part, lambda: None)()
    return copy


@pytest.mark.full
def test_a_bucket_that_was_copied_while_jobs_trained_is_all_that_a_new_pool_needs(
    team: Team, first: str
) -> None:
    objects = team.objects("client")
    records = JobRecords(objects)
    # As many epochs as `first`, and more than anybody waits for.
    same, scaled = submit(team, epochs=12, slots=2), submit(team, epochs=500, slots=1)

    def go_on() -> None:
        goal = checkpoints(team, scaled) + 1
        eventually(lambda: checkpoints(team, scaled) > goal, within_s=30, what="two epochs")

    def scale() -> None:
        team.ok(f"task scale --id {scaled} 2:2")
        eventually(lambda: records.rows(scaled)[-1].parallelism == 2, within_s=30, what="two slots")

    eventually(lambda: checkpoints(team, same) >= 1, within_s=30, what="checkpoint")
    copy = copy_bucket(
        objects,
        # The pool does not wait for who copies. In the copy the scaling is not known, its epochs
        # are; one job had not ended when `jobs` was copied, and had when `active` was.
        {
            "jobs": go_on,
            "checkpoints": scale,
            "history": lambda: team.ok(f"task watch --id {same}"),
        },
    )
    copied = max(key for key in copy if re.fullmatch(f"history/{scaled}/\\d+.json", key))
    team.end_processes()
    team.lose_servers()

    # As the document says: servers, bucket, lists, processes.
    team.start_servers()
    for key, content in copy.items():
        objects.put(key, content)
    (found,) = [f for f in team.findings() if f["check"] == "records"]
    assert (found["level"], found["found"].count(same)) == ("bad", 1), found
    states = {job["id"]: job["state"] for job in team.json("history list")}
    assert states.pop(first) == "DONE"
    assert "DONE" not in (states[same], states[scaled])
    (found,) = [f for f in team.findings() if f["check"] == "records"]
    assert found["level"] == "ok", found
    team.start_processes()

    assert len(json.loads(team.ok(f"infer -n {first} --datafile rows.json").out)) == 1
    with Client(team.settings("client")) as client:
        client.job(same).wait(60)
        eventually(
            lambda: checkpoints(team, scaled) > int(copied[-11:-5]), within_s=60, what="new epoch"
        )
        client.job(scaled).stop()
        for job in (first, same, scaled):
            audit = client.job(job).audit(verify=True)
            assert audit.is_exact, audit.all_faults
    calm, restored = records.rows(first), records.rows(same)
    assert [row.weights_sha256 for row in restored] == [row.weights_sha256 for row in calm]
    assert {f["level"] for f in team.json("doctor")} <= {"ok", "warning"}
