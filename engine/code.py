"""Which code a method is: a fingerprint that changes when its source does, and not when anything else does."""

from __future__ import annotations

import hashlib
import inspect
import sys
from types import ModuleType

NEUTRAL = ("engine.loop", "engine.visit", "engine.history", "engine.forecast", "engine.discrepancy")


def code_of(kind: type) -> str:
    """12 hex digits over the source of the class's modules, their siblings that they import, and the loop."""
    modules = {base.__module__ for base in kind.__mro__ if base is not object}
    for name in list(modules):
        modules |= {other for other in _imported(sys.modules[name]) if other.split(".")[0] == name.split(".")[0]}
    modules |= set(NEUTRAL) & set(sys.modules)
    text = "\n".join(_source(sys.modules[name]) for name in sorted(modules))
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
