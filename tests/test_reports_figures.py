"""What a figure or a printed table must not hide: invalid videos, identical frames, rows with long names."""

import json
import warnings

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from reports import curves, figures, formats, read, style
from reports.contrast import GROUNDS, MARK, contrast
from reports.records import load
from reports.style import LONGEST_NAME, MODES
from reports.write import draw
from store import Store
from sweep.loggers import COLOURS as sweep_colours
from tests.synthetic import CELLS, make_store

MODEL = "skyreels_tiny"
LONG = {"method.coefficients": [0.123456789] * 12, "method.interval_ratio": [0.9, 0.8, 0.7], "model.frames": 33}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    make_store(folder, cells={key: CELLS[key] for key in (("original", None), ("scope", "fast"), ("teacache", "fast"))})
    make_store(folder, cells={("scope", "fast"): CELLS["scope", "fast"]}, videos=False, changed=LONG)
    return folder


def edit(root, method, change, first=True):
    """`change` the quality.json of the first (or of every) record of `method`; returns how many."""
    found = [r for r in Store(root).records() if r.run["method"] == method and r.quality and not r.run.get("changed")]
    for record in found[: 1 if first else None]:
        record.write_json("quality.json", change(json.loads(json.dumps(record.quality))))
    return len(found)


def test_figures_keep_their_axes_where_names_are_long(root):
    report = read(root)
    assert max(len(line.name) for line in report.lines) > 80
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = [(kind, figure) for kind, _, _, figure in draw(report) if figure is not None]
        for kind, figure in drawn:
            figure.draw_without_rendering()
            width = figure.get_size_inches()[0]
            assert all(axes.get_position().width * width > 0.5 for axes in figure.axes), f"{kind}: no room left"
    assert {"speed_quality", "radar", "memory", "timeline", "drift"} <= {kind for kind, _ in drawn}
    texts = [t.get_text() for _, f in drawn for a in f.axes for t in (*a.texts, *a.get_yticklabels())]
    assert max(len(line) for text in texts for line in text.split("\n")) <= LONGEST_NAME


@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
@pytest.mark.parametrize("mode", MODES)
def test_the_colour_of_a_decision_is_seen_on_a_light_and_on_a_dark_page(mode, ground):
    assert contrast(MODES[mode], ground) >= MARK
    assert sweep_colours[mode] == tuple(int(MODES[mode][n : n + 2], 16) for n in (1, 3, 5))


def test_a_radar_has_at_most_five_axes_and_its_caption_explains_each(root):
    caption, figure = next((caption, figure) for kind, _, caption, figure in draw(read(root)) if kind == "radar")
    named = [label.get_text().split("\n")[0] for label in figure.axes[0].get_xticklabels()]
    assert 3 <= len(named) <= figures.AXES
    assert not [name for name in named if name.lower() not in caption.lower()]


def test_an_interval_that_would_fill_the_panel_is_said_and_not_drawn(root):
    frame = read(root).numbers
    plain = frame["variant"] == ""
    frame.loc[plain, ["psnr_low", "psnr_high"]] = np.add.outer(frame.loc[plain, "psnr"].to_numpy(), (-0.1, 0.1))
    assert "PSNR" not in figures.undrawn(frame, MODEL)
    wide = plain & (frame["method"] == "teacache")
    frame.loc[wide, ["psnr_low", "psnr_high"]] = [0.0, 99.0]
    assert "PSNR (dB) of TeaCache fast" in figures.undrawn(frame, MODEL)
    figure = figures.speed_quality(frame, MODEL)
    psnr = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("PSNR"))
    ends = [y for lines in psnr.collections for path in lines.get_paths() for y in path.vertices[:, 1]]
    assert max(ends) < 99 and min(ends) > 0


def test_a_video_with_one_identical_frame_stays_in_the_drift_curve(root):
    before = curves._curves(load(root), MODEL, "psnr")

    def identical(quality):
        quality["per_frame"]["psnr"][3] = None
        return quality

    edit(root, "teacache", identical)
    after = curves._curves(load(root), MODEL, "psnr")
    assert [len(values) for *_, values in after] == [len(values) for *_, values in before]
    drawn = next(values for row, *_, values in after if row["method"] == "teacache")
    others = np.concatenate([values.ravel() for *_, values in after])
    assert np.isfinite(others).all() and drawn[:, 3].max() == others.max()


def test_invalid_videos_have_no_say_in_the_radar_and_are_counted_in_every_table(root):
    count = edit(root, "teacache", lambda q: q | {"adherence": {"colour": 1.0, "shape": 1.0, "direction": 1.0}}, False)
    edit(
        root,
        "teacache",
        lambda q: (
            q
            | {
                "adherence": {"colour": 0.0, "shape": 0.0, "direction": 0.0},
                "validity": {"status": "invalid", "reasons": ["black"]},
            }
        ),
    )
    report = read(root)
    line = next(line for line in report.lines if line.method == "teacache")
    assert figures._adherence(report.study, line.records) == 1.0
    assert line.counts() == {"videos": count - 1, "invalid": 1, "failed": 0, "diverged": 0}
    lines = [[cell.strip() for cell in text.split("|")] for text in formats.markdown(report).splitlines()]
    assert any(cells[2:4] == ["videos", "invalid"] for cells in lines)
    assert next(cells for cells in lines if "TeaCache fast" in cells)[2:4] == [str(count - 1), "1"]
    assert f"TeaCache fast & {count - 1} & 1 &" in formats.latex(report)


def test_the_latex_table_is_never_wider_than_the_page(root):
    text = formats.latex(read(root))
    assert text.startswith("\\begin{table*}") and "\\resizebox{\\ifdim\\width>\\textwidth" in text
    assert text.count("{") == text.count("}")


def test_a_setting_that_all_lines_share_is_not_repeated_in_a_figure(tmp_path):
    cells = {cell: CELLS[cell] for cell in (("original", None), ("scope", "fast"), ("teacache", "fast"))}
    make_store(tmp_path, cells=cells, videos=False, changed={"model.frames": 17}, frames=17)
    figure = figures.speed_quality(read(tmp_path).numbers, MODEL)
    names = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert "TeaCache fast" in names and not any("frames=17" in name for name in names)


def test_a_figure_is_drawn_once_for_each_of_its_files(tmp_path, monkeypatch):
    drawn, its_draw = [], Figure.draw

    def counted(figure, renderer):
        drawn.append(figure)
        return its_draw(figure, renderer)

    monkeypatch.setattr(Figure, "draw", counted)
    with rc_context(style.SETTINGS):
        figure = Figure((3, 2))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1])
        axes.set_ylabel("a name that needs room")
        before = axes.get_position().x0
    assert style.save(figure, tmp_path, "one") == ["one.svg", "one.png"]
    assert len(drawn) == 2 and axes.get_position().x0 != before, "the panel was not laid out"
    size = figure.get_tightbbox().size + 2 * style.SETTINGS["savefig.pad_inches"]
    with Image.open(tmp_path / "one.png") as picture:
        assert np.allclose(picture.size, size * style.SETTINGS["savefig.dpi"], atol=4)
