"""The paper's figures and tables use only the records, plans and measurements."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from reports import ablations, formats, intervals, paper, read, scaling, strips, trajectory
from reports.paper_figures import ARTEFACTS
from reports.records import headline
from tests.synthetic import CELLS, FRAMES, PROMPTS, make_store

ORIGINAL, FAST = ("original", None), ("scope", "fast")
LENGTHS = {17: (1.0, 0.4), 65: (4.0, 1.0)}  # frames: seconds of denoising, Original and SCOPE


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("paper")
    base = {key: CELLS[key] for key in (ORIGINAL, FAST)} | {("reduced_steps", None): (0.5, 0.25, 0.06)}
    make_store(root, cells=base, prompts=PROMPTS[:2])
    make_store(root, cells={("scope", "paper"): CELLS[FAST]}, prompts=PROMPTS[:2], videos=False)
    one = {FAST: CELLS[FAST]}
    for skip in (1, 8):
        make_store(root, cells=one, prompts=PROMPTS[:2], videos=False, changed={"method.max_skip": skip})
    make_store(root, cells=one, prompts=PROMPTS[:2], videos=False, changed={"method.selective": "none"})
    for frames, (slow, fast) in LENGTHS.items():
        cells = {ORIGINAL: (slow, 1.0, 0.0), FAST: (fast, 0.3, 0.03)}
        make_store(
            root,
            cells=cells,
            prompts=PROMPTS[:2],
            videos=False,
            changed={"model.frames": frames},
            frames=frames,
            peak_memory={"allocated": frames * 10**8, "reserved": 10**10},
        )
    return read(root)


@pytest.fixture(scope="module")
def study(report):
    return report.study


@pytest.fixture(scope="module")
def frame(report):
    return report.numbers


def test_a_record_says_how_it_departs_and_the_plain_point_keeps_its_name(frame):
    scope = frame[(frame["method"] == "scope") & (frame["speed"] == "fast")]
    assert set(scope["variant"]) == {"", "max_skip=1", "max_skip=8", "selective=none", "frames=17", "frames=65"}
    assert set(scope["videos"]) == {2} and scope[scope["variant"] == ""]["paper_speedup"].iloc[0] == 4.73
    assert scope[scope["variant"] != ""]["paper_speedup"].isna().all()


def test_each_length_is_paired_with_the_original_of_its_length(study, frame):
    part = scaling.series(study, frame, "skyreels_tiny", ("scope", "fast"), scaling.LENGTH)
    assert list(part["at"]) == [17, FRAMES, 65]
    means = [np.exp(np.mean([np.log((s * k + 0.2) / (f * k + 0.2)) for k in (1, 1.03)])) for s, f in LENGTHS.values()]
    assert part["speedup"].iloc[[0, 2]].tolist() == pytest.approx(means)
    figure = scaling.length(study, frame)
    texts = [text.get_text() for text in figure.axes[0].texts]
    x, y = np.array([17, 33, 65]), part["time_s"].to_numpy()
    slope, base = np.polyfit(x, y, 1)
    assert f"SCOPE fast\n{base:.3g} s + {1000 * slope:.3g} ms a frame" in texts
    assert f"{means[0]:.2f}×" in texts and f"{means[1]:.2f}×" in texts
    assert figure.axes[0].get_xlabel() == "length (frames)" and "(s)" in figure.axes[0].get_ylabel()


def test_skip_lengths_are_in_order_with_the_operating_point_ringed(study, frame):
    part = scaling.series(study, frame, "skyreels_tiny", ("scope", "fast"), scaling.SKIP)
    assert list(part["at"]) == [1, 5, 8] and list(part["variant"]) == ["max_skip=1", "", "max_skip=8"]
    rings = [line for line in scaling.skips(study, frame).axes[0].lines if line.get_markersize() == 10]
    assert len(rings) == 1 and list(rings[0].get_xdata()) == [5]


def test_memory_is_of_the_own_and_the_longest_length_alone(study):
    names = [text.get_text() for text in scaling.memory(study).axes[0].get_yticklabels()]
    assert names == [
        "SCOPE fast, 65 frames",
        f"SCOPE fast, {FRAMES} frames",
        "Original, 65 frames",
        f"Original, {FRAMES} frames",
    ]


def test_the_ablation_table_holds_each_setting_with_its_own_value_marked(report, tmp_path):
    found = ablations.write(report, tmp_path)
    skips = [part for part in found if part.setting == "maximum number of consecutive skipped steps"]
    assert {part.value: part.own for part in skips} == {"5": True, "1": False, "8": False}
    assert {part.setting for part in found} == {"maximum number of consecutive skipped steps", "selective computation"}
    text = (tmp_path / "ablations.md").read_text()
    assert "5*" in text and "none" in text and "the fast point's own value" in text


def test_the_step_matrix_tells_context_from_update():
    plan = {"matrix": [[0, 3, 0, 1], [0, 3, 1, 3]], "model": "m", "method": "original"}
    assert intervals.matrix(plan).tolist() == [[2, 1], [1, 2], [1, 2]]
    title = intervals.intervals([plan]).axes[0].get_title(loc="left")
    assert title == "m, Original: 6 slots forwarded, 3 updated"


def test_decisions_are_shares_of_each_iteration(study):
    figure = intervals.decided(study)
    heights = np.zeros(18)
    for patch in figure.axes[0].patches:
        heights[round(patch.get_x() + 0.5)] += patch.get_height()
    assert heights == pytest.approx(np.ones(18))
    assert "30 decisions a video" in figure.axes[0].get_title(loc="left")


def measurement(reuse, order2, prompts=3):
    names = ("reuse", "taylor1", "newton2")
    errors = {"reuse": reuse, "taylor1": reuse / 2, "newton2": order2}
    video = {
        "errors": {n: [[None, e, e, e] for _ in range(6)] for n, e in errors.items()},
        "course": {
            "step": [2, 3],
            "truth": [1.0, 0.9],
            **{n: [1.0, 1.0] for n in names},
            "deviation": {n: [e, e] for n, e in errors.items()},
        },
    }
    return {
        "model": "skyreels_tiny",
        "slot": 2,
        "stand_ins": names,
        "levels": [1, 0.7, 0.4, 0.2],
        "videos": [video] * prompts,
    }


def test_the_saving_of_prediction_is_worked_by_hand_and_can_be_a_loss():
    assert trajectory.saving(measurement(0.5, 0.14), "newton2") == pytest.approx(0.72)
    assert trajectory.saving(measurement(0.2, 0.5), "newton2") == pytest.approx(-1.5)
    texts = [t.get_text() for t in trajectory.figure([measurement(0.2, 0.5)]).axes[1].texts]
    assert any("prediction, order 2: +150%" in text for text in texts)


def test_the_strip_of_fewer_steps_wants_a_row_of_fewer_steps(tmp_path):
    make_store(tmp_path, cells={key: CELLS[key] for key in (ORIGINAL, FAST)}, prompts=PROMPTS[:1])
    report = read(tmp_path)
    drawn = {a.name: a.draw(report.study, report.numbers) for a in ARTEFACTS if a.name in ("fig5", "reduced_steps")}
    assert drawn["fig5"] is not None and drawn["reduced_steps"] is None


def test_one_length_is_no_series_however_often_it_was_made(tmp_path):
    make_store(tmp_path, cells={FAST: CELLS[FAST]}, prompts=PROMPTS[:1], videos=False, frames=FRAMES)
    make_store(tmp_path, cells={FAST: CELLS[FAST]}, prompts=PROMPTS[:1], videos=False, changed={"model.frames": FRAMES})
    report = read(tmp_path)
    assert scaling.series(report.study, report.numbers, "skyreels_tiny", ("scope", "fast"), scaling.LENGTH).empty


def test_strips_show_the_same_prompt_under_every_row(study):
    figure = strips.strips(study, strips.fewer_steps)
    labels = [axes.get_ylabel().split("\n")[0] for axes in figure.axes if axes.get_ylabel()]
    assert labels == ["Original", "Original, fewer steps", "SCOPE fast"]
    assert len(figure.axes) == 3 * strips.SHOWN
    assert strips.frames(study.root / "nothing.mp4") is None


def test_a_folder_of_many_rows_keeps_slow_and_fast_in_its_figures(study):
    assert len(headline(study.videos)) == len(study.videos)  # few rows: all of them
    many = study.videos.loc[study.videos.index.repeat(8)].assign(
        speed=[f"row{n % 8}" for n in range(8 * len(study.videos))]
    )
    assert headline(many).empty


def test_what_cannot_be_drawn_is_not_and_needs_no_records(tmp_path):
    empty = read(tmp_path)
    assert [artefact.draw(empty.study, empty.numbers) for artefact in ARTEFACTS] == [None] * len(ARTEFACTS)
    assert ablations.write(empty, tmp_path) == [] and not list(tmp_path.iterdir())


# Tables as LaTeX


@pytest.fixture(scope="module")
def documents(report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    paper.write(report, folder)
    ablations.write(report, folder / "tables")
    formats.write(report, folder / "tables")
    return sorted((folder / "tables").glob("*.tex"))  # but main_paper.tex: tests/test_paper_layout.py


def test_latex_is_balanced_has_its_columns_and_nothing_unescaped(documents):
    assert [file.stem for file in documents] == ["ablations", "main", "table1", "table12", "table2"]
    for file in documents:
        text = file.read_text()
        columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1])
        body = text.split("\\toprule\n")[1].split("\\bottomrule")[0]
        rows = [line for line in body.splitlines() if line.endswith("\\\\")]
        assert len(rows) > 1 and all(line.replace("\\&", "").count("&") == columns - 1 for line in rows), file
        for name in set(re.findall(r"\\begin\{(\w+)\}", text)):
            assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}"), file
        assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
        assert not re.search(r"(?<!\\)[%#_]", text.split("\\label")[0] + body) and text.isascii(), file


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(documents, tmp_path):
    names = "".join(f"\\input{{{file}}}\n" for file in documents)
    (tmp_path / "all.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage{booktabs,graphicx}\\begin{document}\n"
        + names
        + "\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout, "a table is wider than the page"


def test_the_papers_tables_give_ours_and_theirs_with_the_verdict(documents):
    text = (documents[0].parent / "table1.md").read_text()
    row = next(line for line in text.splitlines() if "SCOPE-fast" in line and "skyreels" in line)
    assert "(4.73×)" in row and "not comparable (tiny preset)" in row
    assert "– (2.55×)" in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 21
