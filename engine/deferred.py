"""Import modules that name torch without importing torch: it is brought in when something of it is first used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands for a module that has not been imported, and imports it when an attribute is asked for."""

    def __getattr__(self, name: str) -> Any:
        known = sys.modules
        if known.get(self.__name__) is self:
            del known[self.__name__]
        return getattr(import_module(self.__name__), name)


@contextmanager
def deferred(*names: str) -> Iterator[None]:
    """While this is open, `import NAME` binds a stand-in; `from NAME import ...` imports the module at once.

    A module that is already imported is left as it is. Afterwards sys.modules holds no stand-in, so that code that asks
    whether NAME has been imported gets the right answer.
    """
    later = {name: _Later(name) for name in names if name not in sys.modules}
    sys.modules.update(later)
    try:
        yield
    finally:
        for name, module in later.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
