"""A published cell is judged only where ours ran at the paper's setting, on enough prompts, and not against itself."""

import json

import pytest

from reports import read
from reports.paper import table
from reports.text_claims import counts, others
from reports.verdict import Outcome
from tests.synthetic import SIX, make_store, produced_by

ORIGINAL = {("original", None): (2.0, 1.0, 0.0)}
SCOPE = {"tau_cache": 0.12, "tau_predict": 0.30, "max_skip": 5, "decay": 0.75, "selective": "prefix"}
MAGI_SCOPE = SCOPE | {"tau_cache": 0.08, "tau_predict": 0.15, "selective": "none"}


def add(root, model, method, setting=None, prompts=SIX, speed=None, seconds=0.5, **changed):
    """Records of a method beside Originals of the same setting."""
    for cells, own in ((ORIGINAL, {}), ({(method, speed): (seconds, 0.2, 0.02)}, setting or {})):
        make_store(
            root,
            model=model,
            cells=cells,
            prompts=prompts,
            videos=False,
            produced_by=produced_by(model, own, **changed),
        )


def judged(root):
    return table(read(root).verdicts).set_index(["table", "model", "row"])


def scope(root, setting=SCOPE, **more):
    add(root, "skyreels", "scope", setting, **more)
    return judged(root).loc["table2", "skyreels", "1: 0.12, 0.30"]


NUMBERS = ("speedup", "lpips", "ssim", "psnr")


def test_scope_at_the_papers_setting_is_judged(tmp_path):
    row = scope(tmp_path, seconds=2.2 / 4.11 - 0.2)
    assert row["verdict_speedup"] == "matches" and row["verdict_time_s"] == "not comparable: another GPU"
    assert all(row[f"verdict_{name}"].startswith(("matches", "differs")) for name in NUMBERS)


@pytest.mark.parametrize(
    "setting, more, why",
    [
        (
            SCOPE | {"max_skip": 50, "selective": "none"},
            {"frames": 97},
            "97 frames where the paper has 257, max_skip 50 where the paper has 5, "
            "no selective computation where the paper has it",
        ),
        (SCOPE | {"max_skip": 50}, {}, "max_skip 50 where the paper has 5"),
        (SCOPE | {"decay": 0.5}, {}, "decay 0.5 where the paper has 0.75"),
        (SCOPE | {"selective": "none"}, {}, "no selective computation where the paper has it"),
        (SCOPE | {"predictor": "taylor1"}, {}, "predictor taylor1 where the paper has newton2"),
        (SCOPE | {"tau_predict": 0.31}, {"speed": "table2_row1"}, "tau_predict 0.31 where the paper has 0.3"),
        (SCOPE, {"guidance": 1.0}, "guidance 1 where the paper has 6"),
        (SCOPE, {"attention": "block_causal"}, "attention block_causal where the paper has full"),
        (SCOPE, {"ar_step": 0}, "ar_step 0 where the paper has 5"),
        (SCOPE, {"architecture": {"num_layers": 2}}, "architecture.num_layers 2 where the paper has 30"),
        (SCOPE, {"overlap": None}, "overlap is not recorded where the paper has 17"),
        (SCOPE, {"prompts": SIX[:1]}, "1 prompt where an interval needs 5"),
        (SCOPE, {"prompts": SIX[:4]}, "4 prompts where an interval needs 5"),
    ],
)
def test_scope_at_another_setting_is_not_comparable_and_says_what_differs(tmp_path, setting, more, why):
    row = scope(tmp_path, setting, **more)
    assert {row[f"verdict_{name}"] for name in NUMBERS} == {f"not comparable: {why}"}
    assert (row["verdict"], row["why"]) == ("not comparable", why)


def test_one_video_of_another_setting_spoils_its_row(tmp_path):
    scope(tmp_path)  # its records are kept; the new prompt is one that the Original has as well
    make_store(
        tmp_path,
        model="skyreels",
        cells={("original", None): (2.2, 1.0, 0.0), ("scope", None): (0.5, 0.2, 0.02)},
        prompts=[*SIX, "one more"],
        videos=False,
        produced_by=produced_by("skyreels", SCOPE, steps=30),
    )
    row = judged(tmp_path).loc["table2", "skyreels", "1: 0.12, 0.30"]
    assert row["verdict_lpips"] == "not comparable: 30 steps where the paper has 50"


def test_the_row_of_the_papers_setting_is_preferred_to_a_variant_before_it(tmp_path):
    add(tmp_path, "skyreels", "scope", SCOPE, speed="another", frames=97)
    add(tmp_path, "skyreels", "scope", SCOPE, speed="table2_row1")
    row = judged(tmp_path).loc["table2", "skyreels", "1: 0.12, 0.30"]
    assert row["reproduced"] == "skyreels: SCOPE table2_row1"


