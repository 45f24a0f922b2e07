"""docs/methods.md agrees with the docstrings, for every method on the menu."""

import dataclasses
import inspect
import re
from importlib import import_module

import pytest
from omegaconf import OmegaConf

from baselines.shared.catalogue import LABELS, PAGE, main, pages, read, render
from conf.schema import CONF, options
from engine.method import Method

PAGES = {page.name: page for page in pages()}


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == render(pages()), "run python -m baselines.shared.catalogue"
    assert main(["--check"]) == 0


def test_every_method_of_the_menu_is_on_the_page():
    targets = {OmegaConf.load(CONF / "method" / f"{option}.yaml")._target_ for option in options("method")}
    modules = {target.rsplit(".", 1)[0] for target in targets if not target.startswith("engine.")}
    assert {module.removesuffix(".method").removeprefix("baselines.") for module in modules} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_method_says_where_it_stands_what_it_looks_at_what_it_holds_and_what_is_ours(page):
    assert page.title.endswith(".") and page.body
    for label in LABELS:
        assert page.labels.get(label, "").endswith("."), label
    for name, _, comment in page.fields:
        assert comment, f"{name} has no comment"


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_class_says_what_it_does_and_a_number_what_raising_it_does(page):
    """The comment of a flag says what True or False does."""
    module = "scope.method" if page.name == "scope" else f"baselines.{page.name}"
    own = [kind for _, kind in inspect.getmembers(import_module(module), inspect.isclass) if kind.__module__ == module]
    method = next(kind for kind in own if issubclass(kind, Method))
    assert not method.__doc__.startswith(f"{method.__name__}("), "the docstring is the one that dataclasses make"
    comments = {name: comment for name, _, comment in page.fields}
    for field in dataclasses.fields(method):
        comment = comments[field.name]
        if field.type in ("int", "float"):
            assert re.search("raising|lowering", comment), f"{field.name}: {comment}"
        elif field.type == "bool":
            assert comment.startswith("True: ") or "False: " in comment, f"{field.name}: {comment}"


def test_labels_fields_and_equations_are_read_from_a_source(tmp_path):
    source = tmp_path / "mine.py"
    source.write_text(
        '"""Mine (Me 2026): twice.\n\n    x = 2 x\n\nProse.\n\nSite: here,\nand there.\nMemory: none.\n"""\n'
        "@dataclass\nclass Mine(Method):\n    a: int  # raising it: more | less\n    b: str = 'x'  # named\n"
    )
    page = read(source)
    assert page.labels == {"Site": "here, and there.", "Memory": "none."}
    assert page.fields == [("a", "required", "raising it: more | less"), ("b", '"x"', "named")]
    text = render([page])
    assert "```\nx = 2 x\n```\n\nProse." in text and "more \\| less" in text
    source.write_text('"""No method."""\n')
    assert read(source) is None


@pytest.mark.parametrize("page", [p for p in PAGES.values() if "Released" in p.labels], ids=lambda page: page.name)
def test_the_test_that_compares_a_method_with_its_release_exists(page):
    file, _, name = page.labels["Released"].partition("; shown by ")[2].removesuffix(".").partition("::")
    assert f"def {name}(" in (PAGE.parents[1] / file).read_text(encoding="utf-8")
