"""Imports a user's bundle so that neither side sees the other's modules.

A bundle may hold a ``tasks.py`` or ``utils.py``, and so may kubeml, its dependencies and other
bundles. Each load gets a private root package, and its modules run with an ``__import__`` of their
own that looks into the bundle first. ``sys.path`` is not touched. An import inside a function finds
the same modules later, in any thread.
"""

import builtins
import importlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

_PREFIX = "_kubeml_function_"
_counter = itertools.count()
_real_import = builtins.__import__


class IsolatedBundle:
    """The modules of one bundle, loaded once; ``close`` forgets them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._root = f"{_PREFIX}{next(_counter)}"
        package = ModuleType(self._root)
        package.__path__ = [str(directory)]
        sys.modules[self._root] = package
        _loaders[self._root] = self
        self.builtins = {**vars(builtins), "__import__": self._import}

    def module(self, name: str) -> ModuleType:
        """Import one of the bundle's modules, by the name it has in the bundle."""
        return importlib.import_module(f"{self._root}.{name}")

    def close(self) -> None:
        """Forget the modules."""
        _loaders.pop(self._root, None)
        for name in [n for n in sys.modules if n.split(".")[0] == self._root]:
            del sys.modules[name]

    def _holds(self, top: str) -> bool:
        if top == "kubeml":
            return False  # a file may have this name, but the import means the SDK
        return (self._directory / f"{top}.py").is_file() or any(
            (self._directory / top).glob("*.py")
        )

    def _import(
        self,
        name: str,
        globals_: Mapping[str, Any] | None = None,
        locals_: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or not self._holds(top):
            return _real_import(name, globals_, locals_, fromlist or (), level)
        module = self.module(name)
        if not fromlist:
            return self.module(top)
        for attribute in fromlist:
            if attribute != "*" and not hasattr(module, attribute) and hasattr(module, "__path__"):
                _try_submodule(f"{module.__name__}.{attribute}")
        return module


def _try_submodule(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as err:
        # If there is no such thing, `from package import attribute` fails later, and better.
        if err.name != name:
            raise


class _Loader(SourceFileLoader):
    """Runs a module with its bundle's ``__import__``."""

    def exec_module(self, module: ModuleType) -> None:
        bundle = _loaders[module.__name__.split(".")[0]]
        module.__dict__["__builtins__"] = bundle.builtins
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds the modules of loaded bundles, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX) or path is None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.origin)
        return spec


_loaders: dict[str, IsolatedBundle] = {}
sys.meta_path.insert(0, _Finder())
