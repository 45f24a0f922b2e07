"""Hydra's launchers on real engines, where they are installed: killed workers, requeued jobs, wrong words."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conf.schema import ConfigError
from reports import read
from store import Store
from sweep import gpus, launch
from tests.deadly import ROOT, begin, ended, write_menu

SLURM = Path(__file__).parent / "slurm"
SLURM_PACKAGES = "slurmctld slurmd munge slurm-client slurm-wlm-basic-plugins"


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    return write_menu(tmp_path_factory.mktemp("menu"))


def needs(module, extra):
    return pytest.mark.skipif(not launch._installed(module), reason=f"pip install -e '.[{extra}]'")


def statuses(results):
    """{(method and the settings that distinguish its cells, prompt): status}"""
    found = Store(results, create=False).records()
    return {
        (r.run["method"], r.run["produced_by"]["method"].get("mark", "")[-1:], r.run["prompt"]): r.status for r in found
    }


# --- what needs no engine ---------------------------------------------------------------------------------------------


def test_a_launcher_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setattr(launch, "_installed", lambda module: False)
    for name, extra in (("joblib", "joblib"), ("submitit_slurm", "submitit"), ("ray", "ray")):
        with pytest.raises(ConfigError, match=rf"hydra/launcher={name} is not installed; .*\[{extra}\]"):
            launch.launcher_of(["-m", f"hydra/launcher={name}"])


def test_a_launcher_that_is_none_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean joblib"):
        launch.launcher_of(["hydra/launcher=joblb"])
    assert launch.launcher_of(["-m", "method=scope"]) == launch.launcher_of(["hydra/launcher=basic"]) == "basic"


def test_slurm_without_sbatch_says_where_to_start(monkeypatch):
    monkeypatch.setattr(launch, "_installed", lambda module: True)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match="needs sbatch"):
        launch.launcher_of(["hydra/launcher=submitit_slurm"])


class Cell:
    """The attributes of a cell that the preparation reads."""

    class model:
        class device:
            type = "cuda"

    class run:
        results = "r"


def test_joblib_gets_a_process_per_gpu_and_no_more(monkeypatch):
    monkeypatch.setattr(gpus, "devices", lambda: ["0", "1", "5"])
    monkeypatch.setenv("PYTHONPATH", "")
    line = launch.prepared(["-m", "method=scope"], "joblib", [Cell])
    assert line == ["-m", "method=scope", "hydra.launcher.n_jobs=3"]
    assert launch.prepared(["hydra.launcher.n_jobs=2"], "joblib", [Cell]) == ["hydra.launcher.n_jobs=2"]
    for jobs in (4, -1):
        with pytest.raises(ConfigError, match="3 GPUs"):
            launch.prepared([f"hydra.launcher.n_jobs={jobs}"], "joblib", [Cell])


HOLD = """
import os, sys
from pathlib import Path
from sweep import gpus
print(gpus.hold(gpus.devices(), Path(sys.argv[1])), os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


def test_every_process_gets_a_gpu_of_its_own_and_the_next_one_waits(tmp_path):
    """The GPU is reserved before torch could start CUDA, and released when the process ends."""

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", HOLD, tmp_path],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "3,GPU-8/x"},
        )

    first, second = start(), start()
    lines = sorted(job.stdout.readline() for job in (first, second))
    assert lines == ["3 3\n", "GPU-8/x GPU-8/x\n"]
    third = start()
    assert third.stdout.readline().startswith("waiting for a GPU: other processes use 3, GPU-8/x")
    first.kill()
    assert third.stdout.readline() in lines
    for job in (first, second, third):
        job.kill()
        job.communicate()


def test_children_are_ended_but_for_the_tracker_that_multiprocessing_would_miss():
    code = """
import multiprocessing.resource_tracker as tracker, psutil, subprocess, sys
from sweep.launch import end_children
tracker.ensure_running()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
end_children()
print(psutil.pid_exists(child.pid), tracker._resource_tracker._check_alive())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True)
    assert done.stdout.split() == ["False", "True"] and not done.stderr


def test_failures_of_a_launched_sweep_are_read_from_the_store(tmp_path):
    """A launcher fails after the first of three videos. Its own report of the jobs is ignored."""
    store = Store(tmp_path)

    class Run:
        results, retry_failed, task = str(tmp_path), False, "videos"

    class Video:
        def __init__(self, key):
            self.key, self.name, self.speed, self.label, self.model = key, "m", None, "m", Model

    class Model:
        name = "tiny"

    class Launched:
        run, model, label = Run, Model, "tiny m"

        @staticmethod
        def jobs():
            return [Video(key) for key in "abc"]

    def launcher(line):
        with store.stage("tiny", "m", None, "a") as stage:
            stage.run |= {"status": "failed", "reason": "OutOfMemoryError: 7 GiB"}
        raise RuntimeError("Batch job submission failed\nInvalid partition name specified")

    assert launch.launch(launcher, [["-m"]], [Launched]) == [
        "RuntimeError: Batch job submission failed: Invalid partition name specified",
        "tiny m a: OutOfMemoryError: 7 GiB",
        "tiny m: 2 videos are missing, their jobs ended early; the same command generates them",
    ]


# --- joblib -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs("hydra_plugins.hydra_joblib_launcher", "joblib")
def test_joblib_loses_a_killed_worker_and_the_same_command_completes(menu, tmp_path):
    """Kills the process that joblib started, not only its worker."""
    results = tmp_path / "results"
    marks = [tmp_path / "SIGKILL-2-0", tmp_path / "SIGKILL-2-1"]
    marks[1].touch()  # this one lives
    words = [
        "-m",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "method=deadly",
        f"method.mark={marks[0]},{marks[1]}",
    ]
    status, said = ended(begin(menu, results, *words))
    assert status == 1 and "error:" in said and "videos are missing" in said, said
    status, said = ended(begin(menu, results, *words))
    assert status == 0, said
    assert statuses(results) == {
        (method, mark, prompt): "ok"
        for method, marks in (("original", ("",)), ("deadly", ("0", "1")))
        for mark in marks
        for prompt in ("a fox", "a dog")
    }


@pytest.mark.slow
@needs("hydra_plugins.hydra_joblib_launcher", "joblib")
def test_sigterm_to_a_joblib_sweep_leaves_no_process(menu, tmp_path):
    """The signal reaches only the command, as from a scheduler. Without our handler joblib's workers would continue."""
    marks = [tmp_path / "always-0-0", tmp_path / "always-0-1"]
    words = [
        "-m",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "method=deadly",
        "prompts.limit=1",
        f"method.mark={marks[0]},{marks[1]}",
    ]
    sweep = begin(menu, tmp_path / "results", *words)
    deadline = time.monotonic() + 600
    while not all(map(written, marks)) and sweep.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sweep.poll() is None, sweep.stdout.read()
    family = psutil.Process(sweep.pid).children(recursive=True)
    assert {int(mark.read_text()) for mark in marks} <= {process.pid for process in family}
    sweep.terminate()
    status, said = ended(sweep)
    assert status == 128 + signal.SIGTERM and "stopped by SIGTERM" in said, said
    assert not psutil.wait_procs(family, timeout=60)[1]
    assert statuses(tmp_path / "results") == {("original", "", "a fox"): "ok"}