@pytest.mark.parametrize("model, theirs, whole", [("skyreels", "skyreels", "50step"), ("magi1", "magi", "64step")])
def test_a_lone_original_matches_nothing_by_its_ratio_to_itself(tmp_path, model, theirs, whole):
    make_store(
        tmp_path, model=model, cells=ORIGINAL, prompts=SIX, videos=False, flops=9e15, produced_by=produced_by(model)
    )
    lines = judged(tmp_path)
    first, last = lines.loc["table1", theirs, "Original"], lines.loc["table12", theirs, f"Original-{whole}"]
    assert first["speedup"] == first["flops_speedup"] == 1 and not (lines["verdict"] == "matches").any()
    assert {first[f"verdict_{name}"] for name in ("speedup", "flops_speedup", "lpips", "ssim")} == {"by definition"}
    assert (first["verdict"], first["why"]) == ("differs", "PFLOP")
    assert (last["verdict"], last["why"]) == ("not comparable", "another GPU")


@pytest.mark.parametrize(
    "changed, why",
    [
        ({}, ""),
        (
            {"frames": 97, "height": 64, "width": 64, "guidance": 1.0},
            "97 frames where the paper has 257, height 64 where the paper has 544, width 64 where the paper has 960, "
            "guidance 1 where the paper has 6",
        ),
        ({"steps": 40}, "40 steps where the paper has 50"),
    ],
)
def test_fewer_steps_are_compared_at_the_papers_setting_only(tmp_path, changed, why):
    add(tmp_path, "skyreels", "reduced_steps", {"fraction": 0.2}, seconds=2.2 / 4.4 - 0.2, **changed)
    row = judged(tmp_path).loc["table12", "skyreels", "Original-10step"]
    assert row["verdict_speedup"] == (f"not comparable: {why}" if why else "matches")
    assert all(row[f"verdict_{name}"].startswith("not comparable") for name in NUMBERS) == bool(why)


@pytest.mark.parametrize(
    "setting, more, why",
    [
        (MAGI_SCOPE, {}, ""),
        (MAGI_SCOPE, {"kv_range": [5, 4, 3, 2]}, "kv_range [5, 4, 3, 2] where the paper has the full range"),
        (MAGI_SCOPE, {"distill": False}, "distill false where the paper has true"),
        (MAGI_SCOPE, {"steps": 16}, "16 steps where the paper has 64"),
        (MAGI_SCOPE | {"decay": 0.9}, {}, "decay 0.9 where the paper has 0.75"),
    ],
)
def test_magi_needs_its_own_setting(tmp_path, setting, more, why):
    add(tmp_path, "magi1", "scope", setting, **more)
    found = judged(tmp_path).loc["table2", "magi", "4: 0.08, 0.15"]["verdict_lpips"]
    assert found == f"not comparable: {why}" if why else found.startswith(("matches", "differs"))


def test_a_dry_run_of_another_setting_is_no_count_of_the_papers(tmp_path):
    path = tmp_path / "plan" / "skyreels" / "original.json"
    path.parent.mkdir(parents=True)
    make_store(tmp_path, cells=ORIGINAL, prompts=SIX[:1], videos=False)
    other = "not comparable: 97 frames where the paper has 257"
    for frames, cell, count in ((257, "FLOPs match: counted by a dry run", "matches"), (97, other, other)):
        path.write_text(json.dumps({"flops_pf": {"dense": 245.0}, "settings": {"frames": frames}}))
        rows = judged(tmp_path).loc["table1", "skyreels", "Original"].set_index("reproduced")
        assert rows.loc["skyreels: counted by a dry run", "verdict_flops_pf"] == cell
        line = next(line for line in counts(read(tmp_path).study) if line.what == "skyreels: PFLOP")
        assert str(line.verdict) == count


@pytest.mark.parametrize("frames, judged", [(257, True), (97, False)])
def test_peak_memory_is_judged_at_the_papers_frames_only(tmp_path, frames, judged):
    make_store(
        tmp_path,
        model="skyreels",
        cells=ORIGINAL,
        prompts=SIX,
        videos=False,
        produced_by=produced_by("skyreels", frames=frames),
    )
    verdict = next(line.verdict for line in others(read(tmp_path)) if "257 frames, Original" in line.what)
    assert verdict.outcome is (Outcome.DIFFERS if judged else Outcome.NOT_COMPARABLE)
    assert judged or verdict.reason == "97 frames where the paper has 257"
