"""Project modules as syntax trees: the names that a module defines and imports. No module is imported for this."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.ClassDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
ABOVE_LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop, ast.alias)
LEAVES = frozenset({*ABOVE_LEAVES, *(kind for above in ABOVE_LEAVES for kind in above.__subclasses__())})
Root = tuple[Path, frozenset[str] | None]
"""A folder with modules of the project, and the names of its packages that belong to the project (None: all)."""
Imported = tuple[str, str]
"""What an imported name refers to: the module, and the name in it ("" for the module itself)."""


@dataclass(eq=False)
class Unit:
    """One top-level statement of a module, and the names that it binds."""

    module: Module
    node: ast.stmt
    names: list[str]
    effect: bool  # whether it does more than bind names; it then counts whenever its module is imported


@dataclass(eq=False)
class Module:
    """A module of the project: its statements, and what its names refer to."""

    name: str
    package: str
    roots: tuple[Root, ...]
    units: list[Unit] = field(default_factory=list)
    bound: dict[str, list[Unit]] = field(default_factory=dict)
    imports: dict[str, Imported] = field(default_factory=dict)
    starred: list[str] = field(default_factory=list)  # modules imported with `from ... import *`


def read(path: Path) -> str:
    """The text of a source file. All source files are read here."""
    return path.read_text(encoding="utf-8-sig")


@lru_cache(maxsize=4096)
def locate(name: str, roots: tuple[Root, ...]) -> Path | None:
    """The file of a module below one of `roots`; the folder of a package without `__init__.py`; None if not found."""
    for root, packages in roots:
        if packages is not None and name.split(".")[0] not in packages:
            continue
        place = root.joinpath(*name.split("."))
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                return path
        if place.is_dir() and any(place.glob("*.py")):
            return place
    return None


@lru_cache(maxsize=1024)
def load(name: str, roots: tuple[Root, ...]) -> Module | None:
    """The module `name`; None if it does not belong to the project."""
    path = locate(name, roots)
    if path is None:
        return None
    package = name if path.is_dir() or path.name == "__init__.py" else name.rpartition(".")[0]
    module = Module(name, package, roots)
    for node in _run(_parsed("" if path.is_dir() else read(path)).body):
        for given in walk(node):
            if isinstance(given, (ast.Import, ast.ImportFrom)):
                _note(given, module)
        if isinstance(node, (ast.Import, ast.ImportFrom)) or text_only(node):
            continue
        unit = Unit(module, node, list(dict.fromkeys(binds([node]))), _acts(node))
        module.units.append(unit)
        for bound in unit.names:
            module.bound.setdefault(bound, []).append(unit)
    return module


def imported(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, Imported]]:
    """(name, what it refers to) for each name of one import statement in a module of `package`; ("*", ...) for all."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.split(".")[0]
            yield (alias.asname, (alias.name, "")) if alias.asname else (top, (top, ""))
        return
    base = node.module or ""
    if node.level:
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, *filter(None, [base])])
    for alias in node.names:
        yield alias.asname or alias.name, (base, alias.name)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and all nodes in it, except those inside its functions and classes."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        if not isinstance(one, SCOPES):
            waiting += _children(one)


def binds(body: Sequence[ast.AST]) -> Iterator[str]:
    """The names that statements bind in their own scope, without imported names."""
    for node in (inner for statement in body for inner in _own_scope(statement)):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
            yield node.id
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.name
        elif isinstance(node, ast.MatchMapping) and node.rest:
            yield node.rest


def text_only(node: ast.stmt) -> bool:
    """Whether a statement is a docstring, `...`, or a name with a type hint and no value."""
    return (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) or (
        isinstance(node, ast.AnnAssign) and node.value is None
    )


def _own_scope(node: ast.AST) -> Iterator[ast.AST]:
    """Like `walk`, but of a comprehension only the targets of `:=`: they belong to the enclosing scope."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, COMPREHENSIONS):
            yield from (part.target for part in ast.walk(one) if isinstance(part, ast.NamedExpr))
            continue
        yield one
        if not isinstance(one, SCOPES):
            waiting += _children(one)


def _children(node: ast.AST) -> list[ast.AST]:
    """The child nodes of a node in reverse order. Much faster than ast.iter_child_nodes."""
    kind, own = type(node), node.__dict__
    if kind in LEAVES:
        return []
    found: list[ast.AST] = []
    for name in kind._fields:
        value = own.get(name)
        if isinstance(value, list):
            found += [one for one in value if isinstance(one, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    found.reverse()
    return found


@lru_cache(maxsize=1024)
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _run(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported."""
    for node in body:
        test = node.test.left if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) else None
        asked = ast.unparse(test or node.test) if isinstance(node, ast.If) else ""
        if asked in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__"):
            assert isinstance(node, ast.If)
            yield from _run(node.orelse)
        else:
            yield node


def _note(node: ast.Import | ast.ImportFrom, module: Module) -> None:
    for name, what in imported(node, module.package):
        if name == "*":
            module.starred.append(what[0])
        else:
            module.imports[name] = what


def _acts(node: ast.stmt) -> bool:
    """Whether a statement may change something besides the names that it binds."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return False
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return not all(isinstance(t, (ast.Name, ast.Tuple, ast.List, ast.Starred)) for t in targets)
    return any(
        not isinstance(
            part,
            (ast.Import, ast.ImportFrom, ast.Pass, ast.Try, ast.ExceptHandler, ast.Name, ast.expr_context, ast.alias),
        )
        for part in walk(node)
    )
