"""Every example in a docstring is run."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

from tests.test_layout import OURS, ROOT, files


def with_examples() -> list[str]:
    found = [file for name in sorted(OURS - {"tests"}) for file in files(name) if ">>> " in file.read_text("utf-8")]
    return [".".join(Path(file).relative_to(ROOT).with_suffix("").parts) for file in found]


@pytest.mark.parametrize("module", with_examples())
def test_the_examples_in_docstrings_are_true(module):
    failed, tried = doctest.testmod(import_module(module))
    assert tried and not failed
