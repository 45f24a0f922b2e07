"""Reference lines are measured and mark lines; a line is "better" only if its paired intervals exclude zero."""

import json

import numpy as np
import pandas as pd
import pytest

from baselines.original_seed import OriginalSeed
from reports import formats, page, paired, paper, read, reference_lines
from reports.line import Line, shown
from reports.metric import BY_NAME
from reports.notes import notes
from reports.paired import Finding
from reports.statistics import Estimate
from reports.terminal_table import print_main, print_notes
from store import Store
from tests.synthetic import CELLS, make_store

PROMPTS = [f"a circle number {n}" for n in range(5)]
REFERENCES = {
    ("original", None): CELLS["original", None],
    ("original_repeat", None): (2.0, 1.0, 0.0005),
    ("original_seed", None): (2.0, 1.0, 0.3),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A line as near as each reference line and one in between, and similarities of the Original's mp4."""
    root = tmp_path_factory.mktemp("rows")
    cells = REFERENCES | {
        ("teacache", "slow"): (1.2, 0.6, 0.0005),
        ("teacache", "fast"): (0.9, 0.4, 0.3),
        ("scope", "slow"): (0.8, 0.4, 0.004),
        ("scope", "fast"): (0.6, 0.3, 0.05),
    }
    make_store(root, cells=cells, prompts=PROMPTS, videos=False)
    for n, record in enumerate(r for r in Store(root).records() if r.run["method"] == "original"):
        loss = {"psnr": 40.0 + 0.1 * n, "ssim": 0.98, "lpips": 0.004}
        record.write_json("quality.json", record.quality | {"preview": loss})
    return read(root)


def test_a_line_is_marked_with_the_nearest_reference_row_that_it_reaches(report):
    reached = {line.name: reference_lines.reached(line) for line in report.lines}
    assert reached == {
        "Original": "",
        "Original, repeated": "",
        "Original, other seed": "",
        "TeaCache slow": "= repeat",
        "TeaCache fast": "= other seed",
        "SCOPE slow": "= mp4",
        "SCOPE fast": "",
    }


def test_the_notes_hold_the_reference_lines_in_numbers_and_explain_every_mark(report):
    text = formats.markdown(report)
    line = next(line for line in text.splitlines() if line.startswith("Reference lines of skyreels_tiny"))
    for words in ("run twice LPIPS 0.00", "its mp4 preview LPIPS 0.0040, SSIM 0.9800, PSNR 40.20 [", "another seed"):
        assert words in line
    for kind, meaning in reference_lines.MEANING.items():
        assert f"{kind.value}: {meaning}." in text
        assert any(kind.value in row for row in text.splitlines() if row.startswith("| "))


def test_missing_reference_lines_are_named_with_what_adds_them(tmp_path):
    make_store(tmp_path, cells={("original", None): (2, 1, 0), ("scope", "fast"): (0.6, 0.3, 0)}, videos=False)
    said = " ".join(notes(read(tmp_path)))
    assert (
        "Reference lines missing on skyreels_tiny, and what adds them: method=original_repeat, method=original_seed"
        in said
    )


def test_the_original_of_another_seed_is_the_original_with_another_noise():
    assert OriginalSeed(offset=7).reseed(3) == 10
    with pytest.raises(ValueError, match="original_repeat"):
        OriginalSeed(offset=0)


def line_of(method: str, values: np.ndarray, prompts: list[str], originals: str = "o") -> Line:
    """A line with the given LPIPS values, one video per prompt."""
    videos = [
        {"status": "ok", "prompt": prompt, "reference": f"{originals}{n}", "lpips": value}
        for n, (prompt, value) in enumerate(zip(prompts, values, strict=True))
    ]
    estimates = {"lpips": Estimate(float(values.mean()), np.nan, np.nan)}
    return Line("m", method, "", "", method, pd.DataFrame(videos), estimates, {}, {}, "", {})


LPIPS = [BY_NAME["lpips"]]


def test_better_is_said_of_a_paired_difference_that_the_means_intervals_hide():
    rng = np.random.default_rng(0)
    shared = rng.gamma(2, 0.1, 24)  # what the prompts do is far larger than what the methods do
    prompts = [f"p{n}" for n in range(24)]
    near, far, same = (
        line_of(name, values, prompts)
        for name, values in (
            ("near", shared),
            ("far", shared + 0.01 + 0.005 * rng.normal(size=24)),
            ("same", shared + 0.005 * rng.normal(size=24)),
        )
    )
    pairs = paired.compare([near, far, same], LPIPS)
    against = {pair.other.name: pair for pair in pairs}
    assert against["far"].finding is Finding.BETTER and against["far"].difference.value < -0.005
    (close,) = (pair for name, pair in against.items() if name != "far")
    assert close.finding is Finding.OPEN
    assert set(paired.best([near, far, same], pairs)) == {frozenset()}
    assert paired.best([near, far, same], paired.compare([near, far], LPIPS)) == [{"lpips"}, set(), set()]
    said = paired.notes(pairs)[0]
    assert "24 pairs" in said and said.endswith(f"{close.videos_needed:.0f} needed.")


def test_lines_without_common_videos_or_with_one_prompt_have_no_significant_difference():
    first, second = line_of("a", np.array([0.1, 0.2]), ["p", "p"]), line_of("b", np.array([0.3, 0.5]), ["p", "p"])
    assert [pair.finding for pair in paired.compare([first, second], LPIPS)] == [Finding.ONE_PROMPT]
    elsewhere = line_of("b", np.array([0.3, 0.5]), ["p", "p"], originals="x")
    pairs = paired.compare([first, elsewhere], LPIPS)
    assert [pair.finding for pair in pairs] == [Finding.NO_VIDEOS]
    assert set(paired.best([first, elsewhere], pairs)) == {frozenset()}
    assert "no videos in common" in paired.notes(pairs)[0]


def test_few_prompts_are_said_under_the_table(tmp_path):
    make_store(tmp_path / "few", cells=dict(list(REFERENCES.items())[:1]), prompts=PROMPTS[:4], videos=False)
    assert any(note.startswith("Few prompts (4)") for note in notes(read(tmp_path / "few")))
    make_store(tmp_path / "many", cells=dict(list(REFERENCES.items())[:1]), prompts=PROMPTS[:5], videos=False)
    assert not any(note.startswith("Few prompts") for note in notes(read(tmp_path / "many")))


def test_an_interval_stays_within_what_a_metric_can_be(tmp_path):
    make_store(tmp_path, cells=REFERENCES, prompts=PROMPTS[:5], videos=False)
    repeats = [r for r in Store(tmp_path).records() if r.run["method"] == "original_repeat"]
    for record, lpips in zip(repeats, (0.001, 0.002, 0.004, 0.03, 1.4), strict=True):
        record.write_json("quality.json", record.quality | {"lpips": lpips, "ssim": 1 - lpips})
    line = next(line for line in read(tmp_path).lines if line.method == "original_repeat")
    value, low, high = line.estimates["lpips"]
    assert 0 < low < value and high == np.inf
    assert line.estimates["ssim"].low == -1 and line.estimates["ssim"].high < 1
    assert ", ∞]" in shown(line, BY_NAME["lpips"], interval=True)


def test_every_table_says_its_videos_prompts_metric_versions_and_vbench_protocol(report, capsys, tmp_path):
    folder = report.study.root / "vbench" / "skyreels_tiny"
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
    formats.write(report, tmp_path)
    paper.write(report, tmp_path)
    print_notes(report)
    print_main(report)
    printed = " ".join(capsys.readouterr().out.split())
    texts = [(tmp_path / name).read_text() for name in ("main.md", "main.tex", "main_protocol.txt")]
    assert all("lossless" in text for text in [*texts, printed])
    texts += [(tmp_path / name).read_text() for name in ("tables/table1.md", "tables/table2.tex", "paper.html")]
    for text in [*texts, printed, page.render(report, [])]:
        for words in (
            "35 videos, invalid 0, failed 0",
            "5 prompts, set ",
            "lpips alex",
            "VBench: version 0.1.5, protocol long, 5 prompts (custom), set abababababab",
        ):
            assert words in text
