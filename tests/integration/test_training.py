"""A whole training through real processes: its results, its records, its end."""

import hashlib
import itertools
import statistics

import numpy as np
import pytest
import torch

from kubeml.client.client import Client
from kubeml.errors import Conflict, JobFailed, JobNotFound, JobStopped, NameTaken
from kubeml.jobs.spec import State
from tests.integration.conftest import Submit, wait_for_round


def test_job_learns_and_leaves_history_checkpoint_and_weights(
    client: Client, submit: Submit
) -> None:
    job = submit(epochs=3, k=4, parallelism=2)

    end = job.wait(90)

    rows = job.history()
    assert end.state is State.DONE
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert [row.samples for row in rows] == [1200] * 3
    assert rows[-1].train_loss is not None
    assert rows[0].train_loss is not None
    assert rows[-1].train_loss < rows[0].train_loss
    assert end.accuracy is not None
    assert end.accuracy > 90
    assert end.weights_sha256 == rows[-1].weights_sha256
    assert set(job.state_dict()) == {"one.weight", "one.bias", "two.weight", "two.bias"}


def test_rounds_are_merged_as_soon_as_they_are_complete(client: Client, submit: Submit) -> None:
    # Were nobody woken by contributions, each round would wait for a tick (0.5 s) or longer.
    job = submit(epochs=1, k=2, parallelism=2)
    job.wait(60)

    merged = [event.at for event in job.events() if event.kind == "round"]
    pauses = [late - early for early, late in itertools.pairwise(merged)]

    assert len(merged) == 19
    assert statistics.median(pauses) < 0.25


def test_differences_in_bfloat16_learn_as_well_and_give_the_same_bits(submit: Submit) -> None:
    # Three slots on two workers: who trains what is another matter in each job.
    jobs = [submit(epochs=3, k=4, parallelism=3, seed=1, wire="bf16") for _ in range(2)]
    plain = submit(epochs=3, k=4, parallelism=3, seed=1)

    ends = [job.wait(90) for job in (*jobs, plain)]

    assert ends[0].weights_sha256 == ends[1].weights_sha256
    assert ends[0].weights_sha256 != ends[2].weights_sha256
    assert ends[0].accuracy is not None
    assert ends[2].accuracy is not None
    assert ends[0].accuracy > ends[2].accuracy - 1


def test_weights_survive_the_job(client: Client, submit: Submit) -> None:
    # The original deleted them from its tensor store when the job ended.
    job = submit(epochs=1)
    job.wait(60)

    weights = client.job(job.id).state_dict()
    again = client.job(job.id).state_dict()

    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert any(tensor.abs().sum() > 0 for tensor in weights.values())


def test_rounds_have_exactly_k_steps(submit: Submit) -> None:
    # 1200 rows / 3 slots / 16 rows = 25 batches: 6 rounds of 4 and one of 1.
    job = submit(k=4, parallelism=3)
    job.wait(60)

    row = job.history()[0]
    assert row.rounds == 7
    assert row.steps == 75


def test_validation_is_averaged_over_samples_not_batches(client: Client, submit: Submit) -> None:
    # 300 test rows in batches of 128 over 1 slot: 128 + 128 + 44.
    job = submit(batch_size=128, parallelism=1)
    job.wait(60)

    weights = {name: t.double().numpy() for name, t in job.state_dict().items()}
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1.5, (3, 8))
    labels = rng.integers(0, 3, 1500)
    data = (centres[labels] + rng.normal(0, 0.5, (1500, 8))).astype(np.float32)
    hidden = np.maximum(data[1200:] @ weights["one.weight"].T + weights["one.bias"], 0)
    out = hidden @ weights["two.weight"].T + weights["two.bias"]
    expected = 100 * np.mean(out.argmax(1) == labels[1200:])

    assert job.history()[0].accuracy == pytest.approx(expected, abs=1e-6)


def test_validation_happens_every_so_many_epochs_and_at_the_end(submit: Submit) -> None:
    job = submit(epochs=5, validate_every=2)
    job.wait(90)

    assert [row.accuracy is not None for row in job.history()] == [False, True, False, True, True]


