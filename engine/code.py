"""Which code a method is: a fingerprint that changes when its source does, and not when anything else does."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from types import ModuleType

ALWAYS = ("engine.loop", "engine.visit")  # every video passes through these
SHARED = ("engine.history", "engine.forecast", "engine.discrepancy")  # and through these if its method uses them


def code_of(kind: type) -> str:
    """12 hex digits over the source of the class's modules, all that they import of their own folder, and the loop.

    The same whatever else the process has imported.
    """
    waiting = [base.__module__ for base in kind.__mro__ if base is not object]
    folders = {name.split(".")[0] for name in waiting} - {"engine"}
    found: set[str] = set(ALWAYS)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [n for n in _imported(sys.modules[name]) if n.split(".")[0] in folders or n in SHARED]
    text = "\n".join(_source(importlib.import_module(name)) for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _imported(module: ModuleType) -> set[str]:
    found = set()
    for value in vars(module).values():
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str) and name in sys.modules:
            found.add(name)
    return found


def _source(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        return module.__name__
