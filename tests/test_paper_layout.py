"""The table in the paper's layout: its lines and marks, and that it compiles and fits a two-column article."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from reports import layouts, paper_layout, ranks, read
from reports.__main__ import main as command
from reports.groups import groups
from reports.line import shown
from reports.marks import Kind, Mark
from reports.metric import BY_NAME
from reports.ranks import Rank
from tests.synthetic import CELLS, PROMPTS, SIX, make_store, produced_by

LONG = {"method.a_setting_with_a_long_name": "anothervaluewithoutanyspaceinit", "method.tau_cache": 0.125}
STAND_IN = r"""\ProvidesPackage{threeparttable}
\newenvironment{threeparttable}{\begin{minipage}{\textwidth}}{\end{minipage}}
\newenvironment{tablenotes}[1][]{\begin{list}{}{\leftmargin0pt\labelwidth0pt\itemindent0pt}}{\end{list}}
\newcommand{\tnote}[1]{\textsuperscript{#1}}
"""


def packaged(name):
    """Whether LaTeX has a package."""
    return (
        bool(shutil.which("kpsewhich"))
        and not subprocess.run(["kpsewhich", f"{name}.sty"], capture_output=True).returncode
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two full-size models with six prompts, lines of other frames, a long variant, and a tiny preset."""
    folder = tmp_path_factory.mktemp("store")
    few = {name: CELLS[name] for name in (("original", None), ("scope", "fast"))}
    for model in ("skyreels", "magi1"):
        own = {"model": model, "videos": False}
        make_store(folder, prompts=SIX, flops=245e15, produced_by=produced_by(model), **own)
        make_store(
            folder,
            prompts=SIX,
            cells=few,
            changed={"model.frames": 97},
            produced_by=produced_by(model, frames=97),
            **own,
        )
    variant = {("scope", "fast"): CELLS["scope", "fast"]}
    make_store(
        folder,
        "skyreels",
        SIX,
        variant,
        changed=LONG,
        flops=245e15,
        produced_by=produced_by("skyreels"),
        videos=False,
        point={"turned": ["tau_cache"]},
    )
    make_store(folder, prompts=PROMPTS, videos=False)
    return read(folder)


def test_lines_of_one_model_and_setting_stand_together(report):
    found = [(group.title, group.setting, [line.name for line in group.lines][-2:]) for group in groups(report)]
    long = "SCOPE fast (a_setting_with_a_long_name=anothervaluewithoutanyspaceinit, tau_cache=0.125)"
    size, points = "544×960, 50 steps, 6 prompts", ["SCOPE slow", "SCOPE fast"]
    assert found == [
        ("SkyReels-V2", f"257 frames, {size}", ["SCOPE fast", long]),
        ("SkyReels-V2, frames=97", f"97 frames, {size}", ["Original", "SCOPE fast"]),
        ("MAGI-1", "240 frames, 480×480, 64 steps, 6 prompts", points),
        ("MAGI-1, frames=97", "97 frames, 480×480, 64 steps, 6 prompts", ["Original", "SCOPE fast"]),
        ("SkyReels-V2, tiny preset", "33 frames, 3 prompts", points),
    ]
    assert [group.left_out for group in groups(report)] == [1, 0, 1, 0, 1]  # the Original run twice


def test_the_best_two_of_a_group_are_marked_and_equal_values_share_a_mark(report):
    first, other, magi, *_ = groups(report)
    places = ranks.places(magi.lines)
    marked = {
        rank: {
            line.name: metric for line in magi.lines for metric in ("psnr",) if places.get((line.key, metric)) is rank
        }
        for rank in Rank
    }
    assert marked == {Rank.BEST: {"SCOPE slow": "psnr"}, Rank.SECOND: {"SCOPE fast": "psnr"}}
    equal = [line.name for line in first.lines if ranks.places(first.lines).get((line.key, "flops_pf")) is Rank.BEST]
    assert len(equal) == 2 and all(name.startswith("SCOPE fast") for name in equal)
    assert ranks.places(other.lines) == {}  # one accelerated line is not the best of one
    assert not any(key[1] == "original" for key, _ in places)


def test_two_lines_have_a_best_and_no_second(report):
    lines = groups(report)[2].lines[-2:]
    assert set(ranks.places(lines).values()) == {Rank.BEST}


def test_a_time_within_the_spread_of_the_original_has_no_mark(report):
    lines = groups(report)[2].lines
    slow = [
        replace(line, marks=(*line.marks, Mark(Kind.REPEAT_SPEED))) if line.speed == "fast" else line for line in lines
    ]
    best = [line.name for line in lines if ranks.places(slow).get((line.key, "speedup")) is Rank.BEST]
    assert best == ["SCOPE slow"]


def test_the_table_has_the_papers_columns_a_caption_of_two_sentences_and_its_notes_below(report):
    text = paper_layout.latex(report)
    head = next(line for line in text.splitlines() if line.startswith("Method"))
    titles = [re.sub(r" \$.*", "", cell).strip() for cell in head.split("&")]
    assert titles == ["Method", "s", "speedup", "P", "speedup", "VBench", "LPIPS", "SSIM", "PSNR"]
    caption = re.search(r"\\caption\{(.*)\}\n", text)[1]
    assert caption.count(". ") == 1 and caption.endswith("underlined.") and "SkyReels-V2, MAGI-1 and" in caption
    rows = [line for line in text.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
    assert all(line.replace("\\&", "").count("&") == 8 for line in rows)
    line = next(line for line in groups(report)[-1].lines if line.name == "SCOPE fast")
    row = next(row for row in reversed(rows) if row.startswith("SCOPE fast\\tnote") and "\\underline{28" in row)
    assert f"\\textbf{{{shown(line, BY_NAME['time_s'])}}}" in row and "\\underline" in row
    notes = text.split("\\begin{tablenotes}")[1]
    assert "\\item[$\\dagger$] Estimated by us" in notes and "VBench, not computed" in notes
    assert "\\P] Tuned on calibration prompts" in notes and "(3 lines)" in notes
    assert text.isascii()


def test_what_is_significant_is_said_under_the_marks(report):
    text = paper_layout.latex(report)
    assert "The best value is not significantly better than every other one" in text
    assert (
        re.search("every other one .*? in (.*?)\\.", text)[1]
        == "time (s), speedup, PFLOP, FLOPs speedup on SkyReels-V2"
    )


def test_many_variants_are_left_out_and_a_long_table_goes_on_in_the_next_float(tmp_path, report, monkeypatch):
    monkeypatch.setattr(paper_layout, "MOST_LINES", 5)
    text = paper_layout.latex(report)
    floats = text.split("\\begin{table*}")[1:]
    assert len(floats) > 3 and "(continued)" not in floats[0] and all("(continued)" in one for one in floats[1:])
    assert all(one.count("\\multicolumn{9}") + len(re.findall(r"& 1\.00|&.*\\times", one)) <= 5 * 2 for one in floats)
    names = [line.name for group in groups(report) for line in group.lines]
    assert sum(one.split("\\begin{tablenotes}")[0].count("\\\\\n") for one in floats) - 2 * len(floats) - text.count(
        "\\multicolumn{9}"
    ) == len(names)
    monkeypatch.setattr("reports.groups.MOST_LINES", 3)
    assert all("(" not in line.name for group in groups(report) for line in group.lines)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
@pytest.mark.parametrize("package", ["the package", "a stand-in"])
def test_the_table_compiles_and_fits_the_width_of_a_two_column_article(report, tmp_path, package):
    if package == "a stand-in":
        (tmp_path / "threeparttable.sty").write_text(STAND_IN)
    elif not packaged("threeparttable"):
        pytest.skip("threeparttable.sty is not installed (Debian: texlive-latex-extra)")
    path = paper_layout.write(report, tmp_path)
    document = "\\documentclass[twocolumn]{article}\\usepackage{booktabs,threeparttable}\\begin{document}"
    (tmp_path / "all.tex").write_text(f"{document}\\input{{{path.name}}}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout and "Float too large" not in done.stdout and "[1" in done.stdout


def test_an_empty_folder_gives_no_table(tmp_path):
    assert paper_layout.latex(read(tmp_path)) == "% no record to report\n"


@pytest.mark.parametrize("words", [["table=theirs"], ["table="], ["table=paper", "table=full"]])
def test_a_layout_that_is_none_is_refused_in_one_line(words):
    with pytest.raises(ValueError, match="give one of table=paper, table=full") as refused:
        layouts.asked(["results", *words])
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_the_command_prints_the_layout_that_is_asked_for(report, capsys):
    assert command([str(report.study.root), "table=paper"]) == 0
    assert capsys.readouterr().out == paper_layout.latex(report)
    assert "tab:table1" in layouts.latex([report.study.root], "full")
