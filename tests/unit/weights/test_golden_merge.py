"""The merge's numerics: exact where it must be, the same in any order of arrival."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from kubeml.errors import BufferConflict, LayoutMismatch, NonFinite
from kubeml.weights.layout import Kind, Layout, TensorSpec
from kubeml.weights.merge import Merger
from kubeml.weights.outer_optimizer import Outer
from kubeml.weights.runs import NotFinite
from kubeml.weights.wire_format import FP32, WireFormat

RNG = np.random.default_rng(5)


def make_layout(*tensors: tuple[str, tuple[int, ...], str, Kind]) -> Layout:
    return Layout(tuple(TensorSpec(name=n, shape=s, dtype=d, kind=k) for n, s, d, k in tensors))


FLAT = make_layout(("w", (1000,), "float32", "param"))


def weights(scale: float = 0.05) -> NDArray[np.float32]:
    return RNG.normal(0, scale, 1000).astype(np.float32)


def merge(
    layout: Layout,
    parts: list[tuple[bytes, int]],
    *,
    start: bytes | None = None,
    outer: Outer | None = None,
    state: bytes | None = None,
    wire: WireFormat = FP32,
    piece: int = 2**20,
    merger: Merger | None = None,
    order: Sequence[int] | None = None,
) -> tuple[bytes, bytes | None]:
    merger = merger or Merger(layout, wire)
    outer = outer or Outer()
    momentum = bytearray(state) if state else merger.new_outer_state(outer)
    into = bytearray(start or bytes(layout.weights_bytes))
    merger.begin()
    for done, slot in enumerate(order or range(len(parts))):
        blob, num_samples = parts[slot]
        if done < len(parts) - 1:
            feed = merger.fold(slot, num_samples)
        else:
            feed = merger.finish(slot, num_samples, into=into, outer=outer, outer_state=momentum)
        for low in range(0, len(blob), piece):
            feed(blob[low : low + piece])
        feed.close()
    assert feed.num_ready == layout.weights_bytes
    return bytes(into), bytes(momentum) if momentum else None


def test_one_slot_comes_back_bit_for_bit() -> None:
    theta = weights()

    merged, _ = merge(FLAT, [(theta.tobytes(), 17)], start=weights().tobytes())

    assert merged == theta.tobytes()


def test_mean_is_weighted_by_samples() -> None:
    a, b = weights(), weights()

    merged, _ = merge(FLAT, [(a.tobytes(), 1), (b.tobytes(), 3)])

    expected = (a.astype(np.float64) * 0.25 + b.astype(np.float64) * 0.75).astype(np.float32)
    assert merged == expected.tobytes()


def test_outer_sgd_with_rate_one_and_no_momentum_is_the_weighted_mean() -> None:
    start, a, b = weights(), weights(), weights()
    parts = [(a.tobytes(), 3), (b.tobytes(), 5)]

    plain, _ = merge(FLAT, parts, start=start.tobytes())
    stepped, _ = merge(FLAT, parts, start=start.tobytes(), outer=Outer(name="slowmo"))

    np.testing.assert_allclose(
        np.frombuffer(stepped, np.float32), np.frombuffer(plain, np.float32), atol=1e-7
    )


def test_a_merge_with_any_difference_changes_the_weights() -> None:
    # Tiny differences must not vanish in rounding, as they would in `start - (start - theta)`.
    start = np.full(1000, 1.0, np.float32)
    theta = start.copy()
    theta[7] = np.nextafter(np.float32(1.0), np.float32(2.0))

    merged, _ = merge(FLAT, [(theta.tobytes(), 4)], start=start.tobytes())

    assert merged != start.tobytes()


def test_k1_with_equal_shares_is_one_large_batch_step() -> None:
    start = weights().astype(np.float64)
    data = RNG.normal(size=(64, 1000))
    target = RNG.normal(size=64)

    def step(rows: slice) -> NDArray[np.float64]:
        x, y = data[rows], target[rows]
        return start - 0.01 * 2 * x.T @ (x @ start - y) / len(y)

    slots = [step(slice(i * 16, (i + 1) * 16)).astype(np.float32) for i in range(4)]
    merged, _ = merge(FLAT, [(theta.tobytes(), 16) for theta in slots])

    large = step(slice(0, 64))
    np.testing.assert_allclose(np.frombuffer(merged, np.float32), large, atol=1e-6)


def test_nesterov_moves_on_in_the_direction_it_had() -> None:
    outer = Outer(name="nesterov", lr=0.7, momentum=0.9)
    start = np.zeros(1000, np.float32)
    theta = np.full(1000, 1.0, np.float32)

    first, state = merge(FLAT, [(theta.tobytes(), 1)], start=start.tobytes(), outer=outer)
    second, _ = merge(FLAT, [(first, 1)], start=first, outer=outer, state=state)

    # delta = -1; velocity = -1; step = -1 - 0.9; then delta = 0; velocity = -0.9; step = -0.81
    np.testing.assert_allclose(np.frombuffer(first, np.float32), 0.7 * 1.9, rtol=1e-6)
    np.testing.assert_allclose(np.frombuffer(second, np.float32), 0.7 * 1.9 + 0.7 * 0.81, rtol=1e-6)


def test_counters_keep_their_dtype_and_take_the_largest() -> None:
    layout = make_layout(("n", (), "int64", "buffer"), ("w", (2,), "float32", "param"))
    parts = [
        (np.int64(n).tobytes() + np.array([n, n], np.float32).tobytes(), 1) for n in (3, 2**40, 5)
    ]

    merged, _ = merge(layout, parts)

    assert np.frombuffer(merged, np.int64, 1)[0] == 2**40


def test_float_buffers_are_averaged_by_samples() -> None:
    layout = make_layout(("running_mean", (2,), "float32", "buffer"))
    parts = [(np.full(2, v, np.float32).tobytes(), n) for v, n in ((1.0, 1), (3.0, 3))]

    merged, _ = merge(layout, parts, outer=Outer(name="nesterov", lr=0.5, momentum=0.5))

    assert np.frombuffer(merged, np.float32).tolist() == [2.5, 2.5]


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_other_integer_buffers_must_agree(dtype: str) -> None:
    layout = make_layout(("mask", (3,), dtype, "buffer"))
    same = np.ones(3, dtype).tobytes()
    other = np.array([1, 0, 1], dtype).tobytes()

    with pytest.raises(BufferConflict, match=r"slot 1.*'mask'"):
        merge(layout, [(same, 1), (other, 1)])
    with pytest.raises(BufferConflict, match=r"slot 1.*'mask'"):
        merge(layout, [(same, 1), (other, 1), (same, 1)])


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_mean_that_is_not_finite_is_refused_and_the_slot_found(bad: float, slots: int) -> None:
    layout = make_layout(("a", (4,), "float32", "param"), ("b", (4,), "float32", "param"))
    good = np.ones(8, np.float32)
    poisoned = good.copy()
    poisoned[6] = bad
    merger = Merger(layout, FP32)
    for culprit in range(slots):
        parts = [(good.tobytes(), 1)] * slots
        parts[culprit] = (poisoned.tobytes(), 1)

        with pytest.raises(NotFinite):
            merge(layout, parts, merger=merger)

        for slot, (blob, _) in enumerate(parts):
            feed = merger.require_finite(slot)
            if slot != culprit:
                feed(blob)
                feed.close()
                continue
            with pytest.raises(NonFinite, match=f"slot {culprit}: tensor 'b'"):
                feed(blob)
        merged, _ = merge(layout, [(good.tobytes(), 1)] * slots, merger=merger)
        assert merged == good.tobytes()


@pytest.mark.parametrize("size", [4, FLAT.weights_bytes - 1, FLAT.weights_bytes + 1])
def test_blob_of_another_length_is_refused(size: int) -> None:
    whole = bytes(FLAT.weights_bytes)

    for parts in ([bytes(size), whole], [whole, bytes(size)]):
        with pytest.raises(LayoutMismatch):
            merge(FLAT, [(blob, 1) for blob in parts])


def test_missing_slot_is_an_error_rather_than_a_smaller_mean() -> None:
    merger = Merger(FLAT, FP32)
    feed = merger.fold(0, 10)
    feed(weights().tobytes())
    feed.close()

    with pytest.raises(ValueError, match=r"slot 2 cannot come after \[0\]"):
        merger.finish(2, 10, into=bytearray(FLAT.weights_bytes), outer=Outer(), outer_state=None)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 2), (1, 0, 2)])
def test_the_first_two_slots_may_come_in_any_order(order: tuple[int, ...]) -> None:
    layout = make_layout(("n", (), "int64", "buffer"), ("w", (1000,), "float32", "param"))
    parts = [
        (np.int64(slot).tobytes() + weights().tobytes(), 3 * slot + 1) for slot in range(len(order))
    ]

    assert merge(layout, parts, order=order) == merge(layout, parts)


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 2, 1), (1, 2, 0)])
def test_no_other_order_is_taken(order: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot come after"):
        merge(FLAT, [(weights().tobytes(), 1)] * 3, order=order)


@pytest.mark.parametrize("piece", [1, 7, 1000, 2**20])
def test_pieces_of_any_size_make_the_same_bits(piece: int) -> None:
    layout = make_layout(
        ("n", (), "int64", "buffer"),
        ("h", (31,), "float16", "param"),
        ("w", (40_000,), "float32", "param"),
        ("m", (5,), "bool", "buffer"),
    )
    if piece == 1:
        layout = make_layout(("h", (3,), "float16", "param"), ("w", (50,), "float32", "param"))
    parts = []
    for slot in range(3):
        blob = b""
        for tensor in layout.moving:
            values = RNG.normal(size=tensor.num_elements) if tensor.kind == "param" else [1]
            blob += (
                np.resize(np.asarray(values), tensor.num_elements).astype(tensor.dtype).tobytes()
            )
        parts.append((blob, 10 + slot))
    outer = Outer(name="nesterov", lr=0.7, momentum=0.9)

    assert merge(layout, parts, outer=outer, piece=piece) == merge(layout, parts, outer=outer)


@pytest.mark.parametrize("num_slots", [1, 2, 5])
def test_differences_in_bfloat16_move_float32_weights(num_slots: int) -> None:
    layout = make_layout(("m", (3,), "float32", "buffer"), ("w", (1000,), "float32", "param"))
    start = np.concatenate([np.ones(3, np.float32), weights(1.0)])
    steps = [weights(0.01) for _ in range(num_slots)]
    parts, exact = [], np.zeros(1000)
    for slot, step in enumerate(steps):
        sent = (step.view(np.uint32) >> 16).astype(np.uint16)
        buffer = np.full(3, slot, np.float32)
        parts.append((buffer.tobytes() + sent.tobytes(), slot + 1))
        exact += (slot + 1) * (sent.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    total = sum(n for _, n in parts)

    merged, _ = merge(layout, parts, start=start.tobytes(), wire=WireFormat("bf16"))

    found = np.frombuffer(merged, np.float32)
    expected = (exact / total + start[3:]).astype(np.float32)
    np.testing.assert_array_max_ulp(found[3:], expected, maxulp=1)
    mean = sum(slot * (slot + 1) for slot in range(num_slots)) / total
    np.testing.assert_allclose(found[:3], mean, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_get_a_float32_master(dtype: str) -> None:
    layout = make_layout(("w", (2,), dtype, "param"))
    if dtype == "float16":
        blobs = [np.array([v, v], np.float16).tobytes() for v in (1.0, 1.0 + 2**-10)]
    else:
        blobs = [np.array([v] * 2, np.uint16).tobytes() for v in (0x3F80, 0x3F81)]

    merged, _ = merge(layout, [(blob, 1) for blob in blobs])

    half_step = 2**-11 if dtype == "float16" else 2**-8
    assert np.frombuffer(merged, np.float32).tolist() == [1.0 + half_step] * 2


def test_float64_weights_stay_float64() -> None:
    layout = make_layout(("w", (1,), "float64", "param"))
    value = np.array([1 / 3])

    merged, _ = merge(layout, [(value.tobytes(), 3)])

    assert merged == value.tobytes()
