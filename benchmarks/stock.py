"""Time and latents of our Original against diffusers' own pipeline, with the same weights and noise.

    python -m benchmarks.stock [model=skyreels_tiny] [model.attention=block_causal] [rounds=2] [tolerance=1e-5]
    python -m benchmarks.stock model=far_mid [model.steps=4]

Both denoise one video from the same embeddings, in turn. The time includes the projections of the text, but not text
encoding and decoding. On SkyReels-V2 no noise is added to the overlap (model.addnoise=0), because diffusers' pipeline
draws it from the global generator. In float32 the command fails if the latents differ by more than `tolerance`. The
last line is one JSON object: `ratio` is ours / diffusers' in wall time, `cpu_ratio` the same in CPU time,
`max_abs_error` that of the latents.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import SkyReelsV2DiffusionForcingPipeline, UniPCMultistepScheduler
from torch import Tensor

from benchmarks.abab import conditions, in_turn, plain, ratio, show, split
from benchmarks.common import composed, prompts_of
from benchmarks.stock_far import stock as stock_far
from engine.loop import generate
from engine.method import Original
from models.far.backbone import AnyFlowFAR
from models.skyreels.backbone import SkyReelsV2
from terminal import tolerate

DEFAULTS = {"rounds": "2", "tolerance": "1e-5", "seed": "0"}


@contextmanager
def _attention(model: SkyReelsV2) -> Iterator[None]:
    """Keep full attention: diffusers' pipeline switches to block-causal attention if a block size is given."""
    transformer = model.transformer
    if model.settings.attention == "full":
        transformer._set_ar_attention = lambda block: None
    try:
        yield
    finally:
        transformer.__dict__.pop("_set_ar_attention", None)
        transformer.register_to_config(num_frame_per_block=1)


def pipeline(model: SkyReelsV2, kind: type = SkyReelsV2DiffusionForcingPipeline) -> Any:
    """diffusers' pipeline with the modules of our model. It takes embeddings, so it has no text encoder."""
    shift = model.settings.shift
    pipe = kind(
        tokenizer=None,
        text_encoder=None,
        transformer=model.transformer,
        vae=model.vae,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: Any, model: SkyReelsV2, prompt: Tensor, negative: Tensor | None, seed: int, **more: Any) -> Tensor:
    """The latents (B, slots, C, H, W) that `pipe` makes of embeddings (B, length, text width). `more` goes to the
    pipeline as well, and replaces what the model's settings say."""
    s = model.settings
    given = {
        "height": s.height,
        "width": s.width,
        "num_frames": s.frames,
        "num_inference_steps": s.steps,
        "guidance_scale": s.guidance,
        "generator": torch.Generator().manual_seed(seed),
        "overlap_history": s.overlap if s.frames > s.base_frames else None,
        "addnoise_condition": s.addnoise,
        "base_num_frames": s.base_frames,
        "ar_step": s.ar_step,
        "causal_block_size": s.block,
        "fps": s.fps,
    } | more
    made = pipe(prompt=None, prompt_embeds=prompt, negative_prompt_embeds=negative, output_type="latent", **given)
    latents: Tensor = made.frames.transpose(1, 2)
    return latents


def stock(model: SkyReelsV2, prompt: Tensor, negative: Tensor | None, seed: int) -> Tensor:
    """The latents (slots, C, H, W) of one video from diffusers' pipeline, for embeddings (1, length, text width)."""
    with _attention(model):
        return call(pipeline(model), model, prompt, negative, seed)[0]


def arms(model: SkyReelsV2 | AnyFlowFAR, text: dict[str, Tensor], seed: int) -> dict[str, Callable[[], Tensor]]:
    """Functions that run our pipeline and diffusers' from the same embeddings of each guidance branch."""

    def theirs() -> Tensor:
        if isinstance(model, AnyFlowFAR):
            return stock_far(model, there["cond"], there.get("uncond"), seed)
        return stock(model, there["cond"], there.get("uncond"), seed)

    there = {branch: e.to(model.device, model.transformer.dtype) for branch, e in text.items()}
    return {
        "ours": lambda: generate(model, Original(), text, seed, []),
        "stock": theirs,
    }


def compare(model: SkyReelsV2 | AnyFlowFAR, text: dict[str, Tensor], rounds: int, seed: int) -> dict[str, Any]:
    """Compare and time both pipelines. The first run of each is the warm-up; its latents are compared."""
    both = arms(model, text, seed)
    ours, theirs = (run().float().cpu() for run in both.values())
    spent = in_turn(both, rounds, model.device)
    return {
        "ratio": ratio(spent, "ours", "stock"),
        "cpu_ratio": ratio(spent, "ours", "stock", "cpu_seconds"),
        "max_abs_error": float((ours - theirs).abs().max()),
        "largest_latent": float(theirs.abs().max()),
        "runs": plain(spent),
    }


def main(arguments: Sequence[str]) -> None:
    own, rest = split(arguments, DEFAULTS)
    far = any(word.startswith("model=far") for word in rest)
    run, model, _ = composed(["method=original", "speed=none", *([] if far else ["model.addnoise=0"]), *rest])
    if not isinstance(model, SkyReelsV2 | AnyFlowFAR):
        raise SystemExit(f"model={model.name} has no pipeline in diffusers; want skyreels_mid, far_mid or similar")
    model.load()
    prompt = prompts_of(run, 1)[0]
    found = compare(model, model.conditioning(prompt, model.texts([prompt])), int(own["rounds"]), int(own["seed"]))
    s = model.settings
    about = {"model": s.name, "weights": s.weights, "attention": model.attention, "precision": s.precision}
    rows = [[k, *(f"{r['seconds']:.2f} ({r['cpu_seconds']:.2f})" for r in runs)] for k, runs in found["runs"].items()]
    show(
        f"{s.name}, {s.frames} frames, {s.steps} steps: seconds (of CPU)",
        ["pipeline", *(f"round {i + 1}" for i in range(int(own["rounds"])))],
        rows,
        {**about, **found, **conditions("stock", arguments, model.device)},
    )
    if s.precision == "fp32" and not found["max_abs_error"] <= float(own["tolerance"]):
        raise SystemExit(f"latents differ by {found['max_abs_error']:.2e}, want at most {own['tolerance']}")


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
