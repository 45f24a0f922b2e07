"""The prompts of a run: a list, a file, or the menu's own set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from conf.errors import ConfigError, nearest
from conf.prompt_files import CONF, DIMENSIONS, Entry, entries_of

FOR_A_CLAIM = 5  # prompts that an interval and a verdict need at least (reports/settings_check.py, LEAST_PROMPTS)


@dataclass
class Prompts:
    """The prompts of a run: from a list, from a file, or from both if both are given (conf/prompt_files.py)."""

    models: list[str] = field(default_factory=list)  # the models that the menu's own set is made for
    file: str = ""  # text with a prompt per line, a list of VBench (.json), or a folder with a text per dimension
    list: list[str] = field(default_factory=list)
    dimension: str = ""  # only the prompts of this dimension of VBench; "": of all
    limit: int | None = None  # use only the first so many; 0: all; null: all, or menu_limit of the menu's set
    menu: str = ""  # the file of the menu's own set; ignored if a list is given
    menu_limit: int = 0  # number of prompts of the menu's own set if no limit is given; 0: all

    def __post_init__(self) -> None:
        for name in ("limit", "menu_limit"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"prompts.{name}={getattr(self, name)}: want 0 (all prompts) or more")
        if self.dimension and self.dimension not in DIMENSIONS:
            raise ConfigError(f"prompts.dimension={self.dimension} is unknown{nearest(self.dimension, [*DIMENSIONS])}")


@dataclass(frozen=True)
class Chosen:
    """The prompts of a run, and where they are from."""

    texts: list[str]  # in order
    available: int  # prompts before a limit
    source: str  # for a message: the file, "prompts.list", or both
    of_menu: bool  # from the menu's own set, not from a file or a list of the user


def read_prompts(prompts: Prompts) -> list[str]:
    """The prompts of a run, in order. Raises ConfigError if there are none or if the file cannot be read."""
    return chosen(prompts).texts


def chosen(prompts: Prompts) -> Chosen:
    """The prompts of a run with their source. Raises ConfigError as `read_prompts`.

    A limit holds for every set, and must not exceed the number of prompts. The menu's own number (menu_limit) holds
    only for the menu's set, and is a number at most.
    """
    own_list, of_menu = list(prompts.list), bool(prompts.menu) and prompts.file == prompts.menu
    from_file = bool(prompts.file) and not (own_list and of_menu)
    found = [Entry(text) for text in own_list] + (entries_of(prompts.file) if from_file else [])
    if not found:
        raise ConfigError("no prompts: give prompts.file=FILE or prompts.list=['a red circle moving left']")
    source = " and ".join([*(["prompts.list"] if own_list else []), *([prompts.file] if from_file else [])])
    texts = [entry.text for entry in found if not prompts.dimension or prompts.dimension in entry.dimensions]
    if not texts:
        raise ConfigError(
            f"prompts.dimension={prompts.dimension}, but {source} names no prompt of it; want a list that names the "
            "dimension of each prompt, e.g. VBench_full_info.json or prompts=natural"
        )
    if (prompts.limit or 0) > len(texts):
        raise ConfigError(
            f"prompts.limit={prompts.limit}, but {source} has {counted(len(texts))}; "
            f"want at most {len(texts)}, or prompts.limit=0 for all"
        )
    of_menu = of_menu and not own_list
    number = prompts.limit if prompts.limit is not None else prompts.menu_limit * of_menu
    return Chosen(texts[: number or None], len(texts), source, of_menu)


def counted(number: int) -> str:
    """
    >>> counted(1), counted(2)
    ('1 prompt', '2 prompts')
    """
    return f"{number} prompt{'s' * (number != 1)}"


@cache
def sets() -> dict[str, Sequence[str]]:
    """The menu's own sets, each with the models that it is made for."""
    found: dict[str, Sequence[str]] = {}
    for path in sorted((CONF / "prompts").glob("*.yaml")):
        content: Any = OmegaConf.load(path)
        found[path.stem] = [str(name) for name in content.get("models") or ()]
    return found


def set_for(model: str) -> str:
    """The name of the menu's set for this model, e.g. `natural` for `skyreels`; "" if no set names the model."""
    return next((name for name, models in sets().items() if model in models), "")
