"""MAGI-1's pipeline as plain data: counts, who sees whom, time grids, and what a setting may not be."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from models.magi1.config import ModelConfig, RuntimeConfig, read_config
from models.magi1.schedule import schedule, step_lengths, time_grid

FOLDER = Path(__file__).parent / "fixtures" / "magi1"


@pytest.mark.parametrize("ranges, seen", [((), 3725), ((5, 4, 3, 2), 2089)])
def test_the_published_video_takes_208_forwards_640_chunk_steps_and_809_chunk_passes(ranges, seen):
    plan = schedule(RuntimeConfig(noise2clean_kvrange=ranges))
    assert (len(plan.forwards), plan.chunk_steps, plan.chunk_passes) == (208, 640, 809)
    assert plan.visible_chunks == seen
    assert [len(f.chunks) for f in plan.forwards[::16]] == [1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 3, 2, 1]
    assert sum(f.refresh is not None for f in plan.forwards) == 9
    assert sum(f.duplicate for f in plan.forwards) == 160


def test_every_forward_is_the_recorded_one():
    entries = json.loads((FOLDER / "config.json").read_text())
    sections = entries["config"]
    for scenario in entries["scenarios"].values():
        settings = RuntimeConfig.from_dict(
            {**sections["runtime_config"], **scenario["runtime_overrides"]},
            {**sections["engine_config"], **scenario["engine"]},
        )
        plan = schedule(settings, scenario["prefix_frames"])
        trace = [entry for entry in scenario["trace"] if not entry["extract_prefix"]]
        assert len(plan.forwards) == len(trace) == scenario["total_forward_step"]
        clean = torch.tensor(settings.clean_t).item()
        for forward, entry in zip(plan.forwards, trace, strict=True):
            fresh = forward.refresh is None
            assert entry["timestep"] == [clean][fresh:] + list(forward.times)
            chunks = [[a // 32, b // 32] for a, b in entry["kv_range"]]
            assert chunks == [list(forward.refresh_visible)][fresh:] + [list(v) for v in forward.visible]
            assert entry["slice_point"] == (forward.chunks.start if fresh else forward.refresh)
            if settings.cfg_number == 1:
                assert forward.duplicate == entry["near_clean"]


@pytest.mark.parametrize(
    "window, steps, frames, prefix", [(1, 3, 100, 0), (4, 12, 240, 0), (2, 8, 49, 7), (6, 12, 30, 1)]
)
def test_every_chunk_gets_every_step_once_and_never_sees_the_future(window, steps, frames, prefix):
    ranges = () if steps % 2 else (3, 2)
    settings = RuntimeConfig(window_size=window, num_steps=steps, num_frames=frames, noise2clean_kvrange=ranges)
    plan = schedule(settings, prefix)
    done = {chunk: [] for chunk in range(plan.given, plan.chunks)}
    for forward in plan.forwards:
        assert len(forward.chunks) <= window
        assert list(forward.steps) == sorted(forward.steps, reverse=True), "older chunks are cleaner"
        for chunk, step, (start, stop) in zip(forward.chunks, forward.steps, forward.visible, strict=True):
            done[chunk].append(step)
            assert 0 <= start < stop == chunk + 1
        if forward.refresh is not None:
            assert len(done[forward.refresh]) == steps, "only finished chunks are read again"
    assert all(taken == list(range(steps)) for taken in done.values())
    assert len(plan.forwards) == steps // window * (plan.chunks - plan.given + window - 1)


def test_a_last_chunk_that_is_not_full_is_a_whole_chunk():
    settings = RuntimeConfig(num_frames=100, chunk_width=6)  # 25 latent frames
    assert schedule(settings).chunks == 5


def test_emitted_frames_cover_what_was_not_given_exactly_once():
    settings = RuntimeConfig(num_frames=96, num_steps=8)
    for prefix, first in [(0, 0), (8, 8), (12, 12), (5, 5), (1, 0)]:  # an image is emitted with its chunk
        plan = schedule(settings, prefix)
        spans = [plan.emitted(f) for f in plan.forwards if plan.emitted(f)]
        frames = [frame for start, stop in spans for frame in range(start, stop)]
        assert frames == list(range(first, plan.chunks * 6))


def test_time_runs_from_noise_to_clean_in_the_recorded_steps():
    grid = time_grid(64)
    assert grid[0] == 0 and grid[-1] == pytest.approx(1, abs=2e-7)
    assert all(a < b for a, b in pairwise(grid))
    assert grid[48] > 0.3, "the duplicate starts at step 48, where float32 rounds 0.3 up"
    assert grid[1] == pytest.approx(8.1e-5, rel=0.01) and 1 - grid[63] == pytest.approx(0.0876, rel=0.01)


@pytest.mark.parametrize(
    "mode, places, lengths",
    [("8,16,16", [0, 2, 3], [4.0, 8.0, 8.0]), ("16,16,8", [0, 1, 2], [8.0, 8.0, 4.0])],
)
def test_the_twelve_step_grid_takes_three_of_four_sub_steps(mode, places, lengths):
    u = [(4 * quarter + place) / 16 for quarter in range(4) for place in places] + [1.0]
    expected = [x**2 / 3 / (1 - x**2 * 2 / 3) for x in u]
    assert time_grid(12, mode) == pytest.approx(expected, abs=1e-6)
    assert step_lengths(12, mode)[:3] == lengths
    assert step_lengths(64)[0] == 32 and step_lengths(16)[0] == 8


@pytest.mark.parametrize(
    "change, told",
    [
        ({"num_steps": 62}, "multiple of window_size=4"),
        ({"video_size_h": 500}, "multiple of 16"),
        ({"video_size_w": 8}, "multiple of 16"),
        ({"num_frames": 3}, "less than one latent frame"),
        ({"cfg_number": 3}, "distilled model runs with cfg_number=1"),
        ({"distill": False}, "base model runs with cfg_number=3"),
        ({"noise2clean_kvrange": (5, 4, 3)}, "noise2clean_kvrange"),
        ({"noise2clean_kvrange": (4, 0)}, "sees itself"),
        ({"text_scales": (7.5,)}, "equally long"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_what_to_change(change, told):
    with pytest.raises(ValueError, match=told):
        RuntimeConfig(**change)


def test_a_model_of_another_architecture_is_refused():
    with pytest.raises(ValueError, match="apply_layernorm_1p"):
        ModelConfig(apply_layernorm_1p=False)
    with pytest.raises(ValueError, match="multiple of num_query_groups"):
        ModelConfig(num_attention_heads=25)
    with pytest.raises(ValueError, match="choose one of"):
        _ = ModelConfig(params_dtype="int8").dtype


def test_a_config_file_that_is_none_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_config(path)
    path.write_text('{"model_config": {}}')
    with pytest.raises(ValueError, match="lacks runtime_config, engine_config"):
        read_config(path)