def test_goal_accuracy_ends_the_job_early(submit: Submit) -> None:
    job = submit(epochs=50, goal_accuracy=80.0)

    end = job.wait(90)

    assert end.state is State.DONE
    assert "goal accuracy" in end.reason
    assert end.epoch < 50


def test_stop_ends_within_a_round_and_keeps_what_was_merged(submit: Submit) -> None:
    job = submit("slow", epochs=50, k=2)
    wait_for_round(job, epoch=1, round_number=2)

    job.stop()

    with pytest.raises(JobStopped):
        job.wait(10)
    end = job.result()
    assert end.state is State.STOPPED
    assert end.weights_sha256
    assert job.state_dict()
    with pytest.raises(Conflict, match="ended already"):
        job.stop()


def test_user_exception_fails_the_job_with_the_users_traceback(submit: Submit) -> None:
    job = submit("raises", epochs=3)

    with pytest.raises(JobFailed) as caught:
        job.wait(60)

    assert "the ink has run out" in caught.value.reason
    assert "raises.py" in caught.value.reason
    assert [row.epoch for row in job.history()] == [1]
    assert job.result().checkpoint


def test_parallelism_follows_the_policy_within_floor_and_ceiling(submit: Submit) -> None:
    job = submit(epochs=4, static=False, policy="throughput", parallelism=1, max_parallelism=2)
    job.wait(90)

    rows = job.history()
    assert [row.parallelism for row in rows[:2]] == [1, 2]
    assert all(1 <= row.parallelism <= 2 for row in rows)
    assert all(row.decision for row in rows)


def test_epoch_duration_is_the_epochs_own(submit: Submit) -> None:
    # The original reported the time since the job's start.
    job = submit("slow", epochs=3, k=10)
    end = job.wait(90)

    durations = [row.duration_s for row in job.history()]
    assert sum(durations) <= end.elapsed_s
    assert max(durations) < 2.5 * min(durations)


def test_same_id_twice_is_refused(submit: Submit) -> None:
    job = submit(job_id="my-own-id")

    with pytest.raises(NameTaken):
        submit(job_id="my-own-id")

    job.wait(60)
    with pytest.raises(NameTaken):
        submit(job_id="my-own-id")


def test_inference_uses_the_trained_weights(client: Client, submit: Submit) -> None:
    job = submit(epochs=3)
    job.wait(90)
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1.5, (3, 8))

    predictions = job.infer(centres.tolist())

    assert predictions == [0, 1, 2]


def test_log_lines_come_with_epoch_round_and_slot(submit: Submit) -> None:
    job = submit(epochs=1, k=20, parallelism=2)
    job.wait(60)

    lines = list(job.logs())

    assert lines
    assert all("first loss" in line.text for line in lines)
    assert {line.slot for line in lines} == {0, 1}
    assert {line.epoch for line in lines} == {1}
    assert max(line.round for line in lines) == 1


def test_events_tell_the_whole_story_in_order(submit: Submit) -> None:
    job = submit(epochs=2, k=20, parallelism=2)

    kinds = [event.kind for event in job.events()]

    assert kinds[0] == "init"
    assert kinds[-1] == "end"
    assert kinds.count("epoch") == kinds.count("checkpoint") == kinds.count("validated") == 2
    assert kinds.index("epoch") < kinds.index("round") < kinds.index("checkpoint")


def test_deleting_a_history_removes_every_object_of_the_job(client: Client, submit: Submit) -> None:
    job = submit()
    job.wait(60)

    client.delete_history(job.id)

    left = [
        i.key
        for p in ("jobs/", "history/", "checkpoints/")
        for i in client.backends.objects.list(p)
    ]
    assert not [key for key in left if job.id in key]
    with pytest.raises(JobNotFound):
        client.job(job.id)


def test_same_seed_gives_the_same_weights_and_another_seed_others(submit: Submit) -> None:
    jobs = [submit(k=5, seed=seed) for seed in (1, 1, 2)]

    digests = [job.wait(90).weights_sha256 for job in jobs]

    assert digests[0] == digests[1]
    assert digests[0] != digests[2]
    assert len(digests[0]) == len(hashlib.sha256().hexdigest())
