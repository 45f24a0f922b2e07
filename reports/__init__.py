"""Tables, figures and a page, built from the records alone; the same records give the same bytes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.report import read
    from reports.write import build

__all__ = ["build", "read"]
_WHERE = {"build": "reports.write", "read": "reports.report"}


def __getattr__(name: str) -> Any:
    """`build` and `read`, imported when they are used: plotting and tables take seconds."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
