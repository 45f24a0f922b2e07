"""The gate: every injected fault is caught, clean videos pass, and a still video is judged by its Original."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from eval import curves, measures
from eval.signals import signals
from eval.validity import Expected, Thresholds, judge, judge_decisions
from models import shapes

T, SIZE, FPS = 49, 64, 24


def shape_video(seed: int, size: int = SIZE) -> np.ndarray:
    """A coloured shape that moves and bounces over a soft gradient, as the tiny presets are trained on: uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    ends = rng.uniform(20, 235, (2, 3))
    angle, radius, kind = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.1, 0.22), rng.integers(3)
    along = (np.cos(angle) * x + np.sin(angle) * y) / (2 * size) + 0.5
    ground = ends[0] + (ends[1] - ends[0]) * along[..., None]
    colour = np.eye(3)[rng.integers(3)] * 200 + 30
    place, step = rng.uniform(radius, size - radius, 2), size * rng.uniform(0.004, 0.03) * rng.choice([-1, 1], 2)
    frames = []
    for _ in range(T):
        dx, dy = x - place[0], y - place[1]
        inside = [
            np.hypot(dx, dy) < radius,
            np.maximum(abs(dx), abs(dy)) < radius * 0.8,
            (dy < radius / 2) & (abs(dx) * 1.7 < dy + radius),
        ][kind]
        frames.append(np.where(inside[..., None], colour, ground))
        place = place + step
        step = np.where((place < radius) | (place > size - radius), -step, step)
    return np.stack(frames).round().astype(np.uint8)


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return shape_video(0)


def _with(frames: np.ndarray, at, value) -> np.ndarray:
    frames = frames.copy()
    frames[at] = value
    return frames


def _grainy(frames: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, deviation, frames.shape)
    return (frames + noise).clip(0, 255).astype(np.uint8)


FAULTS = {
    "black": lambda v: np.zeros_like(v),
    "black in places": lambda v: _with(v, slice(20, 24), 1),
    "grey": lambda v: np.full_like(v, 127),
    "frozen": lambda v: np.repeat(v[:1], len(v), 0),
    "frozen half way": lambda v: _with(v, slice(24, None), v[24]),
    "frozen with grain": lambda v: (v[:1] + (np.random.default_rng(1).random(v.shape) < 0.01)).astype(np.uint8),
    "noise": lambda v: np.random.default_rng(1).integers(0, 256, v.shape, dtype=np.uint8),
    "noise over the picture": lambda v: _grainy(v, 45),
    "one black frame": lambda v: _with(v, 30, 0),
    "black first frame": lambda v: _with(v, 0, 0),
    "one white frame": lambda v: _with(v, 30, 255),
    "one frame short": lambda v: v[:-1],
    "one frame more": lambda v: np.concatenate([v, v[-1:]]),
    "other size": lambda v: v[:, :-2],
    "saturated": lambda v: np.where(v > 110, 255, 0).astype(np.uint8),
    "blocky": lambda v: v[:, ::8, ::8].repeat(8, 1).repeat(8, 2),
    "blocky 16": lambda v: v[:, ::16, ::16].repeat(16, 1).repeat(16, 2),
}
NAMES = {
    "black in places": "black",
    "grey": "flat",
    "frozen half way": "frozen",
    "frozen with grain": "frozen",
    "noise over the picture": "noise",
    "one black frame": "flash",
    "black first frame": "flash",
    "one white frame": "flash",
    "one frame short": "wrong count",
    "one frame more": "wrong count",
    "other size": "wrong size",
    "blocky 16": "blocky",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_injected_fault_is_caught_and_named(clean, fault):
    asked = Expected(T, SIZE, SIZE)
    for reference in (clean, shape_video(3)):
        broken = FAULTS[fault](reference)
        verdict = judge(signals([broken]), signals([reference]), asked, FPS)
        assert verdict.status == "invalid"
        assert any(reason.startswith(NAMES.get(fault, fault)) for reason in verdict.reasons), verdict.reasons


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"frozen half way", "frozen with grain"}))
def test_an_original_with_a_fault_is_caught_without_a_reference(clean, fault):
    assert judge(signals([FAULTS[fault](clean)]), None, Expected(T, SIZE, SIZE), FPS).status == "invalid"


