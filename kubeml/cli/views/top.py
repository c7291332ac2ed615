"""The pool as tables that fit a screen, for ``kubeml top``. Pure.

Columns and rows are left out until the rest fits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kubeml.cli.views.follow import duration, many
from kubeml.pool.view import PoolJob, PoolQueue, PoolView, PoolWorker

T = TypeVar("T")

#: No column of a screen is wider than this: ids and names may have up to 63 characters.
_MAX_CELL = 28

#: Texts are not cut below this while there is another column to leave out.
_MIN_TEXT = 12
_GAP = 2
_BAR = 10

#: The rows that jobs and workers get at least on a low screen; then the queues are left out.
_MIN_ROWS = 6


@dataclass(frozen=True)
class _Column(Generic[T]):
    """A column of a table.

    Attributes:
        title: Its heading.
        cell: Returns its text for a row.
        rank: A column of rank 0 stays on every screen; of the others the highest goes first.
        is_text: Whether it is aligned left, and may be cut if there is no other way.
    """

    title: str
    cell: Callable[[T], str]
    rank: int = 0
    is_text: bool = False


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _percent(part: float | None) -> str:
    return "-" if part is None else f"{part * 100:.0f}%"


def _bar(part: float | None) -> str:
    filled = int((part or 0.0) * _BAR)
    return "█" * filled + "░" * (_BAR - filled)


def _of(number: int, total: int) -> str:
    return f"{number}/{total or '-'}"


def _or_dash(value: object) -> str:
    return "-" if value in {None, ""} else str(value)


def _device(worker: PoolWorker) -> str:
    return f"{worker.device} {worker.gpu}".rstrip()


_JOBS = (
    _Column[PoolJob]("JOB", lambda job: job.id, is_text=True),
    _Column[PoolJob]("FUNCTION", lambda job: job.function or "-", rank=5, is_text=True),
    _Column[PoolJob]("STATE", lambda job: job.shown_state or "-", is_text=True),
    _Column[PoolJob]("EPOCH", lambda job: _of(job.epoch, job.epochs)),
    _Column[PoolJob]("ROUND", lambda job: _of(job.round, job.rounds), rank=7),
    _Column[PoolJob]("", lambda job: _bar(job.progress), rank=9),
    _Column[PoolJob]("DONE", lambda job: _percent(job.progress), rank=1),
    _Column[PoolJob]("N", lambda job: str(job.slots or "-"), rank=2),
    _Column[PoolJob]("W", lambda job: str(job.workers), rank=1),
    _Column[PoolJob]("SHARE", lambda job: _percent(job.share), rank=6),
    _Column[PoolJob]("SAMPLES/S", lambda job: _number(job.samples_per_s)),
    _Column[PoolJob]("EPOCH ETA", lambda job: duration(job.epoch_left_s), rank=8),
    _Column[PoolJob]("ETA", lambda job: duration(job.left_s)),
    _Column[PoolJob]("WAIT", lambda job: duration(job.oldest_wait_s), rank=4),
)

#: An additional column of jobs, shown while one is PENDING.
_REASON = _Column[PoolJob]("REASON", lambda job: job.reason, rank=10, is_text=True)

_WORKERS = (
    _Column[PoolWorker]("WORKER", lambda worker: worker.name, is_text=True),
    _Column[PoolWorker]("HOST", lambda worker: _or_dash(worker.host), rank=5, is_text=True),
    _Column[PoolWorker]("DEVICE", _device, rank=2, is_text=True),
    _Column[PoolWorker]("DOES", lambda worker: worker.stage, is_text=True),
    _Column[PoolWorker]("JOB", lambda worker: _or_dash(worker.job), is_text=True),
    _Column[PoolWorker]("EPOCH", lambda worker: str(worker.epoch or "-"), rank=3),
    _Column[PoolWorker]("ROUND", lambda worker: _or_dash(worker.round), rank=3),
    _Column[PoolWorker]("SLOT", lambda worker: _or_dash(worker.slot), rank=1),
    _Column[PoolWorker]("TRY", lambda worker: _or_dash(worker.attempt), rank=4),
    _Column[PoolWorker]("FOR", lambda worker: duration(worker.for_s), rank=1),
    _Column[PoolWorker]("SAMPLES/S", lambda worker: _number(worker.samples_per_s)),
)

_QUEUES = (
    _Column[PoolQueue]("QUEUE", lambda queue: queue.name, is_text=True),
    _Column[PoolQueue]("MESSAGES", lambda queue: str(queue.messages)),
    _Column[PoolQueue]("PROCESSES", lambda queue: str(queue.workers)),
)


def screen(
    view: PoolView, *, width: int | None, height: int | None = None, trouble: str = ""
) -> RenderableType:
    """Return the whole picture, no wider and no higher than the screen.

    Args:
        view: The pool.
        width: Columns of the screen; None: it is no screen, so nothing is left out or cut.
        height: Lines of the screen; None: as many as are needed.
        trouble: Why the picture is an old one; "" if it is not.
    """
    # A queue without workers and without messages says nothing.
    queues = [queue for queue in view.queues if queue.workers or queue.messages]
    room = None
    if height is not None:
        # Room is needed for the first line and three headings, each after an empty line.
        room = height - 7 - len(queues)
        if room < _MIN_ROWS:
            room, queues = height - 5, []
    job_rows, worker_rows = _shares(room, len(view.jobs), len(view.workers))
    job_columns = (*_JOBS, _REASON) if any(job.reason for job in view.jobs) else _JOBS
    parts: list[RenderableType] = [
        _first_line(view, width, trouble),
        Text(),
        *_section(job_columns, view.jobs, width, job_rows, empty="no jobs under way"),
        Text(),
        *_section(_WORKERS, view.workers, width, worker_rows, empty="no workers"),
    ]
    if queues:
        parts += [Text(), *_section(_QUEUES, queues, width, None, empty="")]
    return Group(*parts)


def _first_line(view: PoolView, width: int | None, trouble: str) -> Text:
    at = datetime.fromtimestamp(view.at, UTC).astimezone().strftime("%H:%M:%S")
    idle = sum(1 for worker in view.workers if worker.stage == "idle")
    facts = f"{many(len(view.jobs), 'job')}, {many(len(view.workers), 'worker')} ({idle} idle)"
    line = Text.assemble(("kubeml top", "bold"), f"  {at}  {facts}")
    if trouble:
        line.append(f"  {trouble}", style="bold red")
    if width is not None:
        line.truncate(width, overflow="ellipsis")
    return line


def _shares(room: int | None, jobs: int, workers: int) -> tuple[int | None, int | None]:
    """Return how many lines jobs and workers get: half each, or what the other leaves."""
    if room is None:
        return None, None
    half = max(1, room // 2)
    for_jobs = max(1, min(max(1, jobs), max(half, room - max(1, workers))))
    return for_jobs, max(1, room - for_jobs)


def _section(
    columns: Sequence[_Column[T]],
    items: Sequence[T],
    width: int | None,
    lines: int | None,
    *,
    empty: str,
) -> list[RenderableType]:
    """Return a table of so many lines at most, below its heading; the last says what is missing."""
    shown = items if lines is None or len(items) <= lines else items[: lines - 1]
    rows = [[column.cell(item) for column in columns] for item in shown]
    widths = _widths(columns, rows, width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for index, cells in widths.items():
        column = columns[index]
        table.add_column(
            Text(column.title),
            justify="left" if column.is_text else "right",
            no_wrap=True,
            overflow="ellipsis",
            width=cells,
        )
    for row in rows:
        table.add_row(*(Text(row[index]) for index in widths))
    if not items:
        return [table, Text(empty, style="dim")]
    if len(shown) < len(items):
        return [table, Text(f"… and {len(items) - len(shown)} more", style="dim")]
    return [table]


def _widths(
    columns: Sequence[_Column[T]], rows: Sequence[Sequence[str]], width: int | None
) -> dict[int, int]:
    """Return the columns that fit, each with its width. Long texts are cut before one goes."""
    kept = list(range(len(columns)))
    whole = {index: _natural(columns[index].title, rows, index) for index in kept}
    if width is None:
        return whole
    while True:
        widths = {index: min(_MAX_CELL, whole[index]) for index in kept}
        texts = [index for index in kept if columns[index].is_text]
        spare = width - sum(widths.values()) - _GAP * (len(kept) - 1)
        least_needed = max(kept, key=lambda index: columns[index].rank)
        floor = _MIN_TEXT if columns[least_needed].rank else 1
        while spare < 0 and max(widths[index] for index in texts) > floor:
            widths[max(texts, key=lambda index: widths[index])] -= 1
            spare += 1
        if spare >= 0 or columns[least_needed].rank == 0:
            return widths
        kept.remove(least_needed)


def _natural(title: str, rows: Sequence[Sequence[str]], index: int) -> int:
    return max(len(title), *(len(row[index]) for row in rows), 1)
