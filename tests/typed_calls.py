"""Calls as a user's program makes them: mypy refuses those that are marked, and no other.

``scripts/check`` has mypy read this file; nobody runs it. A mark that is not needed is an error,
too, so this holds both ways.
"""

from kubeml import Client, Job


def calls(client: Client) -> list[Job]:
    """What ``Client.train`` takes, as the options are declared in ``kubeml.jobs.options``."""
    return [
        client.train("lenet", "mnist", epochs=5, lr=0.1, k=8),
        client.train(function="lenet", dataset="mnist", epochs=5, batch_size=32, job_id="mine"),
        client.train("lenet", "mnist", epochs=5, parallelism="2:8", deadline="30m", seed=None),
        client.train("lenet", "mnist", epochs=5, static=True, hedge=False, deadline=1800.0),
        client.train("lenet", "mnist"),  # type: ignore[call-arg]
        client.train("lenet", "mnist", 5),  # type: ignore[call-arg]
        client.train("lenet", "mnist", epochs="5"),  # type: ignore[arg-type]
        client.train("lenet", "mnist", epochs=5, parallelism=2.5),  # type: ignore[arg-type]
        client.train("lenet", "mnist", epochs=5, colour="red"),  # type: ignore[call-arg]
    ]
