"""torch's compiler, left out until somebody wants it.

Every optimizer of torch imports ``torch._dynamo``, only to say that it is not to be compiled: 800
modules, 50 MB and more than a second in the first job of every worker process. As long as nothing
is compiled, what it does for them is nothing. So something that does nothing stands in for it, and
becomes the real module as soon as anything else of it is asked for: by ``torch.compile``, say.
"""

import importlib.util
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo"

#: The attribute where torch keeps what ``disable`` has made of a function.
_KEPT = "__dynamo_disable"


def defer_compiler() -> bool:
    """Let the stand-in take the compiler's place in this process.

    Returns:
        Whether it has; not if the compiler was imported before, or is no part of this torch.
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
    """The module object of ``torch._dynamo``: two functions at first, the whole once it is loaded.

    It stays the same object. What the loading defines stands in the object's own dictionary, and
    so goes before the methods here.
    """

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        # No __path__: who asks for it imports a submodule, and that loads the whole.
        self.__spec__ = spec
        self._lock = threading.RLock()
        self._is_loading = False
        self._taken: list[Any] = []

    def graph_break(self, *_: Any, **__: Any) -> None:
        """Do nothing: it is for code that is being compiled."""

    def disable(self, function: Any, *_: Any, **__: Any) -> Any:
        """Return the function as it is: nothing is compiled yet."""
        self._taken.append(function)
        return function

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._is_loading:
                # The module's own code looks for what it has not defined yet.
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
            # From now on it matters: the next call asks the real `disable`.
            vars(function).pop(_KEPT, None)
        self.__class__ = ModuleType  # type: ignore[assignment]
