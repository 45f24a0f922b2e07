"""What the machine may have made is not the method's: slow Originals, the order of videos, encoded texts."""

import numpy as np
import pytest

from reports import machine, read
from reports.marks import Kind, Mark
from reports.notes import notes
from tests.synthetic import CELLS, PROMPTS, make_store

ORIGINAL, REPEAT, FAST = ("original", None), ("original_repeat", None), ("scope", "fast")
MODEL = "skyreels_tiny"


def table(root, repeat, device, seconds=1.6):
    """The table of an Original of 2 s, its repeat of `repeat` s, and SCOPE of `seconds`, on `device`."""
    cells = {ORIGINAL: CELLS[ORIGINAL], REPEAT: (repeat, 1.0, 0.0), FAST: (seconds, 0.28, 0.035)}
    make_store(root, cells=cells, prompts=PROMPTS * 2, videos=False, environment={"device": device})
    report = read(root)
    return report, {line.method: line for line in report.lines}


def test_a_speedup_within_that_of_the_original_run_twice_is_marked_and_not_bold(tmp_path):
    report, lines = table(tmp_path, repeat=1.5, device="cuda")
    assert 1 < lines["scope"].value("speedup") < lines["original_repeat"].value("speedup")
    assert Mark(Kind.REPEAT_SPEED) in lines["scope"].marks and "speedup" not in lines["scope"].best
    said = f"SCOPE fast on {MODEL}: speedup within the spread of the Original run twice"
    assert any(note.startswith(said) for note in notes(report))


def test_a_speedup_above_it_has_no_such_mark(tmp_path):
    _, lines = table(tmp_path, repeat=1.95, device="cuda", seconds=0.6)
    assert lines["scope"].value("speedup") > 2 and not lines["scope"].marked(Kind.REPEAT_SPEED)


@pytest.mark.parametrize("device, bold", [("cpu", {"lpips"}), ("cuda", {"peak_memory_gb", "lpips"})])
def test_memory_is_bold_only_where_a_device_counts_it(tmp_path, device, bold):
    report, lines = table(tmp_path, repeat=2.0, device=device)
    given = [frozenset({"peak_memory_gb", "lpips"})]
    assert machine.trimmed(report.study, [lines["scope"]], given) == [bold]
    assert (machine.ON_CPU in notes(report)) == (device == "cpu")


def test_text_is_apart_in_the_seconds_of_old_records_too(tmp_path):
    report, _ = table(tmp_path, repeat=2.0, device="cpu")
    videos = report.study.videos
    assert np.allclose(videos["time_s"], videos["denoise_s"] + videos["decode_s"]) and (videos["text_s"] > 0).all()


def test_default_settings_do_not_pass_for_the_papers_point(tmp_path):
    """A published method without an operating point is marked, and its values are not compared with the paper's."""
    make_store(
        tmp_path, model="magi1", cells={ORIGINAL: CELLS[ORIGINAL], ("delta_dit", None): (1.0, 0.5, 0.02)}, videos=False
    )
    report = read(tmp_path)
    line = next(line for line in report.lines if line.method == "delta_dit")
    assert line.signed == "Δ-DiT†" and line.comparable == "no: default settings, not the paper's point"
    assert "† default settings, not the paper's point: Δ-DiT on magi1." in notes(report)
    assert [line.method for line in report.lines if line.marked(Kind.DEFAULTS)] == ["delta_dit"]
