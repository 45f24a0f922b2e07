"""The fingerprint of the code that computes the frames. It changes with the code, but not with comments or messages.

It starts at a class and at the denoising loop, and follows every name of the project that their code uses, however the
name is imported. docs/records.md lists what counts. Only source files are read, so the modules that a process has
imported make no difference.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.normal import Target, Text, normalise, resolve
from engine.source import Module, Root, Unit, load

OURS: Root = (Path(__file__).resolve().parents[1], frozenset({"engine", "models", "scope", "baselines"}))
INSTALLED = ("site-packages", "dist-packages")
LOOP = ("engine.loop", "generate")  # every video passes through it
OPAQUE = "engine.fingerprint"  # the code that makes the fingerprint is not part of it
BESIDE = frozenset(
    {  # members of models and methods that count cost, describe or check, and compute no frame
        "advice",
        "check",
        "counters",
        "decided_by",
        "footprint",
        "frame_borders",
        "frames_after",
        "knobs",
        "least_steps",
        "parameters",
        "peak_bytes",
        "plan_counts",
        "price",
        "prices",
        "requires",
        "sizes",
        "state",
        "weights_id",
    }
)
ROUNDS = 4  # depth of references up to which two pieces of code are distinguished by what they refer to


class CodeError(ValueError):
    """The source of a class cannot be read. The message names the class."""


@dataclass(frozen=True)
class Written:
    """A class of ours by its place in the sources, for who has not imported it."""

    module: str
    name: str

    @classmethod
    def at(cls, dotted: str) -> Written:
        """`package.module.Name`."""
        module, _, name = dotted.rpartition(".")
        return cls(module, name)


def code_of(kind: type | Written | Callable[..., Any]) -> str:
    """12 hex digits over the class of a method or backbone, the denoising loop, and all code that they use.

    For a function: over the function and the code that it uses. The result is cached per process. Raises CodeError if
    `kind` has no source file.
    """
    return code_of_any(kind)


@lru_cache(maxsize=256)
def code_of_any(kind: Any) -> str:
    """`code_of` with a cache. `kind` is typed Any because mypy does not take a method's class for hashable."""
    return _digest(_reached(kind))


def _reached(kind: type | Written | Callable[..., Any]) -> dict[Unit, Text]:
    """Every top-level statement that the frames may depend on, normalised."""
    roots = _roots(kind)
    family = _family(kind, roots)
    beside = _beside(family, roots)
    waiting: list[Target] = [
        *(_units(*LOOP, roots) if isinstance(kind, (type, Written)) else ()),
        *_units(*_place(kind), roots),
    ]
    found: dict[Unit, Text] = {}
    touched: set[Module] = set()
    while waiting:
        target = waiting.pop()
        if isinstance(target, Module):
            waiting += target.units
            waiting += _effects(target, touched)
        elif target not in found and target.module.name != OPAQUE:
            own = any((target.module.name, name) in family for name in target.names)
            found[target] = text = _text(target, beside if own else frozenset())
            waiting += text.targets
            for module in (target.module, *(load(name, roots) for name in text.imports)):
                waiting += _effects(module, touched)
    return found


def _effects(module: Module | None, touched: set[Module]) -> Iterable[Unit]:
    """The statements of a module, and of the modules it imports, that do more on import than bind names."""
    waiting, found = [module], []
    while waiting:
        one = waiting.pop()
        if one is None or one in touched or one.name == OPAQUE:
            continue
        touched.add(one)
        found += [unit for unit in one.units if unit.effect or _registered(unit)]
        names = {name for base, inner in one.imports.values() for name in (base, f"{base}.{inner}" if inner else base)}
        waiting += [load(name, one.roots) for name in sorted({*names, *one.starred})]
    return found


def _registered(unit: Unit) -> bool:
    """Whether a decorator of the project may register the definition somewhere."""
    decorators = getattr(unit.node, "decorator_list", ())
    return bool(decorators) and _text(unit, frozenset()).decorated


@lru_cache(maxsize=4096)
def _text(unit: Unit, without: frozenset[str]) -> Text:
    """The normalised text, once for all classes that use the unit."""
    return normalise(unit, without)