def test_clean_videos_pass_with_and_without_an_original():
    refused = {}
    presets, _ = shapes.render_batch([shapes.sample(seed, "held_out") for seed in range(60)], T)
    rendered = (presets * 255).round().to(torch.uint8).numpy()  # what the tiny presets are trained to generate
    for seed, frames in enumerate([*rendered, *map(shape_video, range(60))]):
        seen = signals([frames])
        verdict = judge(seen, None, Expected(T, SIZE, SIZE), FPS)
        refused[seed] = verdict.reasons + judge(seen, seen, Expected(T, SIZE, SIZE), FPS).reasons
    assert not any(refused.values()), refused


def test_faint_blocks_are_refused_only_where_the_original_has_none(clean):
    """A decoder of patches may leave their borders in all pictures of a model. A method must not add such borders."""
    mosaic = FAULTS["blocky"](clean).astype(np.float32)
    faint, seen = (0.5 * clean + 0.5 * mosaic).round().astype(np.uint8), signals([clean])
    steep = signals([faint]).blockiness
    assert Thresholds.blockiness < steep < Thresholds.blockiness_alone
    assert judge(signals([faint]), seen, fps=FPS).reasons[0].startswith("blocky")
    assert judge(signals([faint]), None, fps=FPS).reasons == ()
    assert judge(signals([faint]), signals([faint]), fps=FPS).reasons == ()


@pytest.mark.parametrize("change", ["slight noise", "blur", "other phase"])
def test_a_method_that_costs_some_quality_is_not_refused(clean, change):
    worse = {
        "slight noise": lambda: _grainy(clean, 4),
        "blur": lambda: gaussian_filter(clean, (0, 2, 2, 0)),
        "other phase": lambda: np.concatenate([clean[2:], clean[-2:][::-1]]),
    }[change]()
    assert judge(signals([worse]), signals([clean]), Expected(T, SIZE, SIZE), FPS).reasons == ()


def test_a_larger_natural_scene_passes():
    rng = np.random.default_rng(0)
    canvas = gaussian_filter(rng.normal(size=(160, 220, 3)), (2, 2, 0))
    canvas = 40 + 180 * (canvas - canvas.min()) / np.ptp(canvas)
    scene = np.stack([canvas[t : t + 120, 2 * t : 2 * t + 160] for t in range(25)])
    frames = (scene + rng.normal(0, 2, scene.shape)).astype(np.uint8)
    assert judge(signals([frames]), None, Expected(25, 120, 160), FPS) == judge(signals([frames[:10], frames[10:]]))
    assert judge(signals([frames])).reasons == ()


def test_a_still_picture_is_legitimate_where_the_original_is_still(clean):
    still = np.repeat(clean[:1], T, 0)
    grain = (still + (np.random.default_rng(1).random(still.shape) < 0.01)).astype(np.uint8)
    assert judge(signals([still]), signals([grain]), fps=FPS).status == "ok"
    alone = judge(signals([grain]), fps=FPS)
    assert alone.status == "ok" and alone.warnings[0].startswith("stands still")


def test_a_cut_is_forgiven_where_the_original_cuts_and_a_flash_is_not():
    first, second = shape_video(0), 255 - shape_video(0)
    cut = np.concatenate([first[:25], second[25:]])
    assert judge(signals([cut]), signals([cut])).reasons == ()
    alone = judge(signals([cut]))
    assert alone.reasons == () and alone.warnings == ("cut at frame 25",)
    assert judge(signals([cut]), signals([first])).reasons[0].startswith("flash")


