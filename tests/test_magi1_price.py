"""What MAGI-1 costs: the closed form against PyTorch's own counter, and the published totals."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.magi1.cache import KVCache
from models.magi1.checkpoint import empty_dit
from models.magi1.chunk_forward import Dispatcher
from models.magi1.config import ModelConfig, RuntimeConfig
from models.magi1.price import call_flops, chunk_flops, forward_flops, video_flops
from models.magi1.schedule import schedule

TINY = ModelConfig(
    num_layers=2,
    hidden_size=48,
    ffn_hidden_size=80,
    num_attention_heads=6,
    num_query_groups=2,
    kv_channels=8,
    caption_channels=20,
    params_dtype="float32",
)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, gated_linear_unit=True, num_attention_heads=4, num_layers=3),
        ModelConfig(num_layers=1),
    ],
    ids=["tiny", "gated", "published, one layer"],
)
@pytest.mark.parametrize("distill", [True, False])
def test_the_closed_form_is_what_pytorch_counts(config, distill):
    model, texts = empty_dit(config), (7, 3, 50)
    visible, positions = [(0, 3), (1, 4), (0, 5)], [2, 3, 4]
    h, w, width = 6, 10, 2
    tokens = width * h * w // 4
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model(
            torch.empty(3, 16, width, h, w),
            torch.empty(3),
            [torch.empty(n, config.caption_channels) for n in texts],
            positions,
            visible,
            cache=KVCache(config, 5, tokens, "meta"),
            step_length=32.0 if distill else None,
        )
    seen = [stop - start for start, stop in visible]
    assert counter.get_total_flops() == call_flops(config, tokens, seen, texts, distill)


@pytest.mark.parametrize("passes", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_forward_is_priced_with_all_that_travels_along(passes):
    settings = RuntimeConfig(
        num_frames=48,
        video_size_h=32,
        video_size_w=48,
        chunk_width=2,
        num_steps=8,
        cfg_number=passes,
        distill=passes == 1,
    )
    plan, model = schedule(settings), empty_dit(TINY)
    text = [torch.empty(9, 20, device="meta")] * plan.chunks
    dispatcher = Dispatcher(model, settings, plan, text)
    latents = torch.empty(plan.chunks, 16, 2, *settings.latent_size, device="meta")
    for forward in (*plan.forwards[::5], plan.forwards[-1]):  # the video begins, the full window, the video ends
        for chunks in (None, list(forward.chunks)[1:]):
            with torch.device("meta"), FlopCounterMode(display=False) as counter:
                if passes == 3:
                    dispatcher.guidance = lambda time: (1.5, 7.5)
                dispatcher.velocity(latents, forward, chunks)
            assert counter.get_total_flops() == forward_flops(TINY, settings, forward, 9, chunks)


@pytest.mark.parametrize(
    "ranges, text, petaflops",
    [
        ((), 40, 80.98),
        ((), 0, 80.90),
        ((), 89, 81.09),
        ((), 800, 82.65),
        ((5, 4, 3, 2), 40, 61.05),
    ],
)
def test_the_published_video_costs_what_the_papers_say(ranges, text, petaflops):
    settings = RuntimeConfig(noise2clean_kvrange=ranges)
    assert video_flops(ModelConfig(), settings, schedule(settings), text) / 1e15 == pytest.approx(petaflops, abs=0.05)


def test_a_chunk_pass_costs_44_teraflop_and_12_for_every_chunk_it_sees():
    one, four = (chunk_flops(ModelConfig(), 5400, seen, 0) / 1e12 for seen in (1, 4))
    assert (four - one) / 3 == pytest.approx(12.18, abs=0.005)
    assert one - 12.18 == pytest.approx(43.89, abs=0.02)
