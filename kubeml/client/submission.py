"""From what ``Client.train`` is called with to the spec of the job that is submitted.

``Client.train`` takes each option by its name, and names none of them itself: the signature that
type checkers, editors and ``help`` see is that of ``TrainRequest``, where they are declared.
"""

import functools
import inspect
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, get_type_hints

from brokers.wire import is_job_id
from kubeml.errors import InvalidOption
from kubeml.jobs.options import TrainOptions, TrainRequest, options_of
from kubeml.jobs.scale import asked_parallelism, parse_duration
from kubeml.jobs.spec import JobSpec

if TYPE_CHECKING:
    from brokers.shards.manifest import DatasetManifest
    from kubeml.catalog.functions import FunctionInfo

P = ParamSpec("P")
Request = TypeVar("Request")
Owner = TypeVar("Owner")
Result = TypeVar("Result")


def called_like(
    request: Callable[P, Request],
) -> Callable[[Callable[[Owner, Request], Result]], Callable[Concatenate[Owner, P], Result]]:
    """Let a method that takes a request be called with what the request is made of.

    Args:
        request: A dataclass of options. In the method's docstring, the line that describes its
            one argument gives way to a line for each of the options.

    Returns:
        A decorator. The method it makes raises ``InvalidOption`` for an option that there is not.
    """
    hints = get_type_hints(request)
    made_of = inspect.signature(request)
    known = [p.replace(annotation=hints[p.name]) for p in made_of.parameters.values()]

    def decorate(
        method: Callable[[Owner, Request], Result],
    ) -> Callable[Concatenate[Owner, P], Result]:
        @functools.wraps(method)
        def call(owner: Owner, /, *args: P.args, **kwargs: P.kwargs) -> Result:
            for name in kwargs:
                if name not in made_of.parameters:
                    raise InvalidOption(
                        option="options", got=repr(name), expected="an option of TrainOptions"
                    )
            made_of.bind(*args, **kwargs)  # a TypeError names what is missing, not our class
            return method(owner, request(*args, **kwargs))

        own = inspect.signature(method)
        itself = next(iter(own.parameters.values()))
        vars(call)["__signature__"] = own.replace(parameters=[itself, *known])
        call.__doc__ = _with_options(method.__doc__ or "", request)
        return call

    return decorate


def spec_of(request: TrainRequest, info: "FunctionInfo", manifest: "DatasetManifest") -> JobSpec:
    """The spec of a new job, every value settled and checked.

    Raises:
        InvalidOption: A value is out of range, or does not go with another.
    """
    settled: dict[str, Any] = {f.name: getattr(request, f.name) for f in fields(TrainOptions)}
    settled |= asked_parallelism(
        request.parallelism, request.max_parallelism, static=bool(request.static)
    )
    if request.deadline is not None:
        settled["deadline_s"] = parse_duration("--deadline", request.deadline)
    if request.seed is None:
        settled["seed"] = 0
    spec = JobSpec(
        id=new_job_id() if request.job_id is None else _checked_id(request.job_id),
        function=request.function,
        function_sha256=info.sha256,
        entry=info.entry,
        dataset=request.dataset,
        dataset_version=manifest.version,
        created_at=time.time(),
        **settled,
    )
    spec.check()
    spec.check_against_data(manifest.train.num_rows)
    return spec


def new_job_id() -> str:
    """An id that no other job has, for all anyone will ever see: 8 hexadecimal digits."""
    return uuid.uuid4().hex[:8]


def _checked_id(job_id: str) -> str:
    if not is_job_id(job_id):
        raise InvalidOption(
            option="--id", got=repr(job_id), expected="1 to 63 letters, digits or '-'"
        )
    return job_id


def _with_options(doc: str, request: Any) -> str:
    """A docstring whose one line under ``Args`` has become one line for each option."""
    options = options_of(request)
    names = inspect.signature(request).parameters
    return re.sub(
        r"(?<=Args:\n)( +).*\n",
        lambda line: "".join(f"{line[1]}{name}: {options[name].help}\n" for name in names),
        doc,
        count=1,
    )
