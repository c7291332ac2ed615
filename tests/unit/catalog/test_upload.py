import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeml.catalog.upload import SHARD_BYTES, shard_counts


@settings(deadline=None)
@given(
    num_rows=st.integers(1, 200_000),
    row_bytes=st.integers(1, 4 * SHARD_BYTES).filter(lambda size: size > 64),
)
def test_shards_hold_every_row_in_nearly_equal_parts_of_bounded_size(
    num_rows: int, row_bytes: int
) -> None:
    counts = shard_counts(num_rows, row_bytes)

    assert sum(counts) == num_rows
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 1
    assert max(counts) == 1 or max(counts) * row_bytes <= SHARD_BYTES


@pytest.mark.parametrize("megabytes", [17, 33, 100, 2000])
def test_shards_are_of_8_to_16_mib_where_there_is_enough_data(megabytes: int) -> None:
    row_bytes = 1000

    sizes = [count * row_bytes for count in shard_counts(megabytes * 1_048_576 // 1000, row_bytes)]

    assert all(8 * 2**20 <= size <= 16 * 2**20 for size in sizes)
