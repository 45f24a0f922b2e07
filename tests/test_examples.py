"""The notebooks in examples/ run from the first cell to the last, in a kernel of their own."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.ipynb"))
SHOWN = {  # notebook: what its outputs hold
    "first_comparison": ("original", "uniform", "scope", "recompute"),
    "python_api": ("(37, 64, 64, 3)", "PSNR", "original", "uniform", "gpu_hours", "of the FLOPs"),
}
FIGURES = {"first_comparison"}  # notebooks that draw


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_says(path, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(path.parents[1]), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in shown)
    assert [word for word in SHOWN[path.stem] if word not in text] == []
    assert any("image/png" in output.get("data", {}) for output in shown) == (path.stem in FIGURES)


def test_committed_notebooks_hold_no_outputs():
    """Outputs would contain paths and numbers of one machine, and become out of date."""
    assert EXAMPLES
    for path in EXAMPLES:
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs") and not cell.get("execution_count"), path
