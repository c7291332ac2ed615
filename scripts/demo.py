"""The demo: what the README's first command does, step by step, with the `kubeml` command."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHADES = " .:-=+*#%@"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a set is trained, and the accuracy (percent) that it must reach."""

    epochs: int
    batch: int
    slots: int
    k: int
    goal: float


# Merging seldom and over four slots steadies the result on so few digits.
SUBSET = Recipe(epochs=10, batch=16, slots=4, k=64, goal=96.0)
FULL = Recipe(epochs=5, batch=64, slots=2, k=16, goal=98.5)


def main() -> int:
    """Run the demo and return its exit code."""
    options = parse()
    use_own_stack(ROOT / ".kubeml-demo")
    data = Path(options.full) if options.full else ROOT / "scripts/data/mnist_subset.npz"
    if not data.is_file():
        print(f"error: {data} does not exist", file=sys.stderr)
        return 2
    recipe = FULL if options.full else SUBSET
    started = time.monotonic()
    code = 1
    try:
        kubeml("up", "--workers", str(options.workers))
        code = train_and_infer(data, recipe)
    except subprocess.CalledProcessError as err:
        code = err.returncode
    except KeyboardInterrupt:
        code = 130
    finally:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        kubeml("down", check=False)
    print(f"the demo took {time.monotonic() - started:.0f} s")
    return code


def use_own_stack(home: Path) -> None:
    """Let every command that follows use a stack of the demo's own, whatever is set outside."""
    for name in list(os.environ):
        if name.startswith(("KUBEML_", "AWS_")):
            del os.environ[name]
    os.environ["KUBEML_HOME"] = str(home)
    for number in STOP_SIGNALS:
        signal.signal(number, interrupt)


def interrupt(*_: object) -> None:
    """Whatever asks for the demo's end: as Ctrl-C, so that the stack is stopped, too."""
    raise KeyboardInterrupt


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--full", metavar="FILE.npz", help="the complete MNIST set")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def train_and_infer(data: Path, recipe: Recipe) -> int:
    """Upload, create, train, infer, compare."""
    put_dataset(data)
    put_function(ROOT / "scripts/examples/lenet/lenet.py")
    command = [
        "train", "--function", "lenet", "--dataset", "mnist", "--epochs", str(recipe.epochs),
        "--batch", str(recipe.batch), "--lr", "0.01", "--K", str(recipe.k),
        "--parallelism", str(recipe.slots), "--static", "--optimizer-state", "carry", "--follow",
    ]  # fmt: skip
    show(command)
    job_id = kubeml(*command, capture=True).strip()
    kubeml("history", "get", "--id", job_id)
    rows = json.loads(kubeml("history", "get", "--id", job_id, "--json", capture=True))
    compare_digits(job_id, data)
    accuracy = rows[-1]["accuracy"]
    print(f"\naccuracy on the test digits: {accuracy:.2f} % (expected: {recipe.goal} % or more)")
    return 0 if accuracy >= recipe.goal else 1


def put_dataset(data: Path) -> None:
    """Upload the digits, replacing what an earlier run left."""
    if "mnist" in kubeml("dataset", "list", "-q", capture=True).split():
        kubeml("dataset", "delete", "--name", "mnist", "--yes")
    kubeml(
        "dataset", "create", "--name", "mnist",
        "--traindata", f"{data}:x_train", "--trainlabels", f"{data}:y_train",
        "--testdata", f"{data}:x_test", "--testlabels", f"{data}:y_test",
    )  # fmt: skip


def put_function(code: Path) -> None:
    """Create the function, or update it if an earlier run left one."""
    there = "lenet" in kubeml("function", "list", "-q", capture=True).split()
    kubeml("function", "update" if there else "create", "--name", "lenet", "--code", str(code))


def compare_digits(job_id: str, data: Path, *, count: int = 6) -> None:
    """Infer a few test digits and draw them with what was predicted."""
    with np.load(data, allow_pickle=False) as arrays:
        digits, labels = arrays["x_test"][:count], arrays["y_test"][:count]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "digits.json"
        file.write_text(json.dumps(digits.tolist()))
        answer = kubeml("infer", "-n", job_id, "--datafile", str(file), capture=True)
    predicted = json.loads(answer)
    print()
    for row in range(2, 27, 2):
        print("  ".join(picture_row(digit, row) for digit in digits))
    titles = [
        f"true {label}, predicted {guess}{'' if label == guess else '  <- wrong'}"
        for label, guess in zip(labels, predicted, strict=True)
    ]
    print("  ".join(f"{title:<22}" for title in titles))


def picture_row(digit: np.ndarray, row: int) -> str:
    """Two rows of a digit's pixels as one line of characters."""
    pixels = digit[row : row + 2, 3:25].mean(axis=0)
    return "".join(SHADES[int(p) * len(SHADES) // 256] for p in pixels)


def kubeml(*arguments: str, capture: bool = False, check: bool = True) -> str:
    """Run the `kubeml` command, showing what is run."""
    if not capture:
        show(arguments)
    done = subprocess.run(
        ["kubeml", *arguments], check=check, text=True,
        stdout=subprocess.PIPE if capture else None,
    )  # fmt: skip
    return done.stdout or ""


def show(arguments: Sequence[str]) -> None:
    """Show a command that is about to be run."""
    print("$ kubeml " + " ".join(arguments), flush=True)


if __name__ == "__main__":
    sys.exit(main())
