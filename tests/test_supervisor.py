"""A process of its own for the work: its death costs one video, an interrupt leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
import yaml

import run
from store import Store
from sweep.supervisor import death
from tests.tiny import TINY

ROOT = Path(run.__file__).parent
DEADLY = '''
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from engine.method import VELOCITY, Decision, Method, Mode

@dataclass
class Deadly(Method):
    """Takes its process with it in the first video of all, and lives in the second."""

    how: str = "SIGSEGV"
    mark: str = ""

    def decide(self, part, probe, branch=""):
        mark = Path(self.mark)
        if self.how == "sleep":
            mark.write_text(str(os.getpid()))
            time.sleep(120)
        if not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), getattr(signal, self.how))
        return Decision(Mode.RECOMPUTE)

    def sites(self, depth, row):
        return (VELOCITY,)
'''


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    folder = tmp_path_factory.mktemp("menu")
    settings = asdict(TINY)
    for name, content in {
        "model/tiny": {"_target_": "models.skyreels.backbone.SkyReelsV2", **settings},
        "method/deadly": {"_target_": "deadly.Deadly", "how": "SIGSEGV", "mark": ""},
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (folder / "prompts.txt").write_text("a fox\na dog\n")
    (folder / "deadly.py").write_text(DEADLY)
    return folder


def begin(menu, results, *more):
    """`python run.py` as a process that leads a group of its own, as a shell starts it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{menu}:{ROOT}"}
    words = ["--config-dir", menu, "model=tiny", f"prompts.file={menu / 'prompts.txt'}", f"results={results}"]
    return subprocess.Popen(
        [sys.executable, ROOT / "run.py", *words, "device=cpu", "score=false", "report=false", *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def test_a_segfault_costs_one_video_is_recorded_and_not_tried_again(menu, tmp_path):
    results, mark = tmp_path / "results", tmp_path / "mark"
    sweep = begin(menu, results, "method=deadly", f"method.mark={mark}")
    said = sweep.communicate(timeout=300)[0]
    assert sweep.returncode == 1, said
    found = {(r.run["method"], r.run["prompt"]): r for r in Store(results, create=False).records()}
    states = {names: record.status for names, record in found.items()}
    assert states == {("original", "a fox"): "ok", ("original", "a dog"): "ok", ("deadly", "a fox"): "failed",
                      ("deadly", "a dog"): "ok"}, said  # fmt: skip
    failed = found["deadly", "a fox"]
    assert failed.run["reason"] == "its process was killed by SIGSEGV" and "produced_by" in failed.run
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert errors == [f"error: tiny deadly {failed.path.name}: its process was killed by SIGSEGV"]
    assert not psutil.pid_exists(int(mark.read_text()))
    Store(results).sweep()
    assert [p.name for p in (results / ".staging").iterdir()] == [".writable"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_an_interrupt_leaves_no_process_and_a_store_that_goes_on(menu, tmp_path, number):
    results, mark = tmp_path / "results", tmp_path / "mark"
    sweep = begin(menu, results, "method=deadly", "method.how=sleep", f"method.mark={mark}", "prompts.limit=1")
    deadline = time.monotonic() + 240
    while not (mark.exists() and mark.read_text()) and sweep.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sweep.poll() is None, sweep.stdout.read()
    worker = psutil.Process(int(mark.read_text()))
    assert worker.pid != sweep.pid
    os.killpg(sweep.pid, number) if number == signal.SIGINT else sweep.send_signal(number)
    said = sweep.communicate(timeout=60)[0]
    assert sweep.returncode == (-number if number == signal.SIGKILL else 128 + number), said
    assert number == signal.SIGKILL or f"stopped by {number.name}" in said
    psutil.wait_procs([worker], timeout=10)
    assert not worker.is_running()
    store = Store(results)
    assert {r.run["method"]: r.status for r in store.records()} == {"original": "ok"}
    store.sweep()
    assert [p.name for p in store.staging.iterdir()] == [".writable"]


def test_a_death_is_said_in_words():
    assert death(-11) == "was killed by SIGSEGV" and "out of memory" in death(-9) and death(3) == "ended with status 3"
