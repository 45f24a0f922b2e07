"""What the machine may have made is not the method's: slow Originals, the order of videos, encoded texts."""

import numpy as np
import pytest

from reports import machine
from reports.records import load
from reports.tables import DEFAULTS, main, notes
from tests.synthetic import CELLS, PROMPTS, make_store

ORIGINAL, REPEAT, FAST = ("original", None), ("original_repeat", None), ("scope", "fast")
MODEL = "skyreels_tiny"


def table(root, repeat, device, seconds=1.6):
    """The table of an Original of 2 s, its repeat of `repeat` s, and SCOPE of `seconds`, on `device`."""
    cells = {ORIGINAL: CELLS[ORIGINAL], REPEAT: (repeat, 1.0, 0.0), FAST: (seconds, 0.28, 0.035)}
    make_store(root, cells=cells, prompts=PROMPTS * 2, videos=False, environment={"device": device})
    study = load(root)
    return study, main(study).set_index("method")


def test_a_speedup_within_that_of_the_original_run_twice_is_marked_and_not_bold(tmp_path):
    study, frame = table(tmp_path, repeat=1.5, device="cuda")
    repeat, scope = frame.loc["original_repeat"], frame.loc["scope"]
    assert 1 < scope["speedup"] < repeat["speedup"] and machine.WITHIN in scope["marks"]
    assert any(machine.WITHIN in note and "SCOPE fast" in note for note in notes(study, frame.reset_index()))


def test_a_speedup_above_it_has_no_such_mark(tmp_path):
    _, frame = table(tmp_path, repeat=1.95, device="cuda", seconds=0.6)
    assert frame.loc["scope", "speedup"] > 2 and machine.WITHIN not in frame.loc["scope", "marks"]


@pytest.mark.parametrize("device, bold", [("cpu", "lpips"), ("cuda", "peak_memory_gb; lpips")])
def test_memory_is_bold_only_where_a_device_counts_it(tmp_path, device, bold):
    study, frame = table(tmp_path, repeat=2.0, device=device)
    given = frame["best"].where(frame.index != "scope", "peak_memory_gb; lpips")
    best = machine.trimmed(study, frame.reset_index(), given)
    assert best["scope"] == bold
    assert (machine.ON_CPU in notes(study, frame.reset_index())) == (device == "cpu")


def test_text_is_apart_in_the_seconds_of_old_records_too(tmp_path):
    study, _ = table(tmp_path, repeat=2.0, device="cpu")
    videos = study.videos
    assert np.allclose(videos["time_s"], videos["denoise_s"] + videos["decode_s"]) and (videos["text_s"] > 0).all()


def test_default_settings_do_not_pass_for_the_papers_point(tmp_path):
    """A published method without an operating point is marked, and its cells are not ours to match."""
    make_store(
        tmp_path, model="magi1", cells={ORIGINAL: CELLS[ORIGINAL], ("delta_dit", None): (1.0, 0.5, 0.02)}, videos=False
    )
    study = load(tmp_path)
    line = (frame := main(study)).set_index("method").loc["delta_dit"]
    assert DEFAULTS in line["marks"] and line["paper_comparable"] == "no: default settings, not the paper's point"
    assert any(DEFAULTS in note and "Δ-DiT on magi1" in note for note in notes(study, frame))
    assert DEFAULTS not in main(study).set_index("method").loc["original", "marks"]
