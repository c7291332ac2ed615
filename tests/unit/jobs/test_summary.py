"""A finished job's summary, to a key and back."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeml.jobs.results import JobStatus
from kubeml.jobs.spec import State
from kubeml.jobs.summary import LEFT_OUT, ROOT, ended_status, from_key, prefix, to_key
from tests.jobs import make_end, make_row, make_spec


def make_job(job_id: str = "0a1b2c3d", *, reason: str = "") -> JobStatus:
    return ended_status(make_spec(job_id), make_end(job_id, reason=reason), make_row(2))


def test_summary_comes_back_whole() -> None:
    job = make_job()

    key = to_key(job, life=3)

    assert from_key(key) == (job.id, 3, job)
    assert key.startswith(prefix(job.id))
    assert all(len(part) <= 250 for part in key.split("/"))
    assert len(key) < 600


@pytest.mark.parametrize("has_row", [True, False])
def test_every_field_that_is_not_its_default_comes_back(*, has_row: bool) -> None:
    spec = replace(
        make_spec("j"), parallelism=3, max_parallelism=7, static=True, k=16, validate_every=0,
        goal_accuracy=99.5, seed=2**62, shuffle=False, optimizer_state="carry", outer="slowmo",
        outer_lr=0.7, outer_momentum=0.9, device="gpu", max_errors=9,
    )  # fmt: skip
    end = replace(make_end("j"), state=State.STOPPED, accuracy=None, train_loss=None, val_loss=None)
    job = ended_status(spec, end, make_row(2) if has_row else None)

    assert from_key(to_key(job, life=0)) == ("j", 0, job)


def test_key_written_by_this_version_is_read_by_every_later_one() -> None:
    assert from_key(FROZEN) == ("0a1b2c3d", 0, make_job())


def test_long_reason_is_left_to_the_record_of_the_end() -> None:
    job = make_job(reason="Traceback\n" + "x" * 5000)

    _, _, found = from_key(to_key(job, life=0)) or (None, None, None)

    assert found is not None
    assert (found.reason, found.spec, found.last) == (LEFT_OUT, job.spec, job.last)


def test_summary_that_no_key_can_hold_is_left_out() -> None:
    job = make_job("j" * 63)
    names = [chr(c) for c in range(0x4E00, 0x4E00 + 900)]
    job = replace(job, spec=replace(job.spec, entry="".join(names)))

    key = to_key(job, life=1)

    assert from_key(key) == (job.id, 1, None)


@given(st.text(st.characters(codec="ascii"), max_size=300))
def test_any_other_key_is_no_summary(text: str) -> None:
    entry = from_key(ROOT + text)

    assert entry is None or entry[2] is None


def test_summary_that_swells_is_not_read() -> None:
    from kubeml.jobs.summary import _pack

    bomb = _pack('{"spec":' + " " * 1_000_000 + "{}}")

    assert re.fullmatch(r"[A-Za-z0-9_-]+", bomb)
    assert from_key(f"{ROOT}j.000000.{bomb}") == ("j", 0, None)


FROZEN = (
    "finished/0a1b2c3d.000000.tdTrjcMgDADgXW6AyA9s4z1uAQNhi-7eNFXToCan3En3FwS28WcOW71"
    "SOuy3m1UtVNhpWYkehYCTd6huiSNRl8bULOeqZBooMpP1jmqg4vH1hvsHr4iUvpd7Vq8QWKhy2xGkywI"
    "n-Q1B-oHgK40nRTq16IHkwLl5AMTcoHYNmwPEawhERk7JQTFKtpxy7RjIc_TWmZcIo2WciJOoZX-UNro"
    "mGWHzAJvfR0cLLs-fYF/JJTPhpnq6bZ9jQK-zY6yPAhXxPK93PAtK07RB_TgaeTsb2t_5Hlw7fFNcibr"
    "c7"
)
