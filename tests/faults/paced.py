"""A training that dawdles until it is told to hurry, so that it lasts as long as its faults do."""

import json
import uuid
from pathlib import Path
from typing import Any

from brokers.rounds.store import RoundStore
from kubeml.analysis.audit import JobAudit
from kubeml.client.client import Client
from kubeml.client.job import Job
from tests.eventually import eventually
from tests.integration.conftest import FUNCTIONS, put_points

#: Rows of its dataset: 3 slots of 360, 12 rounds of 3 batches. On two workers an epoch takes 4 s at
#: the slow pace, and all of them longer than any faults here; at the other one half a second.
ROWS = 1080

OPTIONS: dict[str, Any] = {
    "epochs": 10, "batch_size": 10, "lr": 0.05, "parallelism": 3, "static": True, "k": 3,
    "optimizer_state": "carry",
}  # fmt: skip


class PacedTraining:
    """The function ``paced`` and the job of it that nothing disturbed."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._hurry = folder / "hurry"
        code = folder / "code"
        code.mkdir()
        text = (FUNCTIONS / "paced.py").read_text()
        (code / "paced.py").write_text(text.replace("@HURRY@", str(self._hurry)))
        # One `main` per bundle says which file is the entry.
        (code / "tiny.py").write_text((FUNCTIONS / "tiny.py").read_text().split("def main")[0])
        #: Of the function and of the dataset, since others may have one in the same bucket.
        self._name = f"paced-{uuid.uuid4().hex[:8]}"
        put_points(client, rows=ROWS, name=self._name)
        client.functions.create(self._name, code, check=False)
        self._hurry.touch()
        self._calm = self._train()
        self._calm.wait(60)

    def submit(self, **changes: Any) -> Job:
        """The same job again, at the slow pace; the changes may be none of its bits."""
        self._hurry.unlink(missing_ok=True)
        return self._train(**changes)

    def num_merged(self, job: Job) -> int:
        """Number of the last merged weights."""
        return self._store(job).head().version

    def last_work_of(self, worker: str, job: Job) -> tuple[int, int]:
        """(epoch, round) of the last that a worker handed in, of the epoch under way; (0, 0)."""
        store = self._store(job)
        epoch, ledger = store.head().epoch, store.ledger()
        if store.head().epoch != epoch:
            return 0, 0  # another one began meanwhile: look again
        rounds = [
            (int(epoch), number)
            for number, text in ledger.merged.items()
            if worker in [entry["worker"] for entry in json.loads(text)]
        ]
        return max(rounds, default=(0, 0))

    def wait_for_work_of(
        self, worker: str, job: Job, *, after: tuple[int, int] = (0, 0), within_s: float
    ) -> None:
        """Wait until a worker has handed in something that counts, of a later round than that."""
        eventually(
            lambda: self.last_work_of(worker, job) > after,
            within_s=within_s, what=f"work of {worker} after epoch and round {after}",
        )  # fmt: skip

    def wait_until_it_goes_on(self, job: Job, *, rounds: int = 2, within_s: float) -> None:
        """Wait until so many further rounds are merged; the job must not be over then."""
        before = self.num_merged(job)
        eventually(
            lambda: self.num_merged(job) >= before + rounds,
            within_s=within_s, what=f"{rounds} further rounds of {job.id}",
        )  # fmt: skip
        assert not job.status().state.is_final

    def finish(self, job: Job) -> JobAudit:
        """Let the job end, and look whether it is the calm one's very twin."""
        assert not job.status().state.is_final, "it was over before the last fault was"
        self._hurry.touch()
        job.wait(60)
        assert [row.weights_sha256 for row in job.history()] == [
            row.weights_sha256 for row in self._calm.history()
        ]
        assert job.result().weights_sha256 == self._calm.result().weights_sha256
        audit = job.audit(verify=True)
        assert audit.is_exact, audit.all_faults
        return audit

    def _store(self, job: Job) -> RoundStore:
        return RoundStore(self._client.backends.redis, job.id)

    def _train(self, **changes: Any) -> Job:
        return self._client.train(self._name, self._name, **(OPTIONS | changes))
