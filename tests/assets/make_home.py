"""Make ``home-VERSION.tar.xz``: what a version of kubeml leaves in its KUBEML_HOME.

    python tests/assets/make_home.py

Run by the Python of an environment in which that version is installed. It uses the command line
alone, so it goes with any version. The archive holds ``home/``, as ``kubeml down`` left it but for
logs, caches and what every start writes anew, and ``told.json``: what the version's own commands
said of it. ``tests/integration/test_old_home.py`` says what is asked of a newer version.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent

#: Left out: logs and caches; what every start writes anew, which names folders and ports of this
#: machine; and what the S3 server keeps for its own maintenance.
LEFT_OUT = (
    "logs", "cache", "lock", "valkey/valkey.conf", "valkey/valkey.sock", "s3/*.sock",
    "s3/identities.json", "s3/data/mini.options", "s3/data/m[0-9]*", "s3/data/admin",
    "s3/data/worker",
)  # fmt: skip

TRAIN = [
    "--dataset", "points", "--epochs", "3", "--batch", "16", "--lr", "0.25", "--K", "4",
    "--parallelism", "2", "--static", "--optimizer-state", "carry", "--seed", "4",
]  # fmt: skip


def main() -> int:
    """Make it, beside this file, and print its name."""
    if os.environ.get("KUBEML_HOME_MACHINE") != "1":
        # The live state names the host: let it be one of no machine.
        own = f"hostname somewhere && KUBEML_HOME_MACHINE=1 exec {sys.executable} -P {__file__}"
        return subprocess.run(
            ["unshare", "--map-root-user", "--uts", "sh", "-c", own], check=False
        ).returncode
    with tempfile.TemporaryDirectory(prefix="made-by-kubeml-") as folder:
        work = Path(folder)
        for name in [name for name in os.environ if name.startswith(("KUBEML_", "AWS_"))]:
            del os.environ[name]
        os.environ["KUBEML_HOME"] = str(work / "home")
        os.environ["EXACT_PAUSE_S"] = "0.4"
        version = kubeml("--version").strip()
        kubeml("up", "--workers", "2")
        try:
            told = use(work)
        finally:
            kubeml("down")
        (work / "told.json").write_text(json.dumps({"version": version} | told, indent=1))
        strip(work / "home")
        require_no_trace_of_this_machine(work)
        archive = HERE / f"home-{version}.tar.xz"
        with tarfile.open(archive, "w:xz") as tar:
            for name in ("told.json", "home"):
                tar.add(work / name, name, filter=anonymous)
    print(archive)
    return 0


def use(work: Path) -> dict[str, Any]:
    """Do what people do, and return what the commands said in the end."""
    put_dataset(work)
    kubeml("function", "create", "--name", "exact", "--code", str(HERE / "exact.py"))
    done = kubeml("train", "--function", "exact", *TRAIN, "--follow").strip()
    stopped = begin()
    kubeml("task", "stop", stopped)
    wait(stopped, lambda now: now["state"] == "STOPPED")
    told = {
        "done": done,
        "stopped": stopped,
        "points": json.loads((work / "points.json").read_text()),
        "predictions": as_json(
            "infer", "-n", done, "--datafile", str(work / "points.json"), flag=()
        ),
        "functions": as_json("function", "list"),
        "datasets": as_json("dataset", "list"),
        "histories": as_json("history", "list"),
        "jobs": {job: of_job(job) for job in (done, stopped)},
    }
    # Under way as the stack goes down.
    return told | {"running": begin()}


def put_dataset(work: Path) -> None:
    """A separable set of points with whole coordinates in 8 dimensions and 3 classes."""
    rng = np.random.default_rng(0)
    centres = rng.integers(-3, 4, (3, 8))
    labels = rng.integers(0, 3, 480)
    data = (centres[labels] + rng.integers(-2, 3, (480, 8))).astype(np.float32)
    np.savez(
        work / "points.npz", x=data[:384], y=labels[:384], x_test=data[384:], y_test=labels[384:]
    )
    (work / "points.json").write_text(json.dumps(data[384:].tolist()))
    files = {
        "--traindata": "x",
        "--trainlabels": "y",
        "--testdata": "x_test",
        "--testlabels": "y_test",
    }
    given = [text for flag, name in files.items() for text in (flag, f"{work}/points.npz:{name}")]
    kubeml("dataset", "create", "--name", "points", *given)


def begin() -> str:
    """A job in the middle of its second epoch."""
    job = kubeml("train", "--function", "exact", *TRAIN).strip()
    wait(job, lambda now: (now["epoch"], now["round"]) >= (2, 1))
    return job


def of_job(job: str) -> dict[str, Any]:
    """What the commands say of a job that ended."""
    return {
        "show": as_json("task", "show", job),
        "history": as_json("history", "get", job),
        "audit": as_json("task", "audit", job),
        "explain": as_json("task", "explain", job),
        "logs": [json.loads(line) for line in kubeml("logs", "--id", job, "--json").splitlines()],
    }


def wait(job: str, is_so: Any) -> None:
    """Wait until what is shown of a job is so."""
    deadline = time.monotonic() + 60
    while not is_so(as_json("task", "show", job)):
        if time.monotonic() > deadline:
            raise TimeoutError(job)


def as_json(*arguments: str, flag: tuple[str, ...] = ("--json",)) -> Any:
    """What a command prints, parsed."""
    return json.loads(kubeml(*arguments, *flag))


def kubeml(*arguments: str) -> str:
    """Run the installed version's command."""
    print("$ kubeml " + " ".join(arguments), file=sys.stderr, flush=True)
    command = [sys.executable, "-P", "-m", "kubeml", *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def strip(home: Path) -> None:
    """Delete what is left out."""
    for pattern in LEFT_OUT:
        for path in home.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def require_no_trace_of_this_machine(work: Path) -> None:
    """Refuse to keep a file that names a folder of this machine."""
    names = {str(work), sys.prefix, str(HERE.parents[1]), str(Path.home())}
    files = [work / "told.json", *(path for path in (work / "home").rglob("*") if path.is_file())]
    for path in files:
        content = path.read_bytes()
        if found := [name for name in names if name.encode() in content]:
            raise ValueError(f"{path} names {found}")


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry of the archive, without who made it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    sys.exit(main())
