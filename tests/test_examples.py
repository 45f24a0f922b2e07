"""The notebooks in examples/ run from the first cell to the last, in a kernel of their own."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_table_has_every_method(path, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(path.parents[1]), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "\n".join(output.get("data", {}).get("text/plain", "") for output in shown)
    assert all(method in text for method in ("original", "uniform", "scope"))
    assert any("image/png" in output.get("data", {}) for output in shown), "the figure of the last cell"


def test_committed_notebooks_hold_no_outputs():
    """Outputs would hold paths and figures of one machine, and go out of date."""
    assert EXAMPLES
    for path in EXAMPLES:
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs") and not cell.get("execution_count"), path
