"""Case 21: partitions, half-open links, latency and lost replies."""

import threading

import pytest

from tests.faults.pool import FaultPool, longest_pause
from tests.faults.tcp_proxy import TcpProxy
from tests.integration.conftest import wait_for_round

#: From the end of the fault to progress.
BOUND_S = 20.0


@pytest.fixture
def own_link(pool: FaultPool) -> TcpProxy:
    """A way to the state server that one worker alone takes."""
    return TcpProxy(pool.state.plan.valkey_port)


def start_on(pool: FaultPool, link: TcpProxy) -> str:
    """Put a worker on a link of its own in the healthy one's place; the other stays."""
    url = pool.linked(state=link).state_url
    return pool.start_victim("", KUBEML_STATE_URL=url)


@pytest.mark.full
@pytest.mark.parametrize("fault", ["cut", "half-open"])
def test_case_21_one_worker_cut_off(pool: FaultPool, own_link: TcpProxy, fault: str) -> None:
    name = start_on(pool, own_link)
    job = pool.submit()
    wait_for_round(job, epoch=2, round_number=1)

    if fault == "cut":
        own_link.cut(refuse=True)
    else:
        own_link.stall()
    healed = threading.Timer(5.0, own_link.heal)
    healed.start()

    pool.check(job)
    healed.join()
    assert longest_pause(job) < BOUND_S
    # It is of use again once the link is there.
    pool.cluster.kill("worker")
    pool.submit(epochs=1).wait(60)
    assert pool.cluster.processes[name].poll() is None


@pytest.mark.full
def test_case_21_everybody_cut_off_from_the_state_server(pool: FaultPool) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=1, round_number=2)

    pool.state_link.cut(refuse=True)
    healed = threading.Timer(3.0, pool.state_link.heal)
    healed.start()

    pool.check(job)
    assert longest_pause(job) < 3.0 + BOUND_S


@pytest.mark.full
def test_case_21_half_open_link_to_the_state_server(pool: FaultPool) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=1, round_number=2)

    pool.state_link.stall()
    healed = threading.Timer(4.0, pool.state_link.heal)
    healed.start()

    pool.check(job)
    assert longest_pause(job) < 4.0 + BOUND_S


@pytest.mark.full
def test_case_21_latency(pool: FaultPool) -> None:
    pool.state_link.slow_down(0.02)

    pool.check(pool.submit(), within_s=100)


@pytest.mark.full
def test_case_21_lost_replies(pool: FaultPool) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=1, round_number=1)

    # Each was carried out; who hears nothing calls again, and must be told the same.
    pool.state_link.lose_replies(60)

    pool.check(job)
    assert pool.state_link.replies_to_lose == 0
