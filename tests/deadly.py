"""A tiny menu with a method that ends a process in a way of its choice, once; for the tests of sweeps that survive."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import yaml

from tests.tiny import TINY

ROOT = Path(__file__).parents[1]
METHOD = '''
import os, signal, time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from engine.method import Method
from engine.row import VELOCITY, Decision, Mode

@dataclass
class Deadly(Method):
    """Ends a process the first time that it is asked for a decision, and is the Original from then on."""

    mark: str = ""  # FOLDER/<how>-<whom>-<n>, the file that says it has been done. How: a signal, "once" or "always"
    #                 to sleep instead; whom: 0 the process itself, 2 the one that ordered its work

    def decide(self, part, probe, branch=""):
        if torch.cuda._is_in_bad_fork():
            raise RuntimeError("this process was forked after CUDA had been touched: it could use no GPU")
        mark = Path(self.mark)
        how, whom, _ = mark.name.split("-")
        first = not mark.exists()
        mark.write_text(str(os.getpid()))
        if how == "always" or (how == "once" and first):
            time.sleep(600)
        elif first:
            os.kill([psutil.Process(), *psutil.Process().parents()][int(whom)].pid, getattr(signal, how))
            time.sleep(5)
        return Decision(Mode.RECOMPUTE)

    def sites(self, depth, row):
        return (VELOCITY,)
'''


def write_menu(folder):
    """Fill a folder for --config-dir: model=tiny, method=deadly and two prompts."""
    files = {
        "model/tiny": {"_target_": "models.skyreels.backbone.SkyReelsV2", **asdict(TINY)},
        "method/deadly": {"_target_": "deadly.Deadly", "mark": ""},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (folder / "prompts.txt").write_text("a fox\na dog\n")
    (folder / "deadly.py").write_text(METHOD)
    return folder


def begin(menu, results, *more, **environment):
    """`python run.py` as a process group leader, as a shell starts it."""
    told = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{menu}:{ROOT}", **environment}
    flags = ["--config-dir", menu, *(word for word in more if word.startswith("-"))]  # not between words: Hydra refuses
    words = ["model=tiny", f"prompts.file={menu / 'prompts.txt'}", f"results={results}", "device=cpu"]
    words += ["score=false", "report=false", *(word for word in more if not word.startswith("-"))]
    return subprocess.Popen(
        [sys.executable, ROOT / "run.py", *flags, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=told,
        start_new_session=True,
    )


def ended(sweep, seconds=1800):
    """(exit status, output)."""
    said = sweep.communicate(timeout=seconds)[0]
    return sweep.returncode, said
