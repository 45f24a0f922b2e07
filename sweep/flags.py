"""The words of the command line that are ours and not Hydra's: what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Flags:
    """What is printed besides the errors."""

    verbose: bool = False  # --verbose: all notes under the table, and the paper's lines
    quiet: bool = False  # --quiet: nothing
    json: bool = False  # --json: one JSON object a line, and nothing else
    version: bool = False  # --version: name and version, and nothing is done


def taken(arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    """The flags among the arguments, and the other arguments.

    >>> taken(["--json", "method=scope"])
    (Flags(verbose=False, quiet=False, json=True, version=False), ['method=scope'])
    """
    names = {f"--{name}": name for name in vars(Flags())}
    found = {names[argument]: True for argument in arguments if argument in names}
    return Flags(**found), [argument for argument in arguments if argument not in names]
