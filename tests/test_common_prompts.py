"""Lines of one table are compared on common prompts; a line with other prompts is marked and has no rank."""

import math

import pytest

from reports import figures, formats, read
from reports.ranks import places
from reports.terminal_table import as_text
from tests.synthetic import CELLS, SIX, make_store

ORIGINAL = ("original", None)
FAST = (("scope", "fast"), ("teacache", "fast"))
BETTER = ("uniform", None)  # made the fastest and the closest


def store(root, groups):
    """Cells with the given numbers of prompts."""
    for cell, prompts in groups.items():
        cells = {cell: (0.1, 0.05, 0.001) if cell == BETTER else CELLS[cell]}
        make_store(root, cells=cells, prompts=SIX[:prompts], videos=False)
    return read(root)


@pytest.fixture(scope="module")
def one_is_apart(tmp_path_factory):
    """One line has only one of six prompts, and the best numbers."""
    cells = {ORIGINAL: 6, ("teacache", "slow"): 6, **dict.fromkeys(FAST, 6), BETTER: 1}
    return store(tmp_path_factory.mktemp("apart"), cells)


def test_a_line_with_other_prompts_is_marked_in_every_table(one_is_apart):
    by_name = {line.name: line for line in one_is_apart.lines}
    assert {name for name, line in by_name.items() if "◊" in line.signs} == {"Uniform"}
    assert "Uniform◊" in as_text(one_is_apart) and "Uniform◊" in formats.markdown(one_is_apart)
    assert "Uniform$^\\diamond$" in formats.latex(one_is_apart)
    assert "Uniform on skyreels_tiny: has 1 of 6 of the prompts that other lines have" in formats.markdown(one_is_apart)


def test_a_line_with_other_prompts_has_no_rank_and_is_not_bold(one_is_apart):
    uniform, *_ = [line for line in one_is_apart.lines if line.name == "Uniform"]
    assert uniform.value("speedup") == max(line.value("speedup") for line in one_is_apart.lines)
    assert not uniform.best and uniform.key not in {key for key, _ in places(one_is_apart.lines)}
    assert "Uniform" not in {name for pair in one_is_apart.pairs for name in (pair.first.name, pair.other.name)}
    best = {line.name: line.best for line in one_is_apart.lines if line.best}
    assert "speedup" in best["SCOPE fast"]
    assert "SCOPE fast is " in as_text(one_is_apart)


def test_a_line_with_other_prompts_is_not_on_the_front(one_is_apart):
    front = figures.speed_quality(one_is_apart.numbers, "skyreels_tiny").axes[0].lines[0]
    speeds = {line.name: line.value("speedup") for line in one_is_apart.lines}
    assert speeds["SCOPE fast"] in front.get_xdata() and speeds["Uniform"] not in front.get_xdata()


def test_lines_of_an_unfinished_sweep_are_compared_on_their_common_prompts(tmp_path):
    report = store(tmp_path, {ORIGINAL: 6, FAST[0]: 6, FAST[1]: 5, ("teacache", "slow"): 5})
    assert {line.name: len(line.valid) for line in report.lines if line.accelerated} == dict.fromkeys(
        ("TeaCache slow", "TeaCache fast", "SCOPE fast"), 5
    )
    assert not any("◊" in line.signs for line in report.lines)
    assert "compared on their 5 common prompts; of lines with more, up to 6, the others" in formats.markdown(report)


def test_a_failed_video_does_not_take_its_prompt_from_the_others(tmp_path):
    make_store(tmp_path, cells={cell: CELLS[cell] for cell in (ORIGINAL, FAST[0])}, prompts=SIX, videos=False)
    failed = {"status": "failed", "reason": "out of memory"}
    make_store(tmp_path, cells={FAST[1]: CELLS[FAST[1]]}, prompts=SIX[:5], videos=False)
    make_store(tmp_path, cells={FAST[1]: CELLS[FAST[1]]}, prompts=[*SIX[:5], SIX[5]], videos=False, **failed)
    lines = {line.name: line for line in read(tmp_path).lines}
    assert len(lines["SCOPE fast"].valid) == 6 and not lines["TeaCache fast"].signs.count("◊")
    assert not math.isnan(lines["SCOPE fast"].value("psnr"))
