"""Quotes the texts of a command line, so that Hydra's grammar does not interpret them.

`results=/tmp/a#b`, `results=2026_10_07` and `results='~/x'` mean folders with exactly these names, and `${x}` in a
prompt is not an interpolation. An ambiguous text is refused, and the message says how to write it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from conf.errors import ConfigError

TEXTS = frozenset(
    {  # settings whose value is a literal text
        "results",
        "into",
        "prompts.file",
        "model.prefix",
        "model.checkpoint",
        "model.negative_prompt",
        "logger.project",
        "logger.group",
    }
)
LISTS = {"seeds": "0,1,2", "prompts.list": '"first prompt","second"'}  # list setting: example
VALUED = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p")  # a value follows
SWEEPING = ("-m", "--multirun")
_parser = OverridesParser.create()


def words(arguments: Sequence[str]) -> list[str]:
    """The command line with every text quoted for Hydra. Raises ConfigError for an ambiguous word.

    >>> words(["results=/tmp/a#b", 'prompts.list=["${x}"]', "seeds=[1]"])
    ['results="/tmp/a#b"', 'prompts.list=["\\\\${x}"]', 'seeds=[1]']
    """
    sweeping = any(a in SWEEPING or a.startswith("experiment=") for a in arguments)
    found, before = [], ""
    for argument in arguments:
        _decodable(argument)
        plain = argument.startswith("-") or "=" not in argument or before in VALUED
        found.append(argument if plain else _word(argument, sweeping))
        before = argument
    by_hand = _prompts_by_hand(arguments)
    own_file = "prompts.file" in by_hand and "prompts.menu" not in by_hand
    return [*found, "prompts.menu=''"] if own_file else found  # so it is not the menu's own set


def _prompts_by_hand(arguments: Sequence[str]) -> dict[str, str]:
    """The settings of the prompts on the command line. Raises ConfigError if they contradict each other."""
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.lstrip("+").partition("=")
        if not (equals and key.startswith("prompts.")):
            continue
        if key in given:
            raise ConfigError(f"{key} is given twice ({_short(given[key], 40)} and {_short(value, 40)}); give it once")
        given[key] = value
    limit, most = given.get("prompts.limit"), given.get("prompts.menu_limit")
    if most is not None and (limit is not None or {"prompts.file", "prompts.list"} & set(given)):
        also = f" beside prompts.limit={limit}" * (limit is not None)
        raise ConfigError(
            f"prompts.menu_limit={most}{also}: it limits only a set of the menu that has no other limit; give only "
            f"prompts.limit={limit or most}"
        )
    if re.sub(r"\s", "", given.get("prompts.list", "")) == "[]" and not given.get("prompts.file"):
        raise ConfigError(f"prompts.list=[] has no prompts; write at least one, e.g. {_list('prompts.list')}")
    return given


def quoted(text: str) -> str:
    """A text in double quotes, escaped for Hydra's grammar.

    >>> quoted('say "a"')
    '"say \\\\"a\\\\""'
    """
    return '"' + re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + (m[2] and '\\"'), text, flags=re.S) + '"'


def literal(value: Any) -> Any:
    """Plain values in which every `${` of a text is escaped, so that OmegaConf finds no interpolation.

    >>> literal({"list": ["${x}", 1]})
    {'list': ['\\\\${x}', 1]}
    """
    if isinstance(value, dict):
        return {key: literal(one) for key, one in value.items()}
    if isinstance(value, list):
        return [literal(one) for one in value]
    return re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", value) if isinstance(value, str) else value


def _decodable(argument: str) -> None:
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{_short(argument)} is not valid in this terminal's encoding; type it as UTF-8, with PYTHONUTF8=1 in the "
            "environment"
        ) from None


def _word(argument: str, sweeping: bool) -> str:
    name, _, value = argument.partition("=")
    key = name.lstrip("+~")
    override, why = _parsed(argument)
    if key in TEXTS and not value.lstrip().startswith(('"', "'")):
        swept = override is not None and override.is_sweep_override()
        if swept and sweeping:
            return argument
        if swept or (override is None and "," in value and sweeping):
            shown = _shown(name, value)
            raise ConfigError(f"{_short(argument)}: a comma separates the values of a sweep; write {shown}")
        if override is None or not _interpolated(value):  # `results=out/${speed}` is an interpolation
            text = literal(value) if key == "model.negative_prompt" else value
            return f"{name}={quoted(text)}"
    if override is None:
        if key in LISTS:
            quotes = ', and \\" for a quote in it' if key == "prompts.list" else ""
            raise ConfigError(f"{_short(argument)} cannot be read ({why}); write it as {_list(key)}{quotes}")
        raise ConfigError(
            f"{_short(argument)} cannot be read ({why}); write a text with such characters as {_shown(name, value)}"
        )
    return _listed(argument, name, override) if key in LISTS and "~" not in name else argument


def _parsed(argument: str) -> tuple[Override | None, str]:
    try:
        return _parser.parse_override(argument), ""
    except HydraException as error:
        return None, _short(str(error).splitlines()[0], 80)


def _listed(argument: str, name: str, override: Override) -> str:
    """The word that sets a list, with literal texts; a sweep over lists is not changed."""
    key = name.lstrip("+")
    if override.is_sweep_override():
        values = list(override.sweep_string_iterator())
        if all(value.startswith("[") for value in values):
            return argument
        numbers = key == "seeds" and len(values) <= 32
        meant = shlex.quote(f"{key}=[{','.join(values)}]") if numbers else _list(key)
        raise ConfigError(f"{_short(argument)} is not a list; write {meant}")
    items: Any = override.value()
    if isinstance(items, str) and re.fullmatch(r"\\?\$\{.*\}", items):
        return argument  # an interpolation of a whole list
    if not isinstance(items, list):
        given = f"[{items}]" if key == "seeds" else f"[{quoted(str(items))}]"
        raise ConfigError(f"{_short(argument)} is not a list; write {shlex.quote(f'{key}={given}')}")
    if key != "prompts.list" or not all(isinstance(item, str) for item in items):
        return argument
    texts = (literal(re.sub(r"\\(\\*)\$\{", r"\1${", item)) for item in items)  # typed with or without a backslash
    return f"{name}=[{','.join(map(quoted, texts))}]"


def _interpolated(value: str) -> bool:
    return "${" in value


def _shown(name: str, value: str) -> str:
    """The setting as it has to be typed in a shell."""
    return shlex.quote(f"{name}={quoted(_short(value))}")


def _short(text: str, most: int = 160) -> str:
    """A text shortened to one line of a message."""
    line = " ".join(text.encode(errors="backslashreplace").decode().split())
    return line if len(line) <= most else f"{line[:most]}…"


def _list(key: str) -> str:
    return shlex.quote(f"{key}=[{LISTS[key]}]")