def test_thresholds_decide(clean):
    dark = (clean // 12).astype(np.uint8)
    strict, lenient = Thresholds(black_mean=30, black_bright=0.9), Thresholds(black_mean=1)
    assert judge(signals([dark]), thresholds=strict).reasons[0].startswith("black")
    assert not any(r.startswith("black") for r in judge(signals([dark]), thresholds=lenient).reasons)
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(Thresholds))


@pytest.mark.parametrize(
    ("decisions", "extra", "reason"),
    [
        ((0, 0, 140), {}, "inert"),
        ((60, 10, 70), {}, None),
        ((139, 0, 1), {}, "runaway"),
        ((99, 0, 41), {"max_skip": 2}, "runaway"),
        ((93, 0, 47), {"max_skip": 2}, None),
    ],
)
def test_a_policy_that_never_or_always_skips_is_named(decisions, extra, reason):
    run = {"method": "scope", "decisions": dict(zip(("cache", "predict", "recompute"), decisions, strict=True))}
    verdict = judge_decisions(run, identical=decisions[2] == 140, **extra)
    assert [text.split(":")[0] for text in verdict.reasons] == ([reason] if reason else [])


def test_originals_reduced_steps_and_selective_computation_are_not_inert():
    none = {"cache": 0, "predict": 0, "recompute": 140}
    for method in ("original", "original_repeat", "reduced_steps", "lossless", "external_diffusers_none"):
        assert judge_decisions({"method": method, "decisions": none}, identical=True).reasons == ()
    selective = {"method": "scope", "decisions": none, "flops": {"executed_fraction": 0.85}}
    assert judge_decisions(selective).reasons == ()
    lenient = judge_decisions({"method": "scope", "decisions": none}, thresholds=Thresholds(refuse_inert=False))
    assert lenient.reasons == () and lenient.warnings[0].startswith("inert")


# -- measures of one video and curves of a pair -----------------------------------------------------------------------


def test_measures_of_videos_worked_by_hand():
    ramp = np.full((5, 32, 32, 3), 10, np.uint8) + 4 * np.arange(5, dtype=np.uint8)[:, None, None, None]
    flicker = np.full((5, 32, 32, 3), 10, np.uint8)
    flicker[1::2] += 4
    even, lamp = measures.measures([ramp]), measures.measures([flicker[:3], flicker[3:]])
    assert even == pytest.approx(
        {"brightness_flicker": 0, "frame_change": 4, "smoothness_by_differences": 1, "motion_by_cells": 4}, abs=1e-5
    )
    assert lamp == pytest.approx(
        {"brightness_flicker": 8, "frame_change": 4, "smoothness_by_differences": 0, "motion_by_cells": 4}, abs=1e-5
    )
    still = measures.measures([ramp[:1].repeat(4, 0)])
    assert still["smoothness_by_differences"] is None and still["motion_by_cells"] == 0
    assert measures.measures([ramp[:1]])["frame_change"] is None


def test_motion_is_larger_where_more_moves_and_does_not_depend_on_batches(clean):
    whole = measures.measures([clean])
    assert measures.measures(np.array_split(clean, 7)) == pytest.approx(whole)
    faster, still = measures.measures([clean[::3]]), measures.measures([np.repeat(clean[:1], T, 0)])
    assert faster["motion_by_cells"] > whole["motion_by_cells"] > still["motion_by_cells"]


def test_curves_by_segment_border_and_time():
    curve = [30.0, 30.0, 30.0, 24.0, 24.0, 24.0, 24.0, None]
    assert curves.by_chunk(curve, [3]) == [30.0, (4 * 24 + 100) / 5]
    assert curves.border_jumps(curve[:7], [3]) == [6.0]
    assert curves.border_jumps([30.0, 29.0, 28.0, 27.0], [2]) == [0.0]
    assert curves.drift([30.0, 28.0, 26.0, 24.0]) == pytest.approx({"slope": -6.0, "last_minus_first": -6.0})
    with pytest.raises(ValueError, match="must increase"):
        curves.by_chunk(curve, [5, 3])
    with pytest.raises(ValueError, match="no frames"):
        curves.drift([])
