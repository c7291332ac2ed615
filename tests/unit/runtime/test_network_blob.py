"""A network as blobs: masters of half precision, tied and frozen tensors, buffers that move."""

import pytest
import torch
from torch import nn

from kubeml.errors import InvalidFunction, LayoutMismatch
from kubeml.runtime.network_blob import NetworkBlob
from kubeml.weights.merge import Merger
from kubeml.weights.outer_optimizer import Outer
from kubeml.weights.wire_format import FP32, WireFormat


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fixed = nn.Linear(3, 4)
        self.encode = nn.Linear(4, 4, bias=False)
        self.decode = nn.Linear(4, 4, bias=False)
        self.decode.weight = self.encode.weight
        for p in self.fixed.parameters():
            p.requires_grad = False
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("seen", torch.tensor([True, False, True]))
        self.register_buffer("nothing", torch.empty(0, 5))


class Averages(nn.Module):
    """Replaces its buffer in each forward pass rather than writing into it."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x
        return x


def scramble(network: nn.Module) -> None:
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()


def test_every_tensor_reloads_and_parameters_keep_their_identity() -> None:
    network = Tied()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    ids = [id(p) for p in network.parameters()]
    blob = NetworkBlob(network)
    weights, frozen = bytes(blob.weights()), bytes(blob.frozen())
    scramble(network)

    blob.load(weights, frozen)

    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert [id(p) for p in network.parameters()] == ids
    assert network.decode.weight is network.encode.weight


def test_tied_tensors_are_sent_once_and_frozen_ones_apart() -> None:
    layout = NetworkBlob(Tied()).layout

    moving = {spec.name: spec for spec in layout.moving}
    assert {spec.name for spec in layout.frozen} == {"fixed.weight", "fixed.bias"}
    assert set(moving) == {"encode.weight", "steps", "seen", "nothing"}
    assert moving["encode.weight"].aliases == ("decode.weight",)
    assert layout.weights_bytes == 16 * 4 + 8 + 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_precision_is_sent_as_it_is_and_kept_as_float32(dtype: torch.dtype) -> None:
    network = nn.Linear(2, 2, bias=False).to(dtype)
    blob = NetworkBlob(network)

    contribution, weights = blob.contribution(FP32), blob.weights()

    native = torch.frombuffer(contribution, dtype=dtype)
    master = torch.frombuffer(weights, dtype=torch.float32)
    assert torch.equal(native, network.weight.detach().flatten())
    assert torch.equal(master, network.weight.detach().float().flatten())


def test_bfloat16_differences_are_of_the_weights_that_the_round_began_with() -> None:
    network = nn.BatchNorm1d(3)
    blob = NetworkBlob(network)
    base = blob.weights()
    with torch.no_grad():
        network.weight += torch.tensor([0.0, 2.0**-20, -3.0])
        network.running_mean += 5.0
        network.num_batches_tracked += 7

    sent = blob.contribution(WireFormat("bf16"), base)

    assert len(sent) == WireFormat("bf16").num_bytes(blob.layout) == 8 + 2 * 3 * 4 + 2 * 3 * 2
    into = bytearray(base)
    merger = Merger(blob.layout, WireFormat("bf16"))
    feed = merger.finish(0, 1, into=into, outer=Outer(), outer_state=None)
    feed(sent)
    feed.close()
    assert into == blob.weights()


def test_memory_for_a_contribution_is_used_again_if_it_fits() -> None:
    blob = NetworkBlob(nn.Linear(2, 2))
    first = blob.contribution(FP32)

    assert blob.contribution(FP32, into=first) is first
    assert blob.contribution(FP32, into=bytearray(3)) == first


def test_half_precision_rounds_a_master_as_torch_does() -> None:
    network = nn.Linear(2, 2, bias=False).bfloat16()
    master = torch.tensor([1.001, -2.003, 3.14159, 1e-3])

    NetworkBlob(network).load(master.numpy().tobytes())

    assert torch.equal(network.weight.detach().flatten(), master.bfloat16())


def test_buffer_that_forward_replaces_is_the_one_that_travels() -> None:
    network = Averages()
    blob = NetworkBlob(network)
    network(torch.ones(2))

    blob.require_unchanged()

    assert torch.equal(torch.frombuffer(blob.weights(), dtype=torch.float32), network.mean)


def test_buffer_replaced_in_an_abandoned_round_is_the_one_that_is_loaded() -> None:
    network = Averages()
    blob = NetworkBlob(network)
    start = bytes(blob.weights())
    network(torch.ones(2))

    blob.load(start)

    assert network.mean.tolist() == [0.0, 0.0]


def test_parameter_that_is_replaced_is_refused_by_name() -> None:
    network = nn.Linear(2, 2)
    blob = NetworkBlob(network)
    network.weight = nn.Parameter(torch.zeros(2, 2))

    with pytest.raises(LayoutMismatch, match="'weight'"):
        blob.require_unchanged()


@pytest.mark.parametrize(
    ("network", "fault"),
    [
        (nn.Sequential(nn.LazyLinear(2)), "not known before the first batch"),
        (nn.Linear(2, 2, dtype=torch.complex64), "complex64"),
    ],
    ids=["lazy", "complex"],
)
def test_network_that_cannot_be_merged_is_refused(network: nn.Module, fault: str) -> None:
    with pytest.raises(InvalidFunction, match=fault):
        NetworkBlob(network)


def test_blob_of_another_length_is_refused() -> None:
    blob = NetworkBlob(nn.Linear(2, 2))

    with pytest.raises(LayoutMismatch, match="24 bytes"):
        blob.load(bytes(20))
