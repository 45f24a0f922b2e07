"""A forked child can use a GPU: no import of its parent touches CUDA before the fork.

No GPU is needed: in the child, torch remembers that its parent had queried CUDA. A build of torch without CUDA cannot
detect this, and everything passes. For the processes of launchers, the method in tests/deadly.py checks it.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASK = """
import os, sys, torch
from multiprocessing import Pipe
from sweep import worker

def serve(orders, events):
    print(torch.cuda._is_in_bad_fork(), torch.cuda.is_initialized(), flush=True)
    return 0

def execute(program, arguments):
    print("afresh", *arguments[1:3], arguments[-1], flush=True)
    os._exit(0)

worker.serve, worker.os.execv = serve, execute
worker.PRELOAD += tuple(sys.argv[1:])
(orders, _), (_, events) = Pipe(duplex=False), Pipe(duplex=False)
sys.exit(worker.main(orders, events))
"""


def child(tmp_path, *modules):
    """The output of a child process whose parent has also imported `modules`."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_forked_child_has_a_cuda_that_nobody_touched(tmp_path):
    assert child(tmp_path) == ["False", "False"]


@pytest.mark.slow
def test_a_child_of_a_parent_that_touched_cuda_is_executed_afresh(tmp_path):
    import torch

    if torch.version.cuda is None:
        pytest.skip("a torch build with CUDA tells a bad fork from a good one: pip install torch")
    (tmp_path / "touching.py").write_text("import torch\ntorch.cuda.is_available()\n")
    assert child(tmp_path, "touching") == ["afresh", "-m", "sweep.worker", "--afresh"]


FORKS = {"fork", "forkpty", "Process", "Pool", "ProcessPoolExecutor", "DataLoader"}


def _forks(path):
    """The calls in a file that may fork this process and compute in the copy."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            call = ast.unparse(node)
            if ast.unparse(node.func).split(".")[-1] in FORKS and "psutil" not in call and "'spawn'" not in call:
                yield call


def test_nothing_else_of_the_project_forks():
    """Only one place may fork; another one needs its own test."""
    files = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in ("tests", ".venv")]
    assert {str(path.relative_to(ROOT)): found for path in files if (found := list(_forks(path)))} == {
        "sweep/worker.py": ["os.fork()"]
    }
