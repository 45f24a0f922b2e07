"""The noise floors are measured and mark rows; "better" is said where paired intervals keep clear, and only there."""

import json

import numpy as np
import pandas as pd
import pytest

from baselines.original_seed import OriginalSeed
from reports import floor, formats, page, paired, paper, tables
from reports.records import load
from reports.terminal_table import print_main
from store import Store
from tests.synthetic import CELLS, make_store

PROMPTS = [f"a circle number {n}" for n in range(5)]
FLOORS = {
    ("original", None): CELLS["original", None],
    ("original_repeat", None): (2.0, 1.0, 0.0005),
    ("original_seed", None): (2.0, 1.0, 0.3),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Rows at each floor and one between, and what the Original's mp4 loses."""
    root = tmp_path_factory.mktemp("floors")
    cells = FLOORS | {
        ("teacache", "slow"): (1.2, 0.6, 0.0005),
        ("teacache", "fast"): (0.9, 0.4, 0.3),
        ("scope", "slow"): (0.8, 0.4, 0.004),
        ("scope", "fast"): (0.6, 0.3, 0.05),
    }
    make_store(root, cells=cells, prompts=PROMPTS, videos=False)
    for n, record in enumerate(r for r in Store(root).records() if r.run["method"] == "original"):
        loss = {"psnr": 40.0 + 0.1 * n, "ssim": 0.98, "lpips": 0.004}
        record.write_json("quality.json", record.quality | {"preview": loss})
    return load(root)


@pytest.fixture(scope="module")
def main(study):
    return tables.main(study).set_index("name", drop=False)


def test_a_row_is_marked_with_the_nearest_floor_that_it_does_not_leave(main):
    reached = {name: floor.shown(marks) for name, marks in main["marks"].items()}
    assert reached == {
        "Original": "",
        "Original, repeated": "",
        "Original, other seed": "",
        "TeaCache slow": "= floor",
        "TeaCache fast": "= other seed",
        "SCOPE slow": "= mp4",
        "SCOPE fast": "",
    }


def test_the_floors_stand_under_the_table_in_numbers_and_every_mark_is_explained(study, main):
    text = formats.markdown(study, main)
    line = next(line for line in text.splitlines() if line.startswith("Floors of skyreels_tiny"))
    for words in ("run twice LPIPS 0.00", "as its mp4 preview LPIPS 0.0040, SSIM 0.9800, PSNR 40.20 [", "another seed"):
        assert words in line
    for mark, meaning in floor.MARKS.items():
        assert f"{mark}: {meaning}." in text and any(mark in row for row in text.splitlines() if row.startswith("| "))


def test_floors_that_were_not_measured_are_named_with_what_measures_them(tmp_path):
    make_store(tmp_path, cells={("original", None): (2, 1, 0), ("scope", "fast"): (0.6, 0.3, 0)}, videos=False)
    study = load(tmp_path)
    said = " ".join(tables.notes(study, tables.main(study)))
    assert "not measured on skyreels_tiny: method=original_repeat, method=original_seed, python -m eval" in said


def test_the_original_of_another_seed_is_the_original_with_another_noise():
    assert OriginalSeed(offset=7).reseed(3) == 10
    with pytest.raises(ValueError, match="original_repeat"):
        OriginalSeed(offset=0)


def made(values: dict[str, np.ndarray], prompts: list[str]) -> tuple[object, pd.DataFrame]:
    """A study of made-up LPIPS per method, and its main table."""
    videos = [
        {
            "model": "m",
            "method": method,
            "speed": "",
            "variant": "",
            "status": "ok",
            "prompt": prompt,
            "seed": 0,
            "reference": f"o{n}",
            "lpips": value,
        }
        for method, own in values.items()
        for n, (prompt, value) in enumerate(zip(prompts, own, strict=True))
    ]
    rows = [
        {
            "model": "m",
            "method": method,
            "speed": "",
            "variant": "",
            "name": method,
            "videos": len(own),
            "lpips": own.mean(),
        }
        for method, own in values.items()
    ]
    return type("Study", (), {"videos": pd.DataFrame(videos)})(), pd.DataFrame(rows)


def test_better_is_said_of_a_paired_difference_that_the_means_intervals_hide():
    rng = np.random.default_rng(0)
    shared = rng.gamma(2, 0.1, 24)  # what the prompts do is far larger than what the methods do
    study, frame = made(
        {
            "near": shared,
            "far": shared + 0.01 + 0.005 * rng.normal(size=24),
            "same": shared + 0.005 * rng.normal(size=24),
        },
        [f"p{n}" for n in range(24)],
    )
    metric = [tables.BY_NAME["lpips"]]
    pairs = paired.compare(study, frame, metric).set_index("against")
    assert pairs.loc["far", "verdict"] == "better" and pairs.loc["far", "difference"] < -0.005
    assert pairs.drop("far")["verdict"].tolist() == ["not told apart"]
    assert set(paired.best(frame, pairs.reset_index())) == {""}
    only = paired.compare(study, frame[frame["name"] != "same"], metric)
    assert paired.best(frame, only).tolist() == ["lpips", "", ""]
    said = paired.lines(pairs.reset_index(), metric)[0]
    assert "24 pairs" in said and said.endswith(f"{pairs.drop('far')['videos_needed'].iloc[0]:.0f} wanted.")


def test_rows_without_common_videos_or_with_one_prompt_are_not_told_apart():
    study, frame = made({"a": np.array([0.1, 0.2]), "b": np.array([0.3, 0.5])}, ["p", "p"])
    metric = [tables.BY_NAME["lpips"]]
    assert paired.compare(study, frame, metric)["verdict"].tolist() == ["one prompt only"]
    study.videos.loc[study.videos["method"] == "b", "reference"] = "elsewhere"
    pairs = paired.compare(study, frame, metric)
    assert pairs["verdict"].tolist() == ["no videos in common"] and set(paired.best(frame, pairs)) == {""}
    assert "no videos in common" in paired.lines(pairs, metric)[0]


def test_few_prompts_are_said_under_the_table(study, tmp_path):
    make_store(tmp_path / "few", cells=dict(list(FLOORS.items())[:1]), prompts=PROMPTS[:4], videos=False)
    few = load(tmp_path / "few")
    assert any(note.startswith("Few prompts (4)") for note in tables.notes(few, tables.main(few)))
    make_store(tmp_path / "many", cells=dict(list(FLOORS.items())[:1]), prompts=PROMPTS[:5], videos=False)
    many = load(tmp_path / "many")
    assert not any(note.startswith("Few prompts") for note in tables.notes(many, tables.main(many)))


def test_an_interval_stays_within_what_a_metric_can_be(tmp_path):
    make_store(tmp_path, cells=FLOORS, prompts=PROMPTS[:5], videos=False)
    repeats = [r for r in Store(tmp_path).records() if r.run["method"] == "original_repeat"]
    for record, lpips in zip(repeats, (0.001, 0.002, 0.004, 0.03, 1.4), strict=True):
        record.write_json("quality.json", record.quality | {"lpips": lpips, "ssim": 1 - lpips})
    line = tables.main(load(tmp_path)).set_index("method").loc["original_repeat"]
    assert 0 < line["lpips_low"] < line["lpips"] and line["lpips_high"] == np.inf
    assert line["ssim_low"] == -1 and line["ssim_high"] < 1
    assert ", ∞]" in tables.shown(line, tables.BY_NAME["lpips"], interval=True)


def test_every_table_says_its_videos_prompts_metric_versions_and_vbench_protocol(study, main, capsys, tmp_path):
    folder = study.root / "vbench" / "skyreels_tiny"
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "package": {"vbench": "0.1.5"},
        "protocol": "long",
        "notes": [],
        "total": None,
        "total_lacks": ["color"],
        "prompts": {"kind": "custom", "used": 5, "of": None, "sha256": "ab" * 32},
    }
    (folder / "scope-fast.json").write_text(json.dumps(about))
    formats.write(study, main, tmp_path)
    paper.write(study, main, tmp_path)
    print_main(study.root)
    printed = " ".join(capsys.readouterr().out.split())
    texts = [(tmp_path / name).read_text() for name in ("main.md", "main.tex", "main_protocol.txt")]
    assert all("lossless" in text for text in [*texts, printed])
    texts += [(tmp_path / name).read_text() for name in ("tables/table1.md", "tables/table2.tex", "paper.html")]
    for text in [*texts, printed, page.render(study, main, [])]:
        for words in (
            "35 videos, invalid 0, failed 0",
            "5 prompts, set ",
            "lpips alex",
            "VBench: version 0.1.5, protocol long, 5 prompts (custom), set abababababab",
        ):
            assert words in text
