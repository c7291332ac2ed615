"""``scripts/bench [NAME]``: run one benchmark, or list them all."""

import argparse
import importlib
import pkgutil
import signal
import sys
from pathlib import Path
from types import ModuleType

import scripts.benchmarks

RESULTS = Path(__file__).parents[2] / "bench-results"


def main() -> int:
    """Run what was asked for; the exit code says nothing of targets."""
    benchmarks = find()
    if len(sys.argv) == 1:
        for name, module in benchmarks.items():
            print(f"{name:<10}{module.__doc__.splitlines()[0]}")
        return 0
    options = parse(benchmarks)
    # However it is ended: as Ctrl-C, so that its processes are stopped, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    benchmarks[options.name].run(options)
    return 0


def find() -> dict[str, ModuleType]:
    """Name to module of every benchmark: the modules here that have a ``run``."""
    names = [info.name for info in pkgutil.iter_modules(scripts.benchmarks.__path__)]
    names.remove("__main__")
    modules = {name: importlib.import_module(f"scripts.benchmarks.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


def parse(benchmarks: dict[str, ModuleType]) -> argparse.Namespace:
    """Read the options; a benchmark may have some of its own."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quick", action="store_true", help="see that it works; measure nothing")
    common.add_argument("--repeat", type=int, metavar="N", help="turns of each contestant")
    common.add_argument("--mnist", type=Path, metavar="FILE.npz", help="the complete MNIST set")
    common.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="for the results")
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in benchmarks.items():
        about = module.__doc__.splitlines()[0]
        command = commands.add_parser(name, parents=[common], help=about, description=about)
        if hasattr(module, "add_options"):
            module.add_options(command)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
