"""The formula of ``--overlap``: merged weights plus the slot's own progress."""

import pytest
import torch
from torch import nn

from kubeml.errors import LayoutMismatch
from kubeml.runtime.local_weights import corrected, widened
from kubeml.runtime.network_blob import NetworkBlob
from kubeml.weights.layout import Layout
from kubeml.weights.wire_format import FP32


def make_network(value: float, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(dtype)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(value)
    return network


def make_blobs(
    dtype: torch.dtype, merged: float, start: float, end: float
) -> tuple[Layout, bytearray, bytearray, bytearray]:
    layout = NetworkBlob(make_network(0, dtype)).layout
    return (
        layout,
        NetworkBlob(make_network(merged, dtype)).weights(),
        NetworkBlob(make_network(start, dtype)).contribution(FP32),
        NetworkBlob(make_network(end, dtype)).contribution(FP32),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_contribution_is_the_merged_weights_plus_the_slots_progress(dtype: torch.dtype) -> None:
    layout, merged, start, end = make_blobs(dtype, 10, 2, 5)

    made = corrected(layout, merged=merged, start=start, end=end)

    network = make_network(0, dtype)
    NetworkBlob(network).load(widened(layout, made))
    for name, tensor in network.state_dict().items():
        # Counters are the slot's own, floats of buffers go like parameters.
        expected = 5 if name.endswith("num_batches_tracked") else 13
        assert torch.equal(tensor, torch.full_like(tensor, expected)), name


def test_half_precision_is_corrected_in_float32() -> None:
    # Between 256 and 258 there is no bfloat16: 256.75 would be 256, and 256.5 again.
    layout, _, start, end = make_blobs(torch.bfloat16, 0, 1, 1.5)
    merged = NetworkBlob(make_network(256.75)).weights()  # master precision

    made = corrected(layout, merged=merged, start=start, end=end)

    network = make_network(0, torch.bfloat16)
    NetworkBlob(network).load(widened(layout, made))
    assert torch.equal(network[0].bias, torch.full_like(network[0].bias, 258))


def test_the_order_of_operations_is_fixed() -> None:
    layout, merged, start, end = make_blobs(torch.float32, 1e8, 3, 4)
    expected = torch.tensor(1.0) + torch.tensor(1e8)

    made = corrected(layout, merged=merged, start=start, end=end)

    floats = torch.frombuffer(made, dtype=torch.float32, count=6, offset=8)
    assert torch.equal(floats, expected.expand(6))


def test_one_slot_alone_comes_back_but_for_rounding() -> None:
    # Then what is merged is what it handed in: the correction does nothing.
    torch.manual_seed(0)
    layout = NetworkBlob(make_network(0)).layout
    size = FP32.num_bytes(layout)
    count = (size - 8) // 4
    start, end = bytearray(size), bytearray(size)
    torch.frombuffer(start, dtype=torch.float32, count=count, offset=8).normal_()
    trained = torch.frombuffer(start, dtype=torch.float32, count=count, offset=8) + 0.01
    torch.frombuffer(end, dtype=torch.float32, count=count, offset=8).copy_(trained)

    made = corrected(layout, merged=bytearray(start), start=start, end=end)

    back = torch.frombuffer(made, dtype=torch.float32, count=count, offset=8)
    assert torch.allclose(back, trained, rtol=1e-6, atol=1e-7)


def test_neither_the_merged_weights_nor_the_start_are_changed() -> None:
    layout, merged, start, end = make_blobs(torch.float32, 10, 2, 5)
    before = bytes(merged), bytes(start)

    corrected(layout, merged=merged, start=start, end=end)

    assert (bytes(merged), bytes(start)) == before


@pytest.mark.parametrize("which", ["merged", "start", "end"])
def test_a_blob_of_another_length_is_refused(which: str) -> None:
    layout, merged, start, end = make_blobs(torch.float32, 10, 2, 5)
    blobs = {"merged": merged, "start": start, "end": end}
    blobs[which] = blobs[which][:-1]

    with pytest.raises(LayoutMismatch):
        corrected(layout, **blobs)