def written(mark):
    return mark.exists() and mark.read_text()


# --- SLURM ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A SLURM of one node on the loopback interface."""
    lacking = ["root"] * bool(os.getuid())
    lacking += ["pip install -e '.[submitit]'"] * (not launch._installed("hydra_plugins.hydra_submitit_launcher"))
    if not shutil.which("slurmctld") or not shutil.which("munged"):
        lacking.append(f"apt-get install -y --no-install-recommends {SLURM_PACKAGES}")
    if lacking:
        pytest.skip(f"a SLURM of one's own lacks: {'; '.join(lacking)}")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        up = subprocess.run(["bash", SLURM / "up.sh", folder], capture_output=True, text=True, timeout=300)
        if up.returncode:
            pytest.skip(f"SLURM does not start here: {up.stderr[-300:]}")
        yield {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{SLURM}:{os.environ['PATH']}"}
    finally:
        subprocess.run(["bash", SLURM / "down.sh", folder])


SUBMIT = ["-m", "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=null"]


@pytest.mark.slow
def test_slurm_finishes_an_array_with_one_job_killed_and_one_timed_out_and_requeued(menu, tmp_path, slurm):
    results = tmp_path / "results"
    marks = [tmp_path / name for name in ("once-0-0", "SIGKILL-2-1", "SIGSEGV-0-2", "SIGSEGV-0-3")]
    for mark in marks[2:]:
        mark.touch()  # these live
    words = [
        *SUBMIT,
        "hydra.launcher.partition=debug",
        "hydra.launcher.timeout_min=2",
        "hydra.launcher.signal_delay_s=30",
        "hydra.launcher.max_num_timeout=5",
        "method=deadly",
        f"method.mark={','.join(map(str, marks))}",
    ]
    status, said = ended(begin(menu, results, *words, **slurm))
    assert status == 1 and "videos are missing" in said, said
    sleeper, killed = (next((results / ".jobs/.submitit").glob(f"*_{n}/*_log.out")).read_text() for n in (0, 1))
    assert "timed-out" in sleeper and "Requeued job" in sleeper and sleeper.count("Starting with") >= 2
    assert "completed successfully" in sleeper and "completed" not in killed
    status, said = ended(begin(menu, results, *words, **slurm))
    assert status == 0, said
    assert set(statuses(results).values()) == {"ok"} and len(statuses(results)) == 2 + 4 * 2
    assert [len(line.valid) for line in read(results).lines] == [2] * 5  # one table: the Original and the four cells


@pytest.mark.slow
def test_a_partition_that_does_not_exist_is_named(menu, tmp_path, slurm):
    words = [*SUBMIT, "hydra.launcher.partition=nowhere", "method=original"]
    status, said = ended(begin(menu, tmp_path / "results", *words, **slurm))
    assert status == 1 and "invalid partition specified: nowhere" in said, said


# --- Ray --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(monkeypatch):
    """A Ray of two nodes of one core each, on this machine."""
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_AUTH_MODE", "disabled")):
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    ray = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        ray.add_node(num_cpus=1)
        ray.wait_for_nodes()
        yield ray
    finally:
        ray.shutdown()


@needs("hydra_plugins.hydra_ray_launcher", "ray")
def test_ray_runs_a_killed_job_again_on_two_nodes(menu, tmp_path, cluster):
    """If a worker dies, Ray starts its job again. The job continues from the store."""
    results = tmp_path / "results"
    marks = [tmp_path / name for name in ("SIGKILL-2-0", "SIGSEGV-0-1", "SIGSEGV-0-2")]
    for mark in marks[1:]:
        mark.touch()  # these live
    join = [f"hydra.launcher.ray.init.address={cluster.address}", "+hydra.launcher.ray.init.object_store_memory=null"]
    words = ["-m", "hydra/launcher=ray", *join, "method=deadly", f"method.mark={','.join(map(str, marks))}"]
    status, said = ended(begin(menu, results, *words))
    assert status == 0 and marks[0].exists(), said
    assert set(statuses(results).values()) == {"ok"} and len(statuses(results)) == 2 + 3 * 2
