"""Leaves torch's compiler out of a worker until user code needs it.

Every optimizer of torch imports ``torch._dynamo`` only to say that it is not to be compiled. That
costs 800 modules, 50 MB and more than a second in the first job of every worker process. While
nothing is compiled, the module does nothing for the optimizers. So an object that does nothing
stands in for it, and becomes the real module as soon as any other part of it is used, for example
by ``torch.compile``.
"""

import importlib.util
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo"

#: The attribute where torch keeps the function that ``disable`` returned for a function.
_KEPT = "__dynamo_disable"


def defer_compiler() -> bool:
    """Let the stand-in take the compiler's place in this process.

    Returns:
        Whether it has. It has not if the compiler was imported before, or this torch has none.
    """
    import torch

    if _NAME in sys.modules:
        return False
    spec = importlib.util.find_spec(_NAME)
    if spec is None or spec.loader is None:
        return False
    module = _StandIn(spec)
    sys.modules[_NAME] = module
    vars(torch)["_dynamo"] = module
    return True


class _StandIn(ModuleType):
    """The module object of ``torch._dynamo``: two functions at first, all of it once it is loaded.

    It stays the same object. Loading puts its definitions into the object's own dictionary, so
    they take precedence over the methods here.
    """

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        # It has no __path__: importing a submodule asks for that, and so loads all of it.
        self.__spec__ = spec
        self._lock = threading.RLock()
        self._is_loading = False
        self._taken: list[Any] = []

    def graph_break(self, *_: Any, **__: Any) -> None:
        """Do nothing: only code that is being compiled needs it."""

    def disable(self, function: Any, *_: Any, **__: Any) -> Any:
        """Return the function as it is: nothing is compiled yet."""
        self._taken.append(function)
        return function

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._is_loading:
                # While it loads, the module's own code looks for names that it has not defined yet.
                raise AttributeError(f"module {_NAME!r} has no attribute {name!r}")
            if type(self) is _StandIn:
                self._load()
        return getattr(self, name)

    def _load(self) -> None:
        """Become the real module."""
        spec = self.__spec__
        if spec is None or spec.loader is None:  # never: it was made with one
            raise ImportError(f"{_NAME} cannot be loaded", name=_NAME)
        self._is_loading = True
        try:
            self.__path__ = list(spec.submodule_search_locations or ())
            self.__loader__, self.__file__, self.__package__ = spec.loader, spec.origin, spec.name
            spec.loader.exec_module(self)
        finally:
            self._is_loading = False
        for function in self._taken:
            # From now on `disable` matters: the next call must ask the real one.
            vars(function).pop(_KEPT, None)
        self.__class__ = ModuleType  # type: ignore[assignment]