def _beside(family: Collection[tuple[str, str]], roots: tuple[Root, ...]) -> frozenset[str]:
    """The members of BESIDE that no other code of the classes uses, and that set no attribute of the object."""
    used: set[str] = set()
    for module, name in family:
        for unit in _units(module, name, roots, must=False):
            for member in unit.node.body if isinstance(unit.node, ast.ClassDef) else ():
                names = {getattr(member, "name", "")}
                attributes = [n for n in ast.walk(member) if isinstance(n, ast.Attribute) and _of_self(n.value)]
                if names & BESIDE and any(isinstance(n.ctx, ast.Store) for n in attributes):
                    used |= names
                if not names & BESIDE:
                    used |= {n.attr for n in attributes}
    return BESIDE - used


def _of_self(node: ast.expr) -> bool:
    return ast.unparse(node) in ("self", "cls", "super()")


def _units(module: str, name: str, roots: tuple[Root, ...], must: bool = True) -> list[Unit]:
    """The statements that define `name`; all statements of the module if none defines it."""
    source = load(module, roots)
    if source is None:
        if must:
            raise CodeError(f"{module}.{name} has no source file for its fingerprint; put it into a .py file")
        return []
    return source.bound.get(name) or (source.units if must else [])


def _family(kind: type | Written | Callable[..., Any], roots: tuple[Root, ...]) -> set[tuple[str, str]]:
    """(module, name) of a class and of every class that it derives from."""
    if isinstance(kind, Written):
        return _ancestors(kind.module, kind.name, roots)
    bases = kind.__mro__ if isinstance(kind, type) else ()
    return {(base.__module__, base.__qualname__.split(".")[0]) for base in bases}


def _ancestors(module: str, name: str, roots: tuple[Root, ...]) -> set[tuple[str, str]]:
    """The same from the sources alone, as far as they are the project's."""
    found = {(module, name)}
    for unit in _units(module, name, roots, must=False):
        for base in unit.node.bases if isinstance(unit.node, ast.ClassDef) else ():
            above = resolve(unit.module, base.id) if isinstance(base, ast.Name) else ""
            for target in () if isinstance(above, str) else above[0]:
                if not isinstance(target, Module):
                    found |= _ancestors(target.module.name, above[1], roots)
    return found


def _place(kind: type | Written | Callable[..., Any]) -> tuple[str, str]:
    if isinstance(kind, Written):
        return kind.module, kind.name
    module = kind.__module__
    if module == "__main__":  # a script: its module name is that of its file
        module = Path(str(getattr(sys.modules[module], "__file__", "") or "")).stem or module
    return module, kind.__qualname__.split(".")[0]


def _roots(kind: type | Written | Callable[..., Any]) -> tuple[Root, ...]:
    """The folders with modules of the project: ours, and those of a plug-in and of the classes it derives from."""
    found = [OURS]
    if isinstance(kind, Written):
        return (OURS,)
    for base in kind.__mro__ if isinstance(kind, type) else (kind,):
        file = getattr(sys.modules.get(base.__module__), "__file__", None)
        name = _place(base)[0]
        if not file or (base is not kind and _foreign(Path(file))):
            continue
        path = Path(file).resolve()
        folder = path.parents[len(name.split(".")) - (path.name != "__init__.py")]
        if folder != OURS[0] or name.split(".")[0] not in (OURS[1] or ()):
            found.append((folder, frozenset({name.split(".")[0]}) if folder.name in INSTALLED else None))
    return tuple(dict.fromkeys(found))


def _foreign(file: Path) -> bool:
    """Whether a file belongs to an installed library or to Python."""
    return any(part in INSTALLED for part in file.parts) or file.is_relative_to(sysconfig.get_path("stdlib"))


def _digest(reached: dict[Unit, Text]) -> str:
    """The hash of the set of texts and of the references between them. Order and place of the code do not matter."""
    marks = {unit: _hash(text.text) for unit, text in reached.items()}
    for _ in range(ROUNDS):
        marks = {
            unit: _hash(" ".join([marks[unit], *(_mark(t, marks) for t in text.targets)]))
            for unit, text in reached.items()
        }
    return _hash(" ".join(sorted(set(marks.values()))))[:12]


def _mark(target: Target, marks: dict[Unit, str]) -> str:
    units = target.units if isinstance(target, Module) else [target]
    return "+".join(sorted(marks[unit] for unit in units if unit in marks))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
