"""The settings of a class and their defaults, read from its source, so that a menu is complete without importing torch.

Only what is plain in the source is read from it: `@dataclass` classes whose defaults are literals. A class that is
written in another way is imported, and its dataclass asked.
"""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from hydra.utils import get_class

from conf.classes import settings_of

OPEN = "???"  # OmegaConf's mark of a value that still has to be given
CONSTANTS = {"math.inf": math.inf, "-math.inf": -math.inf}
FACTORIES: dict[str, Any] = {"list": [], "dict": {}}


class _Unclear(Exception):
    """The source leaves open what the fields are."""


def defaults_of(target: str) -> dict[str, Any]:
    """Every setting of `module.Class` (of its `Settings`, where it has them) with its default; OPEN where it has none.

    Empty for a class that cannot be found: whoever instantiates it says so.

    >>> defaults_of("baselines.reduced_steps.ReducedSteps")
    {'fraction': '???'}
    """
    module, _, name = target.rpartition(".")
    try:
        return _written(module, name)
    except (_Unclear, SyntaxError, UnicodeDecodeError, RecursionError):
        return _imported(target)
    except (ImportError, OSError, ValueError):
        return {}


def _imported(target: str) -> dict[str, Any]:
    try:
        found: Any = get_class(target)
    except Exception:
        return {}
    kind = settings_of(found) or found
    if not is_dataclass(kind):
        return {}
    values = ((f, f.default if f.default_factory is MISSING else f.default_factory()) for f in fields(kind) if f.init)
    return {f.name: OPEN if value is MISSING else value for f, value in values}


def _written(module: str, name: str) -> dict[str, Any]:
    """What the source of `module` says of the class `name`. Raises _Unclear, and ImportError if it is not there."""
    if module.split(".")[0] in sys.stdlib_module_names:
        return {}  # a base such as abc.ABC
    tree = _tree(module)
    node = _bound(tree, name)
    if isinstance(node, ast.ImportFrom):
        return _written(*_origin(node, name, module))
    if not isinstance(node, ast.ClassDef):
        raise _Unclear(f"{module}.{name} is no plain class")
    for statement in node.body:
        if isinstance(statement, ast.Assign) and [ast.unparse(t) for t in statement.targets] == ["Settings"]:
            return _written(module, ast.unparse(statement.value))
        if isinstance(statement, ast.ClassDef) and statement.name == "Settings":
            raise _Unclear("settings of a nested class")
    return _inherited(module, node) | (deepcopy(_fields(node)) if _decorated(node) else {})


def _inherited(module: str, node: ast.ClassDef) -> dict[str, Any]:
    if node.keywords and any(word.arg == "metaclass" for word in node.keywords):
        raise _Unclear("a metaclass")
    bases = [ast.unparse(base) for base in node.bases]
    found = [own for base in bases if (own := _written(module, base))]
    if len(found) > 1:
        raise _Unclear("fields of several bases")
    return found[0] if found else {}


def _decorated(node: ast.ClassDef) -> bool:
    """Whether the class is a dataclass. Raises _Unclear for other decorators."""
    names = [ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list]
    if not {*names} <= {"dataclass", "dataclasses.dataclass"}:
        raise _Unclear("another decorator")
    return bool(names)


@lru_cache(maxsize=256)
def _fields(node: ast.ClassDef) -> dict[str, Any]:
    """The fields that a class itself names, with their defaults."""
    return dict(_own(node))


def _own(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            kind = ast.unparse(statement.annotation).strip("'\"")
            if "ClassVar" in kind:
                continue
            if "InitVar" in kind or "KW_ONLY" in kind:
                raise _Unclear(kind)
            yield statement.target.id, OPEN if statement.value is None else _value(statement.value)
        elif isinstance(statement, ast.If | ast.For | ast.With | ast.Try):
            raise _Unclear("fields under a condition")


def _value(node: ast.expr) -> Any:
    text = ast.unparse(node)
    if text in CONSTANTS:
        return CONSTANTS[text]
    try:
        return ast.literal_eval(node)
    except ValueError:
        pass
    given = {word.arg: word.value for word in node.keywords} if isinstance(node, ast.Call) else {}
    if text.startswith("field(") and [*given] == ["default_factory"]:
        factory = given["default_factory"]
        if ast.unparse(factory) in FACTORIES:
            return type(FACTORIES[ast.unparse(factory)])()
        if isinstance(factory, ast.Lambda):
            return _value(factory.body)
    raise _Unclear(text)


def _bound(tree: ast.Module, name: str) -> ast.stmt | None:
    """The one statement of a module that binds `name`. Raises _Unclear if there are several."""
    found = [node for node in tree.body if name in _names(node)]
    if len(found) != 1:
        raise _Unclear(f"{name} is bound in {len(found)} places")
    return found[0]


def _names(node: ast.stmt) -> set[str]:
    """What a class or a `from ... import` binds; other statements bind no class of ours."""
    if isinstance(node, ast.ClassDef):
        return {node.name}
    return {alias.asname or alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()


def _origin(node: ast.ImportFrom, name: str, module: str) -> tuple[str, str]:
    """Module and name that `from ... import name` takes it from."""
    package = module if _path(module).name == "__init__.py" else module.rpartition(".")[0]
    base = resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
    return base, next(alias.name for alias in node.names if (alias.asname or alias.name) == name)


def _tree(module: str) -> ast.Module:
    path = _path(module)
    return _parsed(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _parsed(path: Path, changed: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _path(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise ImportError(f"{module} has no source")
    return Path(spec.origin)
