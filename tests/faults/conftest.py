"""One pool for all cases; every test finds it in good health."""

from collections.abc import Iterator

import pytest

from tests.faults.pool import FaultPool


@pytest.fixture(scope="session")
def running_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultPool]:
    pool = FaultPool(tmp_path_factory.mktemp("faults"))
    try:
        pool.start()
        yield pool
    finally:
        pool.close()


@pytest.fixture
def pool(running_pool: FaultPool) -> FaultPool:
    """The pool, healed."""
    running_pool.heal()
    return running_pool
