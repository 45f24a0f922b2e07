"""The settings of a backbone as a mapping, for methods that depend on a setting which not every model has."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def by_name(settings: Any) -> dict[str, Any]:
    """{name: value} of the dataclass of a backbone's settings."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}
