"""Copies of many tensors at once: the bits of a copy one by one. The CPU stands for the device."""

import pytest
import torch

from kubeml.errors import UserCodeError
from kubeml.runtime import device_copies
from kubeml.runtime.batch_sums import Tally
from kubeml.runtime.device_copies import fetch, fill, is_far

SHAPES = [(3, 4), (), (0, 5), (7,), (2, 1, 3), (64,)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]

#: Devices whose tensors a tally reads at once: none, so that it treats the CPU as an accelerator.
NONE: frozenset[str] = frozenset()


@pytest.fixture(params=[100, 2**26], ids=["many pieces", "one piece"], autouse=True)
def _piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_copies, "_PIECE_BYTES", request.param)


def make_tensors() -> list[torch.Tensor]:
    torch.manual_seed(3)
    found = [(torch.randn(shape) * 9).to(dtype) for dtype in DTYPES for shape in SHAPES]
    found.append(torch.randn(5, 6).t())
    found.append(torch.randn(4, 4, requires_grad=True))
    return [found[index] for index in torch.randperm(len(found))]


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (
        one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other.detach())
    )


def test_fetched_tensors_have_the_bits_of_those_on_the_device() -> None:
    tensors = make_tensors()

    fetched = fetch(tensors, far=lambda _: True)

    assert len(fetched) == len(tensors)
    assert all(same(host, there) for host, there in zip(fetched, tensors, strict=True))
    assert not any(tensor.requires_grad for tensor in fetched)


def test_tensors_on_the_host_are_not_copied() -> None:
    tensors = make_tensors()

    fetched = fetch(tensors)

    assert not any(map(is_far, tensors))
    assert [t.data_ptr() for t in fetched] == [t.data_ptr() for t in tensors]


def test_some_are_copied_and_the_order_is_kept() -> None:
    tensors = make_tensors()
    far = {id(tensor) for tensor in tensors[::2]}

    fetched = fetch(tensors, far=lambda tensor: id(tensor) in far)

    assert all(same(host, there) for host, there in zip(fetched, tensors, strict=True))


def test_filled_tensors_are_those_of_a_copy_one_by_one() -> None:
    sources = [t.detach().float() for t in make_tensors()]
    simple = [torch.zeros_like(t).detach() for t in make_tensors()]
    packed = [torch.zeros_like(t).detach() for t in make_tensors()]
    transposed = torch.zeros(6, 5).t()
    for target, source in zip(simple, sources, strict=True):
        target.copy_(source)

    fill(packed, sources, far=lambda _: True)
    fill([transposed], [sources[0].new_ones(5, 6)], far=lambda _: True)

    assert all(same(one, other) for one, other in zip(packed, simple, strict=True))
    assert transposed.sum() == 30


def test_sources_may_be_changed_at_once_and_are_not_by_filling() -> None:
    target, source = torch.zeros(3), torch.ones(3)

    fill([target], [source], far=lambda _: True)
    source.zero_()

    assert target.tolist() == [1.0, 1.0, 1.0]


def values() -> list[object]:
    torch.manual_seed(4)
    found: list[object] = [
        torch.rand(()).to(dtype) if i % 2 else torch.rand(1, 1).to(dtype)
        for i in range(900)
        for dtype in (torch.float32, torch.bfloat16, torch.float64)
    ]
    found += [0.1, torch.tensor(3), torch.tensor(True), 7, torch.rand((), requires_grad=True)]
    return [found[index] for index in torch.randperm(len(found))]


def test_tally_of_kept_tensors_is_that_of_numbers_read_at_once() -> None:
    kept, read, plain = Tally("train()", read_at_once=NONE), Tally("train()"), 0.0
    for index, value in enumerate(values()):
        kept.add(value, index % 5 + 1)
        read.add(value, index % 5 + 1)
        plain += float(value.detach() if isinstance(value, torch.Tensor) else value) * (
            index % 5 + 1
        )  # type: ignore[arg-type]

    assert kept.total() == read.total() == plain


def test_kept_tensor_counts_as_it_was_when_it_was_returned() -> None:
    tally, running = Tally("train()", read_at_once=NONE), torch.zeros(())
    for _ in range(3):
        running += 1
        tally.add(running, 1)

    assert tally.total() == 1 + 2 + 3


def test_tensor_of_an_accelerator_is_not_read_before_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readings: list[torch.Size] = []
    original = torch.Tensor.tolist
    monkeypatch.setattr(
        torch.Tensor, "tolist", lambda self: readings.append(self.shape) or original(self)
    )
    monkeypatch.setattr(torch.Tensor, "__float__", lambda _: pytest.fail("read by itself"))
    monkeypatch.setattr(torch.Tensor, "item", lambda _: pytest.fail("read by itself"))
    tally = Tally("train()", read_at_once=NONE)

    for _ in range(5):
        tally.add(torch.ones(1), 2)
    before = list(readings)

    assert tally.total() == 10
    assert before == []
    assert readings == [(5,)]


@pytest.mark.parametrize(
    "value",
    [torch.zeros(2), torch.zeros(0), None, "x"],
    ids=["two", "none", "nothing", "text"],
)
def test_what_is_no_number_is_refused_at_once(value: object) -> None:
    tally = Tally("validate()", read_at_once=NONE)

    with pytest.raises(UserCodeError, match="expected a number"):
        tally.add(value, 1)
