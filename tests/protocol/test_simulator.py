"""The round protocol under random faults keeps its invariants, and the simulator would notice."""

import random

import pytest
from redis import Redis

from tests.protocol.script_variants import weakened
from tests.protocol.sim_referee import Violation
from tests.protocol.simulator import simulate

NUM_SEEDS = 60
NUM_FRESH = 5

#: Seeds tried before a weakening counts as unnoticed; each of these is seen within a few.
MAX_TRIES = 25

#: Losses of all state hide what goes wrong within a generation.
SAME_GENERATION = {"flush": 0, "rollback": 0}


@pytest.mark.parametrize("first", range(0, NUM_SEEDS, 10))
def test_jobs_survive_random_faults(client: Redis, first: int) -> None:
    worlds = [simulate(client, seed) for seed in range(first, first + 10)]

    assert all(world.objects.end in {"DONE", "STOPPED"} for world in worlds)
    assert sum(sum(world.faults.values()) for world in worlds) > 100
    assert sum(world.referee.num_advances for world in worlds) > 20


@pytest.mark.parametrize("number", range(NUM_FRESH))
def test_jobs_survive_faults_that_nobody_saw_before(client: Redis, number: int) -> None:
    seed = random.SystemRandom().randrange(10**6, 10**9) + number

    # A failure prints the seed: `python -m tests.protocol.simulator --seed SEED` repeats it.
    assert simulate(client, seed).objects.end in {"DONE", "STOPPED"}


def test_a_seed_gives_the_same_run_again(client: Redis) -> None:
    first, second = (simulate(client, 7) for _ in range(2))

    assert first.faults == second.faults
    assert first.referee.answers == second.referee.answers
    assert first.ms == second.ms


#: Weakenings that the simulator notices, and the faults that bring each to light.
NOTICED = {
    "no generation check": {"flush": 3},
    "CONTRIB without rid check": {**SAME_GENERATION, "late": 3},
    "CONTRIB without lease check": {**SAME_GENERATION, "slow worker": 3},
    "CONTRIB keeps the lease": SAME_GENERATION,
    "ADVANCE without all slots": {**SAME_GENERATION, "hasty": 3},
    "ADVANCE without cid comparison": {**SAME_GENERATION, "misread": 4, "slow merge": 3},
    "ADVANCE without a look at the chunks": {**SAME_GENERATION, "expire": 6},
    "ADVANCE keeps the contributions": SAME_GENERATION,
    "ADVANCE keeps the optimizer states": SAME_GENERATION,
    "ADVANCE keeps no local weights": SAME_GENERATION,
    "ADVANCE keeps local weights that nobody asked for": SAME_GENERATION,
    "TAKE forgets the local weights": SAME_GENERATION,
    "TAKE hands out another slot's local weights": SAME_GENERATION,
    "ADVANCE wants all slots in the last round": SAME_GENERATION,
    "TAKE without lease check": SAME_GENERATION,
    "TAKE gives slots that are in": SAME_GENERATION,
    "leases outlive a clock that steps back": {**SAME_GENERATION, "jump": 8, "kill": 4},
    "dead participants count": {**SAME_GENERATION, "kill": 3},
    "BEAT without token check": {**SAME_GENERATION, "stall": 3},
    "KICK without id check": {**SAME_GENERATION, "late": 3, "misread": 3},
    "PLAN is not compared": {**SAME_GENERATION, "late": 6},
}


@pytest.mark.parametrize("name", NOTICED)
def test_the_simulator_notices_weakened_scripts(client: Redis, name: str) -> None:
    sources = weakened(name)

    def is_noticed(seed: int) -> bool:
        try:
            simulate(client, seed, sources, intensity=1.5, likelier=NOTICED[name])
        except Violation:
            return True
        return False

    assert any(is_noticed(seed) for seed in range(MAX_TRIES))
