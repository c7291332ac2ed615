"""What a user may choose for a training, each option declared once. Pure.

To add an option to ``kubeml train``, add one field to ``TrainOptions``, and use it where it matters
(``spec.warmup``)::

    warmup: Annotated[
        int,
        Option("--warmup", help="Steps of warm-up.", check=partial(check_int, low=0, high=1000)),
    ] = 0

From that field come the flag of ``kubeml train`` with its type, default and help text
(``kubeml.cli.options``), the keyword of ``Client.train`` for callers, for type checkers and for
``help(Client.train)`` (``kubeml.client.submission``), the field of ``JobSpec`` that is written to
S3, and the check of its range. What two options may not be together is said in ``JobSpec.check``.
A field needs a default, so that the specs of older versions can still be read.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, MISSING, dataclass
from functools import partial
from inspect import get_annotations
from typing import Annotated, Any

from kubeml.validation import check_between, check_choice, check_int, check_number
from kubeml.weights.wire_format import WIRES

MAX_PARALLELISM = 256
MAX_EPOCHS = 100_000
MAX_BATCH = 1_000_000
MAX_WORKERS = 100_000
MAX_PRIORITY = 100

OPTIMIZER_STATES = ("reset", "local", "carry")
OUTER_OPTIMIZERS = ("mean", "nesterov", "slowmo")
#: What chooses N where the job is not static; see ``kubeml.scheduling.policies``.
POLICIES = ("efficiency", "throughput")
DEVICES = ("cpu", "gpu")

#: Refuses a value, by the name of its option.
Check = Callable[[str, Any], None]


class Option:
    """What a field says of itself beside its type and default; stands in its ``Annotated``.

    Args:
        flag: The flag's name, by which errors call the option: ``--batch``, ``--hedge/--no-hedge``.
        short: A second name: ``-b``.
        help: What it means, in a line.
        metavar: What ``--help`` shows for the value, instead of its type.
        check: Refuses values out of range.
        unchecked: The one value that needs no check.
        cli_default: The flag's default, where it is another than the field's.
        in_cli: Whether ``kubeml train`` has a flag for it; else it is a keyword alone.
    """

    def __init__(
        self,
        flag: str,
        short: str = "",
        *,
        help: str,  # noqa: A002 - typer's word
        metavar: str | None = None,
        check: Check | None = None,
        unchecked: Any = MISSING,
        cli_default: Any = MISSING,
        in_cli: bool = True,
    ) -> None:
        self.flags = (flag, short) if short else (flag,)
        #: What errors call it.
        self.name = flag.split("/", maxsplit=1)[0]
        self.help = help
        self.metavar = metavar
        self.cli_default = cli_default
        self.in_cli = in_cli
        self._check = check
        self._unchecked = unchecked

    def check(self, value: object) -> None:
        """Refuse a value out of range.

        Raises:
            InvalidOption: It is.
        """
        if self._check is not None and value != self._unchecked:
            self._check(self.name, value)


def options_of(kind: type) -> dict[str, Option]:
    """The options of a class, by the names of its fields.

    A field that a subclass declares again, with a narrower type, keeps the option it had.
    """
    found: dict[str, Option] = {}
    for base in reversed(kind.__mro__):
        for name, hint in get_annotations(base).items():
            for note in getattr(hint, "__metadata__", ()):
                if isinstance(note, Option):
                    found[name] = note
    return found


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How to train. The names are the keywords of ``Client.train`` and the fields of ``JobSpec``.

    ``JobSpec`` is the same with every value settled: where a range of slots or nothing may be
    asked for here, a number stands there. Only what the spec of every version has is without a
    default: a record that lacks it is none.
    """

    epochs: Annotated[
        int,
        Option(
            "--epochs",
            "-e",
            help="Passes over the training set.",
            cli_default=1,
            check=partial(check_int, low=1, high=MAX_EPOCHS),
        ),
    ]
    batch_size: Annotated[
        int,
        Option(
            "--batch", "-b", help="Rows per step.", check=partial(check_int, low=1, high=MAX_BATCH)
        ),
    ]
    lr: Annotated[
        float,
        Option(
            "--lr",
            help="Learning rate, self.lr in the function.",
            check=partial(check_number, above=0.0),
        ),
    ]
    parallelism: Annotated[
        int | str,
        Option(
            "--parallelism",
            "-p",
            metavar="N|FLOOR:CEILING",
            help="Slots: 4 to begin with (with --static: always), or 2:8, beginning with 2.",
            check=partial(check_int, low=1, high=MAX_PARALLELISM),
        ),
    ] = 2
    max_parallelism: Annotated[
        int | None, Option("--max-parallelism", help="Ceiling of slots; 16 unless given.")
    ] = None
    min_parallelism: Annotated[
        int,
        Option(
            "--parallelism (its floor)",
            in_cli=False,
            help="Floor of slots, where the parallelism is no range.",
        ),
    ] = 1
    static: Annotated[bool, Option("--static", help="Keep the slots as they are.")] = False
    policy: Annotated[
        str,
        Option(
            "--policy",
            cli_default=None,
            check=partial(check_choice, choices=POLICIES),
            help="What else chooses the slots of an epoch: efficiency or throughput.",
        ),
    ] = "efficiency"
    deadline_s: Annotated[
        float,
        Option(
            "--deadline",
            in_cli=False,
            help="The deadline as a number of seconds; 0: none.",
            check=partial(check_number, above=0.0),
            unchecked=0,
        ),
    ] = 0.0
    max_workers: Annotated[
        int,
        Option(
            "--max-workers",
            help="Workers to use at a time; 0: any number.",
            check=partial(check_int, low=0, high=MAX_WORKERS),
        ),
    ] = 0
    priority: Annotated[
        int,
        Option(
            "--priority",
            help="Weight where jobs share workers: 2 gets twice 1.",
            check=partial(check_int, low=1, high=MAX_PRIORITY),
        ),
    ] = 1
    hedge: Annotated[
        bool, Option("--hedge/--no-hedge", help="Let idle workers train copies of slow slots.")
    ] = True
    k: Annotated[
        int,
        Option(
            "--K",
            help="Steps between two merges; -1: once per epoch.",
            unchecked=-1,
            check=partial(check_int, low=1, high=2**31, also="-1 (one merge per epoch)"),
        ),
    ] = -1
    validate_every: Annotated[
        int,
        Option(
            "--validate-every",
            help="Epochs between validations; 0: the last.",
            check=partial(check_int, low=0, high=MAX_EPOCHS),
        ),
    ] = 1
    goal_accuracy: Annotated[
        float,
        Option(
            "--goal-accuracy",
            help="End when a validation reaches it (percent).",
            check=partial(check_between, high=100.0, expected="a percentage from 0 to 100"),
        ),
    ] = 0.0
    seed: Annotated[
        int | None,
        Option(
            "--seed",
            help="Fixes weights, shuffling and augmentation.",
            check=partial(check_int, low=0, high=2**63 - 1),
        ),
    ] = 0
    shuffle: Annotated[bool, Option("--shuffle/--no-shuffle", help="Shuffle rows each epoch.")] = (
        True
    )
    optimizer_state: Annotated[
        str,
        Option(
            "--optimizer-state",
            help="Between rounds: reset, local or carry.",
            check=partial(check_choice, choices=OPTIMIZER_STATES),
        ),
    ] = "reset"
    outer: Annotated[
        str,
        Option(
            "--outer",
            help="Outer optimizer: mean, nesterov or slowmo.",
            check=partial(check_choice, choices=OUTER_OPTIMIZERS),
        ),
    ] = "mean"
    outer_lr: Annotated[
        float,
        Option("--outer-lr", help="Its learning rate.", check=partial(check_number, above=0.0)),
    ] = 1.0
    outer_momentum: Annotated[
        float,
        Option(
            "--outer-momentum",
            help="Its momentum.",
            check=partial(check_between, below=1.0, expected="a number from 0 up to below 1"),
        ),
    ] = 0.0
    wire: Annotated[
        str,
        Option(
            "--wire",
            help="Contributions: fp32, or bf16 differences of half the bytes.",
            check=partial(check_choice, choices=WIRES),
        ),
    ] = "fp32"
    overlap: Annotated[bool, Option("--overlap", help="Train on while a merge is under way.")] = (
        False
    )
    device: Annotated[
        str,
        Option(
            "--device",
            help="Workers to train on: cpu or gpu.",
            check=partial(check_choice, choices=DEVICES),
        ),
    ] = "cpu"
    max_errors: Annotated[
        int,
        Option(
            "--max-errors",
            help="Failures of a slot before the job fails.",
            check=partial(check_int, low=1, high=1000),
        ),
    ] = 3

    def check_each(self) -> None:
        """Refuse a value out of range, naming its flag; each by itself.

        Raises:
            InvalidOption: The first one found.
        """
        for name, option in options_of(type(self)).items():
            option.check(getattr(self, name))


@dataclass(frozen=True)
class TrainRequest(TrainOptions):
    """What ``Client.train`` and ``kubeml train`` are called with: what to train, and how.

    A user may leave out two options that a spec may not.
    """

    function: Annotated[str, Option("--function", "-f", help="Function to train.")]
    dataset: Annotated[str, Option("--dataset", "-d", help="Dataset to train it on.")]
    _: KW_ONLY
    batch_size: int = 64
    lr: float = 0.01
    job_id: Annotated[
        str | None, Option("--id", help="An id of your own; it can be used once.")
    ] = None
    deadline: Annotated[
        str | float | None,
        Option("--deadline", help="End in this time, if possible: 90s, 30m, 2h."),
    ] = None
