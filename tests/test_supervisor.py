"""The worker process: if it dies, one video fails; an interrupt ends all processes."""

import os
import signal
import time
from dataclasses import replace

import psutil
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import run
from conf.schema import CONF
from store import Store
from sweep.cell import Order
from sweep.supervisor import Supervisor, death
from tests.deadly import begin, write_menu


@pytest.fixture(autouse=True)
def in_the_foreground():
    """A shell's background jobs ignore Ctrl-C, and so do the processes that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    return write_menu(tmp_path_factory.mktemp("menu"))


def composed(menu, results, *more):
    """The order for a cell of the menu, as the command would compose it."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ["method=original", f"prompts.file={menu / 'prompts.txt'}", f"results={results}", "device=cpu"]
        config = compose("config", overrides=words)
    config.model = yaml.safe_load((menu / "model/tiny.yaml").read_text())
    config.method = yaml.safe_load((menu / "method/deadly.yaml").read_text()) | dict(more)
    return Order(OmegaConf.to_yaml(config), "deadly", None)


@pytest.mark.slow
def test_a_segfault_costs_one_video_is_recorded_and_not_tried_again(menu, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(menu))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    results, mark = tmp_path / "results", tmp_path / "SIGSEGV-0-0"
    order, told, refused = composed(menu, results, ("mark", str(mark))), [], []
    plain = yaml.safe_load(order.config) | {"method": {"_target_": "engine.method.Original"}}
    beside = Order(yaml.safe_dump(plain), "original", None)  # takes turns with it; every video of its own is there
    supervisor = Supervisor()
    try:
        supervisor.do([("tiny deadly", order), ("tiny original", beside)], lambda *event: told.append(event))
        supervisor.do([("tiny deadly", order)], lambda *event: told.append(event))  # the failure is not tried again
        wrong = replace(order, config=order.config.replace("device: cpu", "device: abacus"))
        supervisor.do([("tiny deadly", wrong)], lambda *event: refused.append(event))
        family = [supervisor.process.pid, *(p.pid for p in psutil.Process(supervisor.process.pid).children())]
    finally:
        supervisor.close()
    found = {(r.run["method"], r.run["prompt"]): r for r in Store(results, create=False).records()}
    assert {names: record.status for names, record in found.items()} == {
        ("original", "a fox"): "ok",
        ("original", "a dog"): "ok",
        ("deadly", "a fox"): "failed",
        ("deadly", "a dog"): "ok",
    }, told
    failed = found["deadly", "a fox"]
    assert failed.run["reason"] == "its process was killed by SIGSEGV" and "produced_by" in failed.run
    lines = [event[1] for event in told if event[0] == "failed"]
    assert lines == [f"tiny deadly {failed.path.name}: its process was killed by SIGSEGV"]
    assert [event[2] for event in told if event[0] == "cell"] == [4, None, 2, None, 0]
    assert [event[0] for event in refused] == ["failed"] and "abacus" in refused[0][1]
    assert not any(psutil.pid_exists(pid) for pid in (*family, int(mark.read_text())))
    assert [p.name for p in (results / ".staging").iterdir()] == [".writable"]
    assert not [*(results / ".claims").iterdir()]


SLOW = pytest.param(signal.SIGKILL, marks=pytest.mark.slow)


@pytest.mark.parametrize("number", [signal.SIGINT, SLOW], ids=lambda n: n.name)
def test_an_interrupt_leaves_no_process_and_a_store_that_goes_on(menu, tmp_path, number):
    results, mark = tmp_path / "results", tmp_path / "always-0-0"
    sweep = begin(menu, results, "method=deadly", f"method.mark={mark}", "prompts.limit=1")
    deadline = time.monotonic() + 600
    while not (mark.exists() and mark.read_text()) and sweep.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sweep.poll() is None, sweep.stdout.read()
    worker = psutil.Process(int(mark.read_text()))
    assert worker.pid != sweep.pid
    os.killpg(sweep.pid, number) if number == signal.SIGINT else sweep.send_signal(number)  # as a terminal does
    said = sweep.communicate(timeout=120)[0]
    assert sweep.returncode == (-number if number == signal.SIGKILL else 128 + number), said
    assert number == signal.SIGKILL or f"stopped by {number.name}" in said
    psutil.wait_procs([worker], timeout=60)
    assert not worker.is_running()
    store = Store(results)
    assert {r.run["method"]: r.status for r in store.records()} == {"original": "ok"}
    store.sweep()
    assert [p.name for p in store.staging.iterdir()] == [".writable"]


def test_only_the_worker_is_deaf_to_signals_and_sigterm_ends_the_command_as_an_interrupt_does():
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN is not signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        run.stopped(signal.SIGTERM, None)


def test_a_death_is_said_in_words():
    assert death(-11) == "was killed by SIGSEGV" and "out of memory" in death(-9) and death(3) == "ended with status 3"
