"""Divergence: a video that does not follow its Original is at least `diverged`; a mere loss of quality is not."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from eval.beside import Beside
from eval.divergence import Limits, diverged
from eval.metrics import mse, psnr
from eval.signals import Signals, signals
from eval.validity import Expected, Verdict, judge
from models import shapes

T, SIZE, FPS = 49, 64, 24


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    """Videos like those that the tiny presets are trained on, each with another scene: uint8 (T, 64, 64, 3)."""
    frames, _ = shapes.render_batch([shapes.sample(seed, "held_out") for seed in (1, 5, 8, 9)], T)
    return list((frames * 255).round().to(torch.uint8).numpy())


def known(original: np.ndarray, found: dict[bytes, Signals] = {}) -> Signals:  # noqa: B006 - kept between the tests
    """The signals of an Original, measured once."""
    key = original.tobytes()
    if key not in found:
        found[key] = signals([original])
    return found[key]


def verdict(video: np.ndarray, original: np.ndarray) -> Verdict:
    """The reasons that the evaluation gives, without LPIPS."""
    beside = Beside()
    for at in range(0, min(len(video), len(original)), 8):
        beside.update(original[at : at + 8], video[at : at + 8])
    left = diverged(beside.measures(), psnr(mse(video, original)), None, FPS)
    own = judge(signals([video]), known(original), Expected(*original.shape[:3]), FPS)
    return Verdict(own.reasons, own.warnings, left)


def pixels(values: np.ndarray) -> np.ndarray:
    return values.clip(0, 255).round().astype(np.uint8)


def some(video: np.ndarray, at: slice, change) -> np.ndarray:
    video = video.copy()
    video[at] = change(video[at])
    return video


def brightness(video: np.ndarray, factors: np.ndarray) -> np.ndarray:
    return pixels(video * factors[:, None, None, None])


def noise(video: np.ndarray, sigma: tuple[float, ...]) -> np.ndarray:
    smooth = gaussian_filter(np.random.default_rng(1).normal(size=video.shape), sigma)
    return pixels(128 + 40 * smooth / smooth.std())


def smeared(video: np.ndarray, rows: int) -> np.ndarray:
    """The last `rows` rows repeat the first of them."""
    return np.concatenate([video[:, : SIZE - rows], video[:, SIZE - rows : SIZE - rows + 1].repeat(rows, 1)], 1)


def late(video: np.ndarray, frames: int) -> np.ndarray:
    return np.concatenate([video[:1].repeat(frames, 0), video[:-frames]])


def repeated(video: np.ndarray, at: int, frames: int) -> np.ndarray:
    return np.concatenate([video[: at + frames], video[at : T - frames]])


def frozen(video: np.ndarray, start: int, frames: int) -> np.ndarray:
    return some(video, slice(start, start + frames), lambda v: v[:1].repeat(len(v), 0))


def shuffled(video: np.ndarray, within: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.permutation(video[at : at + within]) for at in range(0, T, within)])


def tinted(video: np.ndarray, *levels: int) -> np.ndarray:
    return pixels(video.astype(float) + levels)


def every(frames: int, low: float) -> np.ndarray:
    """Factors that alternate between 1 and `low`, with the given number of frames between changes."""
    return np.where(np.arange(T) // frames % 2, low, 1.0)


def transposed(video: np.ndarray, change) -> np.ndarray:
    return change(video.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)


CRAFTED = {
    "inverted every second frame": (lambda v, _: some(v, slice(1, None, 2), lambda x: 255 - x), "turned"),
    "inverted every fourth frame": (lambda v, _: some(v, slice(3, None, 4), lambda x: 255 - x), "turned"),
    "inverted every eighth frame": (lambda v, _: some(v, slice(5, None, 8), lambda x: 255 - x), "turned"),
    "flicker 0.7": (lambda v, _: brightness(v, every(1, 0.7)), "flicker"),
    "flicker 0.85": (lambda v, _: brightness(v, every(1, 0.85)), "flicker"),
    "flicker 0.7, three frames": (lambda v, _: brightness(v, every(3, 0.7)), "flicker"),
    "flicker 0.7, six frames": (lambda v, _: brightness(v, every(6, 0.7)), "flicker"),
    "flicker at random": (lambda v, _: brightness(v, np.random.default_rng(0).uniform(0.7, 1, T)), "flicker"),
    "flicker of green": (lambda v, _: some(v, slice(1, None, 2), lambda x: tinted(x, 0, 30, 0)), "flicker"),
    "blurred noise": (lambda v, _: noise(v, (0, 3, 3, 0)), "motion"),
    "noise blurred over time too": (lambda v, _: noise(v, (3, 4, 4, 0)), "motion"),
    "green + 60": (lambda v, _: tinted(v, 0, 60, 0), "tint"),
    "green + 30": (lambda v, _: tinted(v, 0, 30, 0), "tint"),
    "red + 40": (lambda v, _: tinted(v, 40, 0, 0), "tint"),
    "blue - 60": (lambda v, _: tinted(v, 0, 0, -60), "tint"),
    "green + 60 from the middle on": (lambda v, _: some(v, slice(T // 2, None), lambda x: tinted(x, 0, 60, 0)), "tint"),
    "red and blue swapped": (lambda v, _: v[..., ::-1], "turned"),
    "channels rotated": (lambda v, _: v[..., [1, 2, 0]], "turned"),
    "without colours": (lambda v, _: pixels(v @ np.array([0.299, 0.587, 0.114]))[..., None].repeat(3, -1), "turned"),
    "negative": (lambda v, _: 255 - v, "turned"),
    "reversed": (lambda v, _: v[::-1], "displaced"),
    "shuffled": (lambda v, _: shuffled(v, T), "displaced"),
    "shuffled within half a second": (lambda v, _: shuffled(v, 12), "displaced"),
    "upside down": (lambda v, _: v[:, ::-1], "turned"),
    "mirrored": (lambda v, _: v[:, :, ::-1], "turned"),
    "turned by 180 degrees": (lambda v, _: v[:, ::-1, ::-1], "turned"),
    "another prompt's video": (lambda _, other: other, "another picture"),
    "lower half smeared": (lambda v, _: smeared(v, SIZE // 2), "smeared"),
    "lower third smeared": (lambda v, _: smeared(v, SIZE // 3), "smeared"),
    "upper half smeared": (lambda v, _: smeared(v[:, ::-1], SIZE // 2)[:, ::-1], "smeared"),
    "right half smeared": (lambda v, _: transposed(v, lambda x: smeared(x, SIZE // 2)), "smeared"),
    "a segment repeated": (lambda v, _: repeated(v, 16, 12), "displaced"),
    "a longer segment repeated": (lambda v, _: repeated(v, 8, 16), "displaced"),
    "12 frames late": (lambda v, _: late(v, 12), "displaced"),
    "12 frames early": (lambda v, _: late(v[::-1], 12)[::-1], "displaced"),
    "12 frames late, and round": (lambda v, _: np.roll(v, 12, 0), "displaced"),
    "the last 0.8 s frozen": (lambda v, _: frozen(v, T - 19, 19), "stands still"),
    "the last 0.5 s frozen": (lambda v, _: frozen(v, T - 12, 12), "stands still"),
    "0.8 s frozen in the middle": (lambda v, _: frozen(v, 12, 19), "stands still"),
    "brightness 0.1": (lambda v, _: pixels(v * 0.1), "brightness"),
    "brightness 0.4": (lambda v, _: pixels(v * 0.4), "brightness"),
}
# Not caught, and why; these show where the gate ends. A change below the loss of a legitimate method cannot be told
# from that loss: `flowcache` alone is off by up to 6 levels of colour, and by frames of its motion. A
# smear of what was smooth, or one that draws about as many edges as it removes, is not seen either.
OUT_OF_SCOPE = {
    "green + 5": lambda v: tinted(v, 0, 5, 0),
    "flicker 0.98": lambda v: brightness(v, every(1, 0.98)),
    "a part smeared that was smooth": lambda v: np.concatenate([v[:, :-2], v[:, -3:-2].repeat(2, 1)], 1),
    "two frames late": lambda v: late(v, 2),
    "the last 0.1 s frozen": lambda v: frozen(v, T - 2, 2),
}


@pytest.mark.parametrize("fault", CRAFTED)
def test_a_video_that_is_no_copy_of_its_original_is_caught_and_named(originals, fault):
    change, name = CRAFTED[fault]
    for number, original in enumerate(originals):
        found = verdict(change(original, originals[number - 1]), original)
        assert found.status in ("diverged", "invalid")
        assert any(text.startswith(name) for text in found.diverged), (number, found)


def test_forty_one_faults_are_tried():
    assert len(CRAFTED) == 41


@pytest.mark.parametrize("fault", OUT_OF_SCOPE)
def test_what_is_smaller_than_a_methods_own_loss_passes(originals, fault):
    assert [verdict(OUT_OF_SCOPE[fault](original), original).status for original in originals] == ["ok"] * 4


@pytest.mark.parametrize(
    "fault",
    [
        "flicker 0.7",
        "12 frames late",
        "red and blue swapped",
        "a segment repeated",
        "green + 30",
        "inverted every eighth frame",
    ],
)
def test_a_fault_is_caught_under_the_loss_of_a_method(originals, fault):
    change, name = CRAFTED[fault]
    for original in originals:
        worse = gaussian_filter(change(original, original).astype(float), (0, 0.7, 0.7, 0))
        worse += np.random.default_rng(0).normal(0, 4, original.shape)
        assert any(text.startswith(name) for text in verdict(pixels(worse), original).diverged)


WORSE = {
    "itself": lambda v: v,
    "noise": lambda v: pixels(v + np.random.default_rng(0).normal(0, 4, v.shape)),
    "blur": lambda v: pixels(gaussian_filter(v.astype(float), (0, 1.5, 1.5, 0))),
    "two frames late, blurred": lambda v: pixels(gaussian_filter(late(v, 2).astype(float), (0, 1, 1, 0))),
    "slowly darker": lambda v: brightness(v, np.linspace(1, 0.85, T)),
    "moved by a pixel": lambda v: np.roll(v, 1, 2),
}


@pytest.mark.parametrize("change", WORSE)
def test_a_method_that_costs_some_quality_has_not_left_its_original(originals, change):
    for original in originals:
        found = verdict(WORSE[change](original), original)
        assert found.status == "ok", found


def test_the_measures_of_simple_videos_are_known():
    ramp = np.linspace(40, 200, SIZE)[None, None, :, None] + np.zeros((24, SIZE, 1, 3))
    original, beside = pixels(ramp), Beside()
    shifted = original + np.array([9, 0, 0], np.uint8)
    beside.update(original, shifted)
    found = beside.measures()
    assert found["tint"] == pytest.approx(6) and found["brightness"] == pytest.approx(0.299 * 9, abs=1e-4)
    assert found["flicker"] == pytest.approx(0, abs=1e-4)
    assert found["turned"] == found["displaced"] == found["stands"] == 0
    assert found["detail"] == pytest.approx(1) and found["motion"] == 1 and found["explained"] > 0.98
    lamp = Beside()
    lamp.update(original, original + np.arange(24)[:, None, None, None].astype(np.uint8) % 2 * np.uint8(10))
    assert lamp.measures()["flicker"] == pytest.approx(5, abs=0.3)


def test_batches_do_not_matter_and_short_or_tiny_videos_are_measured(originals):
    video, original = originals[0], originals[1]
    whole, parts = Beside(), Beside()
    whole.update(original, video)
    for at in range(0, T, 5):
        parts.update(original[at : at + 5], video[at : at + 5])
    assert whole.measures() == pytest.approx(parts.measures(), rel=1e-4, abs=1e-4)
    for frames, size in ((1, 64), (2, 64), (5, 12), (9, 3)):
        small = Beside()
        small.update(original[:frames, :size, :size], video[:frames, :size, :size])
        assert np.isfinite(list(small.measures().values())).all()


def test_limits_decide(originals):
    beside = Beside()
    beside.update(originals[0], tinted(originals[0], 0, 30, 0))
    assert diverged(beside.measures(), 23.0, None)
    assert diverged(beside.measures(), 23.0, None, limits=Limits(tint=40)) == ()
    assert len(diverged(beside.measures(), 23.0, 0.9, limits=Limits(tint=40))) == 1
