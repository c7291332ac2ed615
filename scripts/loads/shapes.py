"""The jobs of a load: what is trained, and in which shapes."""

from dataclasses import dataclass, field
from typing import Any

from brokers.wire import new_id
from kubeml.client.client import Client
from kubeml.client.job import Job
from kubeml.errors import NameTaken
from scripts.benchmarks import paced
from scripts.benchmarks.patience import patiently


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a job is asked to do.

    Attributes:
        name: For people.
        parallelism: N, or a range of it.
        static: Whether N stays: only then are the weights known beforehand (I8).
        options: Further options of ``Client.train``, those that weights depend on.
    """

    name: str
    parallelism: int | str
    static: bool = True
    options: dict[str, Any] = field(default_factory=dict)


#: All jobs of a crowd are of this one.
PLAIN = Shape(name="N=2", parallelism=2)

STATIC = (
    PLAIN,
    Shape(name="N=1", parallelism=1, options={"seed": 1}),
    Shape(name="N=4 K=4", parallelism=4, options={"k": 4}),
    Shape(name="N=3 batch 8", parallelism=3, options={"batch_size": 8, "k": 16}),
    Shape(name="N=2 overlap", parallelism=2, options={"overlap": True}),
)
ELASTIC = (
    Shape(name="1:4", parallelism="1:4", static=False),
    Shape(name="2, throughput", parallelism=2, static=False, options={"policy": "throughput"}),
)

#: Rows of a step, unless a shape says otherwise.
BATCH = 16

_DEFAULTS: dict[str, Any] = {
    "batch_size": BATCH, "k": 8, "lr": 0.05, "optimizer_state": "carry", "validate_every": 0,
}  # fmt: skip


def submit(client: Client, shape: Shape, *, epochs: int, **options: Any) -> Job:
    """Submit a job of a shape; ``options`` are those that weights do not depend on."""
    wanted = {**_DEFAULTS, **shape.options, **options}
    job_id = new_id()[:8]

    def attempt() -> Job:
        try:
            return client.train(
                paced.FUNCTION, paced.DATASET, job_id=job_id, epochs=epochs,
                parallelism=shape.parallelism, static=shape.static, **wanted,
            )  # fmt: skip
        except NameTaken:
            # An attempt before had got so far when a server did not answer.
            return client.job(job_id)

    return patiently(attempt)
