"""Which package may import which (README, docs/architecture.md), and rules for files."""

import ast
import re
from functools import cache
from itertools import permutations
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY = {  # besides themselves
    "terminal": set(),
    "store": set(),
    "engine": set(),
    "models": {"engine"},
    "scope": {"engine"},
    "baselines": {"engine"},
    "eval": {"store"},
    "reports": {"store"},
    "conf": {"engine"},
    "sweep": {"conf", "engine", "eval", "reports", "store"},
}
COMPOSES = {("scope/pipeline.py", "conf"), ("scope/pipeline.py", "models")}  # a command of the library, like run.py
OURS = {*MAY, "benchmarks", "run", "tests"}
LONGEST = 300  # lines; a file that outgrows ~250 has two subjects


def files(name):
    return sorted((ROOT / name).rglob("*.py")) if (ROOT / name).is_dir() else [ROOT / f"{name}.py"]


@cache
def nodes(file):
    """Every node of the file's syntax tree."""
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


@cache
def imports(file):
    """(module, whether it is bound to a bare name) of every import in the file, nested ones too."""
    found = []
    for node in nodes(file):
        if isinstance(node, ast.Import):
            found.extend((alias.name, "." not in alias.name and not alias.asname) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module, False))
    return found


UPWARD_BY_TEXT = {("store/__main__.py", "sweep.recount")}  # may only shrink


def named_in_text(file):
    """Our modules whose exact names are texts in the file, as in import_module("...") or in a table of modules."""
    for node in nodes(file):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+(\.\w+)+", node.value):
            path = ROOT / Path(*node.value.split("."))
            if node.value.split(".")[0] in OURS and (path.with_suffix(".py").is_file() or path.is_dir()):
                yield node.value


@pytest.mark.parametrize("name", MAY)
def test_no_text_names_a_module_further_up(name):
    reached = {
        (str(file.relative_to(ROOT)), module)
        for file in files(name)
        for module in named_in_text(file)
        if module.split(".")[0] in OURS - MAY[name] - {name}
    }
    assert reached <= UPWARD_BY_TEXT


def test_no_modules_import_each_other_in_a_circle():
    """Nested imports and those under TYPE_CHECKING count as well."""
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for name in OURS for file in files(name)}
    graph = {}
    for module, file in modules.items():
        tree = nodes(file)
        named = set()
        for node in (node for node in tree if isinstance(node, ast.ImportFrom)):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *filter(None, [node.module])])
            named |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        graph[module] = ({found for found, _ in imports(file)} | named) & modules.keys() - {module}
    while free := {module for module, needs in graph.items() if not needs & graph.keys()}:
        graph = {module: needs for module, needs in graph.items() if module not in free}
    assert not graph, f"these import each other, or need one that does: {sorted(graph)}"


@pytest.mark.parametrize("name", MAY)
def test_imports_point_one_way(name):
    assert files(name) and all(file.exists() for file in files(name))
    reached = {
        (str(file.relative_to(ROOT)), module)
        for file in files(name)
        for module, _ in imports(file)
        if module.split(".")[0] in OURS - MAY[name] - {name, "terminal"}  # which knows nothing of ours
        and (str(file.relative_to(ROOT)), module.split(".")[0]) not in COMPOSES
    }
    assert not reached


def test_models_do_not_know_each_other():
    for folder, other in permutations(("skyreels", "magi1", "far"), 2):
        for file in files(f"models/{folder}"):
            assert not [module for module, _ in imports(file) if module.startswith(f"models.{other}")], file


@pytest.mark.parametrize("name", sorted(OURS - {"tests"}))
def test_nothing_hides_the_builtin_eval(name):
    """`import eval` would bind a package to the builtin's name; `from eval.metrics import ...` does not."""
    for file in files(name):
        assert not [module for module, bare in imports(file) if bare and module == "eval"], file


@pytest.mark.parametrize("name", sorted(OURS))
def test_no_file_is_too_long_and_none_is_called_utils(name):
    for file in files(name):
        assert "util" not in file.stem and not [part for part in file.parts if part in ("utils", "helpers", "common")]
        if name != "tests":
            assert len(file.read_text().splitlines()) <= LONGEST, file


@pytest.mark.parametrize("name", sorted(OURS - {"tests"}))
def test_no_function_is_longer_than_forty_lines(name):
    for file in files(name):
        for node in nodes(file):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 40, f"{file.relative_to(ROOT)}: {node.name} has {length} lines"


@pytest.mark.parametrize("name", sorted(OURS - {"tests"}))
def test_nothing_is_loaded_that_could_run_code(name):
    """Weights are read from safetensors or with weights_only. An unpickler must list the classes that it accepts."""
    for file in files(name):
        for call in (node for node in nodes(file) if isinstance(node, ast.Call)):
            what, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
            assert what not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load"), file
            assert what != "torch.load" or given.get("weights_only") == "True", file
            assert given.get("allow_pickle", "False") == "False", file
        for node in (node for node in nodes(file) if isinstance(node, ast.ClassDef)):
            if "pickle.Unpickler" in map(ast.unparse, node.bases):
                assert "find_class" in {part.name for part in node.body if isinstance(part, ast.FunctionDef)}, file


def test_the_files_and_functions_that_the_architecture_page_names_exist():
    """A line `path/file.py`, `Class.function` names what the file defines; other names need only the file."""
    text = re.sub(r"\s+", " ", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    paths = re.findall(r"`([\w/]+/(?:\w+\.py)?)`", text)
    assert len(paths) > 25 and not [path for path in paths if not (ROOT / path).exists()]
    places = re.findall(r"`([\w/]+\.py)`, `([\w.]+)`[:,]", text)
    assert len(places) >= 8
    for path, name in places:
        tree = ast.parse((ROOT / path).read_text())
        for part in name.split("."):
            named = [n for n in tree.body if part in (getattr(n, "name", ""), *map(ast.unparse, targets_of(n)))]
            assert named, f"{path} does not define {name}"
            tree = named[0]


def targets_of(node):
    return node.targets if isinstance(node, ast.Assign) else []


def test_every_test_asserts_something():
    """A test has an assertion in its own body: assert, raises, or a function of a testing module."""
    silent = []
    for file in sorted((ROOT / "tests").glob("test_*.py")):
        for test in nodes(file):
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                calls = [ast.unparse(node.func) for node in ast.walk(test) if isinstance(node, ast.Call)]
                checks = any("testing." in call or call.endswith(("raises", "warns")) for call in calls)
                if not checks and not any(isinstance(node, ast.Assert) for node in ast.walk(test)):
                    silent.append(f"{file.name}::{test.name}")
    assert not silent
