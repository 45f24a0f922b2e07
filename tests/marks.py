"""Which cases of a test are slow tests: `pytest -m slow` runs them, the test command of README.md leaves them out."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest


def some(cases: Mapping[str, Any], fast: Callable[[str], bool]) -> list[Any]:
    """The cases of a test by name, as pytest's parameters. Those whose name is not `fast` are slow tests."""
    return [pytest.param(case, id=name, marks=[] if fast(name) else [pytest.mark.slow]) for name, case in cases.items()]
