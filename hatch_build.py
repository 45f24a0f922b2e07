"""Build hook: the project is installed from a checkout (`pip install -e .`), never as a wheel of its own.

The top-level packages are called `eval`, `models`, `store`, ... A wheel would put these names into the site-packages
of any environment, where they would hide packages of the same name.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class EditableOnly(BuildHookInterface):
    """Refuses every wheel that is not the link to a checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """`version` is "editable" or "standard". Raises RuntimeError for the second."""
        if version != "editable":
            raise RuntimeError(
                "scope-harness is not built as a wheel: its packages have names such as `eval` and `models`, which "
                "would hide others. Clone the repository and run `pip install -e .` (docs/install.md)"
            )
