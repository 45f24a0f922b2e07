"""Source code as normalised text, without comments, formatting, docstrings, type hints and messages.

The text changes only when the computed result may change. A name of other project code becomes a mark, and that code is
listed beside the text. So the names and places of modules, functions and constants do not matter. Names from outside
the project are written in full.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field

from engine.source import COMPREHENSIONS, FUNCTIONS, Imported, Module, Unit, binds, imported, load, text_only, walk

Target = Unit | Module  # project code that a name refers to: a statement or a whole module
Found = tuple[list[Target], str]
"""The code that a name refers to, and its name in the module that defines it."""
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
TYPING_ONLY = ("typing.overload", "typing.override", "typing.final")
LOGGED = re.compile(r"print|warnings\.warn|(log|logger|logging)\.(debug|info|warning|error|exception|critical|log)")
SKIPPED = frozenset({"ctx", "kind", "type_comment", "type_params", "annotation", "returns"})


@dataclass
class _Scope:
    """The names bound in a function, comprehension or class body, and the imports inside it."""

    names: set[str]
    imports: dict[str, Imported] = field(default_factory=dict)
    of_class: bool = False  # a class body: the functions in it do not see its names
    fields: bool = False  # a class whose annotated names may become fields (dataclass, NamedTuple)


@dataclass
class Text:
    """The normalised text of one unit."""

    text: str = ""
    targets: list[Target] = field(default_factory=list)  # in the order of their marks
    imports: set[str] = field(default_factory=set)  # modules that are imported inside the unit
    decorated: bool = False  # a decorator of the project is applied, which may register the unit somewhere


def normalise(unit: Unit, without: Collection[str] = ()) -> Text:
    """The normalised text of a unit. Members of a class with a name in `without` are left out."""
    writer = _Writer(unit, frozenset(without))
    writer.found.text = writer.statement(unit.node)
    return writer.found


def resolve(module: Module, name: str, seen: frozenset[str] = frozenset()) -> Found | str:
    """What a global name of a module refers to: project code, or the full name of something outside the project."""
    if name in module.bound:
        return list(module.bound[name]), name
    if name in module.imports:
        return member(*module.imports[name], module, seen)
    for starred in module.starred:
        other = load(starred, module.roots)
        if other and starred not in seen and not isinstance(found := resolve(other, name, seen | {starred}), str):
            return found
    return name


def member(base: str, name: str, module: Module, seen: frozenset[str] = frozenset()) -> Found | str:
    """What `name` of the module `base` refers to; "" is the module itself."""
    full = f"{base}.{name}" if name else base
    other = load(base, module.roots)
    if other and name and full not in seen:
        found = resolve(other, name, seen | {full})
        if not isinstance(found, str):
            return found
        if name in other.imports:
            return found  # imported there from outside the project
    whole = load(full, module.roots)
    return ([whole], "") if whole else full


class _Writer:
    def __init__(self, unit: Unit, without: frozenset[str]) -> None:
        self.unit, self.without, self.found = unit, without, Text()
        self.scopes: list[_Scope] = []

    # --- statements ----------------------------------------------------------------------------------------------

    def statement(self, node: ast.stmt) -> str:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self._note(node)
            return ""
        if text_only(node) and not (isinstance(node, ast.AnnAssign) and self._is_field()):
            return ""
        if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and self._logs(node.value)):
            return ""
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            return self._definition(node)
        if isinstance(node, ast.AnnAssign):
            return self._annotated(node)
        if isinstance(node, ast.Raise):
            return f"Raise({self._wordless(node.exc)}, {self._wordless(node.cause)})"
        if isinstance(node, ast.Assert):
            return f"Assert({self.write(node.test)})"
        return self._fields(node)

    def body(self, nodes: Iterable[ast.stmt]) -> str:
        return "; ".join(filter(None, map(self.statement, nodes)))

    def _definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
        decorators = self._decorators(node)
        if decorators is None:
            return ""
        name = "" if node is self.unit.node else node.name
        if isinstance(node, ast.ClassDef):
            bases = self.write(node.bases) + self.write(node.keywords)
            members = node.body
            if self.without and node is self.unit.node:
                members = [one for one in node.body if self.without.isdisjoint(binds([one]))]
            with self._scope(set(binds(members)), True, bool(node.bases or node.decorator_list)):
                return f"{decorators}class {name}({bases}): {{{self.body(members)}}}"
        arguments = self.write(node.args)
        with self._scope(_parameters(node.args) | set(binds(node.body)) - _globals(node.body)):
            return f"{decorators}{type(node).__name__} {name}({arguments}): {{{self.body(node.body)}}}"

    def _decorators(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str | None:
        """The decorators as text; None for an overload, which is only for type checkers."""
        before, written = len(self.found.targets), [self.write(one) for one in node.decorator_list]
        if "typing.overload" in written:
            return None
        if node is self.unit.node and len(self.found.targets) > before:
            self.found.decorated = True
        return "".join(f"@{one} " for one in written if one not in TYPING_ONLY)

    def _is_field(self) -> bool:
        return bool(self.scopes) and self.scopes[-1].fields

    def _annotated(self, node: ast.AnnAssign) -> str:
        value = self.write(node.value) if node.value else ""
        if not self._is_field():
            return f"Assign(targets=[{self.write(node.target)}], value={value})"
        marker = re.match(r"(\w+\.)*(ClassVar|InitVar|KW_ONLY)\b", ast.unparse(node.annotation).strip("'\""))
        return f"field {marker[2] if marker else ''} {self.write(node.target)} = {value}"

    def _logs(self, call: ast.expr) -> bool:
        if not isinstance(call, ast.Call):
            return False
        return bool(LOGGED.fullmatch(ast.unparse(call.func)))

    def _wordless(self, node: ast.expr | None) -> str:
        """The raised expression without its message."""
        return self.write(_Wordless().visit(deepcopy(node))) if node is not None else ""

    # --- expressions ---------------------------------------------------------------------------------------------

    def write(self, node: object) -> str:
        """The text of any part of the tree."""
        if isinstance(node, list):
            statements = [n for n in node if isinstance(n, ast.stmt)]
            return f"[{self.body(statements) if statements else ', '.join(map(self.write, node))}]"
        if isinstance(node, ast.stmt):
            return self.statement(node)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._reference(node)
        if isinstance(node, ast.Constant):
            return self._constant(node.value)
        if isinstance(node, ast.Call) and len(node.args) == 2 and self._is_cast(node.func):
            return self.write(node.args[1])
        if isinstance(node, ast.Lambda):
            arguments = self.write(node.args)
            with self._scope(_parameters(node.args)):
                return f"Lambda({arguments}, {self.write(node.body)})"
        if isinstance(node, COMPREHENSIONS):
            targets = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
            with self._scope(targets):
                return self._fields(node)
        return self._fields(node) if isinstance(node, ast.AST) else repr(node)

    def _fields(self, node: ast.AST) -> str:
        parts = ((name, getattr(node, name, None)) for name in node._fields if name not in SKIPPED)
        given = [f"{name}={self.write(value)}" for name, value in parts if value is not None and value != []]
        return f"{type(node).__name__}({', '.join(given)})"

    def _constant(self, value: object) -> str:
        if isinstance(value, str) and DOTTED.fullmatch(value):
            base, _, name = value.rpartition(".")
            found = member(value, "", self.unit.module)
            found = member(base, name, self.unit.module) if isinstance(found, str) else found
            if not isinstance(found, str):
                return self._mark(found)
        return f"{type(value).__name__} {value!r}"

    def _is_cast(self, function: ast.expr) -> bool:
        return ast.unparse(function) in ("cast", "typing.cast") and self.write(function) == "typing.cast"

    def _reference(self, node: ast.Name | ast.Attribute) -> str:
        """The text of a name, or of a chain of attributes that begins with a name."""
        chain: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            chain.insert(0, inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            return "".join([self.write(inner), *(f".{name}" for name in chain)])
        found = self._meaning(inner.id)
        while chain and not isinstance(found, str) and isinstance(module := found[0][0], Module):
            found = member(module.name, chain.pop(0), self.unit.module)
        head = found if isinstance(found, str) else self._mark(found)
        return ".".join([head, *chain])

    def _meaning(self, name: str) -> Found | str:
        for depth, scope in enumerate(reversed(self.scopes)):
            if scope.of_class and depth:
                continue
            if name in scope.imports:
                return member(*scope.imports[name], self.unit.module)
            if name in scope.names:
                return name
        return resolve(self.unit.module, name)

    def _mark(self, found: Found) -> str:
        targets, name = found
        self.found.targets += targets
        places = [one.names.index(name) for one in targets if isinstance(one, Unit)]
        return f"§{places or ''}"

    # --- scopes --------------------------------------------------------------------------------------------------

    @contextmanager
    def _scope(self, names: set[str], of_class: bool = False, fields: bool = False) -> Iterator[None]:
        self.scopes.append(_Scope(names, {}, of_class, fields))
        try:
            yield
        finally:
            self.scopes.pop()

    def _note(self, node: ast.Import | ast.ImportFrom) -> None:
        for name, what in imported(node, self.unit.module.package):
            self.found.imports.add(what[0])
            if self.scopes:
                self.scopes[-1].imports[name] = what


class _Wordless(ast.NodeTransformer):
    """Replaces every text of a message, and the values formatted into it, by the same empty text."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return ast.Constant("") if _empty(node.left) or _empty(node.right) else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        return ast.Constant("") if _empty(node.body) and _empty(node.orelse) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        return ast.Constant("") if isinstance(node.func, ast.Attribute) and _empty(node.func.value) else node


def _empty(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == ""


def _parameters(arguments: ast.arguments) -> set[str]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {one.arg for one in every if one}


def _globals(body: list[ast.stmt]) -> set[str]:
    return {
        name
        for statement in body
        for node in walk(statement)
        if isinstance(node, (ast.Global, ast.Nonlocal))
        for name in node.names
    }
