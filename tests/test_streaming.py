"""Stamps at the end of AR units: they are honest, cost no waiting, and add up to the time of the video."""

import time
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from baselines.uniform import Uniform
from benchmarks import rehearsal
from engine.loop import generate
from engine.method import Method, Original
from engine.produce import produce
from engine.row import Row
from engine.stamps import Stamps, finishing
from models.prefix import read_prefix
from tests import far, tiny
from tests.pretended_device import CARD, pretended
from tests.test_magi1_backbone import _clip, _model
from tests.test_pretended_device import build, moved
from tests.toy import Toy

BRIEF = {"base_frames": 13, "overlap": 5, "steps": 3, "height": 16, "width": 16}
MODELS = {
    "skyreels": lambda: tiny.build(frames=21, **BRIEF),
    "magi1": _model,
    "far": far.build,
}


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def model(request):
    return request.param()


def text_of(model):
    return model.conditioning("a fox", model.texts(["a fox", ""]))


def made(model, method=None):
    frames = []
    return produce(model, method or Original(), text_of(model), 0, frames.extend), torch.cat(frames)


def test_the_chunks_of_a_video_add_up_to_its_time(model, monkeypatch):
    processor = SimpleNamespace(perf_counter=time.process_time)  # so that other processes do not count
    monkeypatch.setattr("engine.stamps.time", processor)
    monkeypatch.setattr("engine.meter.time", processor)
    video, frames = made(model)
    chunks, total = video.chunks, video.denoise.seconds + video.decode.seconds
    ready = [a + b for a, b in zip(chunks.denoised, chunks.decoded, strict=True)]
    intervals = [b - a for a, b in pairwise(ready)]
    assert all(interval > 0 for interval in intervals)
    assert ready[0] + sum(intervals) == pytest.approx(total, rel=0.01)
    assert chunks.by_chunk and chunks.frames[-1] == len(frames) == model.settings.frames
    assert list(chunks.frames) == sorted(set(chunks.frames))


def test_there_is_a_chunk_for_every_ar_unit():
    assert made(far.build())[0].chunks.frames == (1, 9, 17, 25, 29)  # 1, 2, 2, 2, 1 latents
    assert made(_model())[0].chunks.frames == (8, 16, 24, 32, 36)  # of two latents
    assert made(tiny.build(frames=13, **BRIEF))[0].chunks.frames == (5, 13)  # blocks of two latents
    together = {**BRIEF, "ar_step": 0, "block": 1}
    assert made(tiny.build(frames=13, **together))[0].chunks.frames == (13,)
    assert made(tiny.build(frames=21, **together))[0].chunks.frames == (13, 21)  # one chunk for each segment


def test_the_first_frames_depend_on_no_latents_after_their_own(model):
    """So a chunk can be decoded as soon as it is final: noise in its later latents changes none of its frames."""
    latents = generate(model, Original(), text_of(model), 0, [])
    whole = torch.cat(list(model.decode(latents)))
    for slots in sorted(set(finishing(model.schedule()).values()))[:3]:
        other = latents.clone()
        other[slots:] = torch.randn(other[slots:].shape, generator=torch.Generator().manual_seed(1))
        count = min(model.frames_after(slots), len(whole))
        assert torch.equal(torch.cat(list(model.decode(other)))[:count], whole[:count])


def test_frames_of_a_given_video_are_no_chunk(tmp_path):
    clip = tmp_path / "clip.mp4"
    _clip(clip, 12)
    assert len(read_prefix(clip, 12, 8, 32, 48)) == 12
    continued = _model(prefix=str(clip), prefix_frames=12)
    chunks, frames = made(continued)
    assert chunks.chunks.frames[0] < 8 and chunks.chunks.frames[-1] == len(frames) == 36
    image = far.build(prefix=str(clip), prefix_frames=1, height=32, width=64)
    assert made(image)[0].chunks.frames == (9, 17, 25, 29)  # the image comes with the first chunk


def test_slots_are_final_after_the_last_row_that_updates_them_and_all_before_them():
    def row(iteration, slots, active):
        n = len(slots)
        return Row(iteration, 0, slots, 2, (0,) * n, (1.0,) * n, (0.5,) * n, active, 1)

    rows = [row(0, range(3), (True, False, True)), row(1, range(3), (False, True, False)), row(2, range(3, 4), (True,))]
    assert finishing(rows) == {0: 1, 1: 3, 2: 4}  # slot 2 waits for slot 1
    assert finishing(rows[1:]) == {1: 3, 2: 4}  # slot 0 is given


class Clock(Method):
    """A second passes at each decision; `perf_counter` tells the time."""

    now = 0.0

    def decide(self, part, probe, branch=""):
        self.now += 1.0
        return super().decide(part, probe, branch)

    def perf_counter(self):
        return self.now


def test_a_chunk_has_the_time_of_its_own_rows(monkeypatch):
    clock, model = Clock(), far.build(frames=13, chunk_partition=[1, 2, 1], steps=3)
    monkeypatch.setattr("engine.stamps.time", clock)
    assert made(model, clock)[0].chunks.denoised == (3.0, 6.0, 9.0)
    late = tiny.build(frames=13, **BRIEF)
    assert made(late, clock)[0].chunks.denoised == (3.0, 5.0)  # the second block starts and ends two rows later


def test_a_decoder_of_the_whole_video_makes_one_chunk():
    class Whole(Toy):
        def decode(self, latents):
            yield torch.zeros(13, 2, 2, 3, dtype=torch.uint8)

        def forget(self):
            """Nothing is kept."""

    video = produce(Whole(), Original(), None, 0, list)
    assert video.chunks.frames == (13,) and not video.chunks.by_chunk
    assert video.chunks.denoised[0] == pytest.approx(video.denoise.seconds, abs=0.005)
    model = far.build()
    model.offload = True  # the denoiser leaves the device before the VAE decodes
    assert made(model)[0].chunks.frames == (29,) and not made(model)[0].chunks.by_chunk
    assert video.chunks.to_json().keys() == {"frames", "denoised", "decoded", "by_chunk"}


def test_stamps_on_a_gpu_are_events_and_the_host_waits_once_for_the_whole_video():
    plain = build("skyreels", {}, torch.device("cpu"))
    texts = plain.texts(["a fox", ""])
    with pretended("cpu") as card:
        model = moved(plain, build("skyreels", {}, CARD))
        text = model.conditioning("a fox", texts)
        with rehearsal.watching(card, model):
            video = produce(model, Uniform(2), text, 0, list)
        waits = {where.split(":")[0] for kind, where in card.faults if kind == "wait"}
        assert waits == {"engine/meter.py"}  # outside the loop: the ends of the measurements
        assert card.events == 1 + len(finishing(model.schedule())) == 1 + len(video.chunks.frames)
        assert sorted(video.chunks.denoised) == list(video.chunks.denoised) and video.chunks.denoised[0] > 0


def test_a_row_that_a_method_narrows_keeps_its_stamp():
    model = tiny.build(attention="block_causal")
    stamps = Stamps(model)
    stamps.begin()
    told = []
    after = stamps.after(told.append)
    for row in model.schedule():
        after(replace(row.exact(), forced="x"))
    assert len(told) == len(model.schedule()) and len(stamps.taken) == len(stamps.ends)
