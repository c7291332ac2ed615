"""``scripts/load [NAME]``: run one load, or all of them; exit code 1 if anything is wrong."""

import argparse
import importlib
import json
import signal
import sys
from pathlib import Path
from types import ModuleType

from rich.console import Console

from scripts.benchmarks import paced, pool
from scripts.loads.report import LoadReport
from scripts.loads.verdicts import References

RESULTS = Path(__file__).parents[2] / "bench-results"
#: Of the tables, in columns, where nobody says how many there are.
WIDTH = 120

LOADS = ("crowd", "arrivals", "churn", "straggler")


def main() -> int:
    """Run what was asked for."""
    loads = {name: importlib.import_module(f"scripts.loads.{name}") for name in LOADS}
    if len(sys.argv) == 1:
        for name, module in loads.items():
            print(f"{name:<10}{(module.__doc__ or '').splitlines()[0]}")
        print(f"{'all':<10}All of them, one after the other.")
        return 0
    options = parse(loads)
    # However it is ended: as Ctrl-C, so that its processes are stopped, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = LOADS if options.name == "all" else (options.name,)
    # Its tables are wide: a file, or CI's log, has room for them.
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(stderr=options.json, width=width)
    reports: list[LoadReport] = []
    with pool.embedded_stack(workers=options.workers) as client:
        paced.put(client)
        references = References(client)
        for name in names:
            reports.append(loads[name].run(client, options, references))
            reports[-1].show(console)
            for path in reports[-1].write(options.out):
                print(path, file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps([report.to_wire() for report in reports], indent=1))
    return 1 if any(report.all_faults for report in reports) else 0


def parse(loads: dict[str, ModuleType]) -> argparse.Namespace:
    """Read the options; a load may have some of its own."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quick", action="store_true", help="CI size: all of it in 3 minutes")
    common.add_argument("--seed", type=int, default=0, help="fixes what is drawn at random")
    common.add_argument("--json", action="store_true", help="print the results as JSON")
    common.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="for the results")
    parser = argparse.ArgumentParser(prog="scripts/load", description=__doc__)
    parser.set_defaults(workers=2)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in loads.items():
        about = (module.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, parents=[common], help=about, description=about)
        if hasattr(module, "add_options"):
            module.add_options(command)
    everything = commands.add_parser("all", parents=[common], help="all of them")
    everything.set_defaults(jobs=None, epochs=None, minutes=None)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
