"""What a load came to: shown as tables, kept as JSON and as a picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.benchmarks.report import Draw, Row, machine_facts, save_picture, series
from scripts.loads.traces import Share
from scripts.loads.verdicts import Outcome

#: A share may be off by so much.
TOLERANCE = 0.15


@dataclass(frozen=True, kw_only=True)
class ShareRow:
    """The share of a job, or of all jobs of a weight together.

    Attributes:
        name: Whose.
        share: What it got, and its due.
        allowed_s: Worker-seconds that it may be off by.
    """

    name: str
    share: Share
    allowed_s: float

    @property
    def is_fair(self) -> bool:
        """Whether it got its due, as nearly as can be."""
        return abs(self.share.got_s - self.share.due_s) <= self.allowed_s

    def to_wire(self) -> dict[str, Any]:
        """The row as JSON-able values."""
        return {
            "name": self.name, "got_s": self.share.got_s, "due_s": self.share.due_s,
            "off": self.share.off, "allowed_s": self.allowed_s, "fair": self.is_fair,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What one load came to.

    Attributes:
        name: The load.
        counted: What exactly was counted, for people.
        jobs: What became of each job.
        shares: Who got how much of the workers' time; empty if nobody had to share.
        judges_shares: Whether an unfair share is a fault. Over a few seconds shares are chance:
            they come in whole turns, and how many fit depends on the machine.
        series: Whatever else was measured.
        facts: About this run.
        faults: What is wrong with the load as a whole.
        draw: The picture.
    """

    name: str
    counted: Sequence[str]
    jobs: Sequence[Outcome]
    shares: Sequence[ShareRow] = ()
    judges_shares: bool = True
    series: Sequence[Row] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[str] = ()
    draw: Draw

    @property
    def all_faults(self) -> list[str]:
        """Everything that is wrong, for people."""
        unfair = [row for row in self.shares if self.judges_shares and not row.is_fair]
        return [
            *self.faults,
            *(f"job {job.job_id} ({job.shape}): {fault}" for job in self.jobs
              for fault in job.faults),
            *(f"{row.name} got {row.share.got_s:.1f} s of the workers' time, was due"
              f" {row.share.due_s:.1f} s" for row in unfair),
        ]  # fmt: skip

    @property
    def waits(self) -> list[Row]:
        """How long jobs waited."""
        traces = [job.trace for job in self.jobs if job.trace]
        first = [t.first_wait_s for t in traces]
        longest = [t.longest_wait_s for t in traces]
        named = {"submission to first slot": first, "longest time without a worker": longest}
        return [series(name, "s", v) for name, v in named.items() if v]

    def show(self, console: Console) -> None:
        """Print the tables."""
        for key, value in {**machine_facts(), **self.facts}.items():
            console.print(f"{key:<10} {value}", highlight=False)
        console.print(self._jobs_table())
        if self.shares:
            console.print(self._shares_table())
        console.print(self._series_table())
        for line in self.counted:
            console.print(f"- {line}", highlight=False)
        verdict = (
            f"[red]{len(self.all_faults)} faults[/]" if self.all_faults else "[green]passed[/]"
        )
        console.print(f"load {self.name}: {verdict}")
        for fault in self.all_faults:
            console.print(f"[red]error:[/] {fault}", highlight=False)

    def write(self, folder: Path) -> list[Path]:
        """Write ``load-NAME.json`` and ``.png``, replacing older ones, and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        data, picture = (folder / f"load-{self.name}{end}" for end in (".json", ".png"))
        data.write_text(json.dumps(self.to_wire(), indent=1) + "\n", "utf-8")
        save_picture(picture, self.draw)
        return [data, picture]

    def to_wire(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {
            "load": self.name,
            "facts": {**machine_facts(), **self.facts},
            "counted": list(self.counted),
            "passed": not self.all_faults,
            "faults": self.all_faults,
            "jobs": [job.to_wire() for job in self.jobs],
            "shares": [row.to_wire() for row in self.shares],
            "series": [*self.waits, *self.series],
        }

    def _jobs_table(self) -> Table:
        table = Table(title=f"load {self.name}", title_justify="left")
        for heading in ("job", "shape"):
            table.add_column(heading)
        for heading in ("weight", "epochs", "took s", "first s", "longest s", "workers", "again"):
            table.add_column(heading, justify="right")
        for heading in ("state", "audit, weights"):
            table.add_column(heading)
        for job in self.jobs:
            waits = (job.trace.first_wait_s, job.trace.longest_wait_s) if job.trace else (0.0, 0.0)
            good = "1x" + (", same bits" if job.bits == "same" else "")
            table.add_row(
                job.job_id, job.shape, str(job.weight), str(job.epochs), f"{job.elapsed_s:.1f}",
                *(f"{wait:.2f}" for wait in waits), str(job.workers), str(job.retries), job.state,
                f"[red]{job.faults[0]}[/]" if job.faults else good,
            )  # fmt: skip
        return table

    def _shares_table(self) -> Table:
        table = Table(title="shares while all jobs wanted workers", title_justify="left")
        table.add_column("whose")
        for heading in ("due, worker-s", "got", "off"):
            table.add_column(heading, justify="right")
        table.add_column("")
        for row in self.shares:
            off = f"{100 * row.share.off:+.1f} %"
            verdict = "[green]fair[/]" if row.is_fair else "[red]unfair[/]"
            if row.is_fair and abs(row.share.off) > TOLERANCE:
                verdict = "fair: less than a turn"
            table.add_row(
                row.name, f"{row.share.due_s:.1f}", f"{row.share.got_s:.1f}", off, verdict
            )
        return table

    def _series_table(self) -> Table:
        table = Table("measured", title="times", title_justify="left")
        for heading in ("median", "p95", "max", "of"):
            table.add_column(heading, justify="right")
        table.add_column("unit")
        for s in (*self.waits, *self.series):
            values = (s["median"], s["p95"], s["high"])
            table.add_row(
                s["name"], *(f"{v:.3g}" for v in values), str(len(s["values"])), s["unit"]
            )
        return table
