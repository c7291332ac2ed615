"""A seeded simulator: the real scripts on a real server, everything around them simulated.

A scheduler lets one actor at a time make one call. Faults happen at random until a random
moment; from then on the job must end within a bound. ``sim_referee.py`` judges every call.

    python -m tests.protocol.simulator --seeds 1000
    python -m tests.protocol.simulator --seed 17
"""

import argparse
import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from redis import Redis

from brokers.settings import Settings
from brokers.state.scripts import script_sources
from tests.protocol.script_variants import weakened
from tests.protocol.sim_referee import Violation
from tests.protocol.sim_world import World


def simulate(
    client: Redis,
    seed: int,
    sources: Mapping[str, str] | None = None,
    *,
    intensity: float = 0.0,
    likelier: Mapping[str, float] = MappingProxyType({}),
) -> World:
    """Run one seed; with an ``intensity``, faults go on for long and are so many times as likely.

    Args:
        client: A client of the state server.
        seed: What makes this run differ from others.
        sources: The scripts; the real ones if None.
        intensity: Of all faults; 0 for a random one.
        likelier: How many times as likely single faults are.

    Raises:
        Violation: An invariant was broken; the message has the seed and the last calls.
    """
    scripts = script_sources() if sources is None else sources
    world = World(client, seed, scripts, intensity=intensity, likelier=likelier)
    try:
        world.run()
    except Violation as err:
        trace = "\n".join(world.trace)
        raise Violation(f"{trace}\nseed {seed} ({dict(world.faults)}): {err}") from err
    finally:
        world.clean_up()
    return world


@contextlib.contextmanager
def own_server() -> Iterator[Redis]:
    """A state server of this process's own."""
    from kubeml.stack.servers import ServerPlan, valkey_command, wait_for_valkey
    from tests.processes import running_server

    with tempfile.TemporaryDirectory() as folder:
        plan = ServerPlan.make()
        settings = plan.settings(Settings(home=Path(folder)))
        command = valkey_command(plan, Path(folder))
        with running_server(command, Path(folder) / "log") as process:
            wait_for_valkey(settings, within_s=20, is_up=lambda: process.poll() is None)
            with Redis.from_url(str(settings.state_url)) as client:
                yield client


def main(arguments: Sequence[str] | None = None) -> int:
    """Run many seeds by hand, or one with its trace."""
    parser = argparse.ArgumentParser(prog="python -m tests.protocol.simulator")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--intensity", type=float, default=0.0, help="of the faults")
    parser.add_argument("--weakened", help="with scripts weakened in this way")
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.seeds)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
    sources = weakened(options.weakened) if options.weakened else None
    failed, faults, answers = 0, Counter[str](), Counter[str]()
    with own_server() as client:
        for seed in seeds:
            try:
                world = simulate(client, seed, sources, intensity=options.intensity)
            except Violation as err:
                failed += 1
                sys.stdout.write(f"{err}\n\n")
            else:
                faults += world.faults
                answers.update(world.referee.answers)
    sys.stdout.write(
        f"faults: {dict(faults.most_common())}\nanswers: {dict(sorted(answers.items()))}\n"
    )
    sys.stdout.write(f"{len(seeds)} seeds, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
