"""diffusers' own pipeline of AnyFlow-FAR with the modules of our model, for comparisons."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AnyFlowFARPipeline, FlowMapEulerDiscreteScheduler
from torch import Tensor

from models.far.backbone import AnyFlowFAR


def pipeline(model: AnyFlowFAR) -> Any:
    """diffusers' pipeline. It takes embeddings, so it has no text encoder."""
    pipe = AnyFlowFARPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=model.transformer,
        vae=model.vae,
        scheduler=FlowMapEulerDiscreteScheduler(shift=model.settings.shift),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: Any, model: AnyFlowFAR, prompt: Tensor, negative: Tensor | None, seed: int, **more: Any) -> Tensor:
    """The latents (slots, C, H, W) that `pipe` makes of embeddings (1, length, text width). `more` goes to the pipeline
    as well, and replaces what the model's settings say."""
    s = model.settings
    given = {
        "height": s.height,
        "width": s.width,
        "num_frames": s.frames,
        "num_inference_steps": s.steps,
        "guidance_scale": s.guidance,
        "generator": torch.Generator().manual_seed(seed),
        "use_mean_velocity": s.use_mean_velocity,
        "chunk_partition": list(s.lengths),
    } | more
    made = pipe(prompt=None, prompt_embeds=prompt, negative_prompt_embeds=negative, output_type="latent", **given)
    latents: Tensor = made.frames[0].transpose(0, 1)
    return latents


def stock(model: AnyFlowFAR, prompt: Tensor, negative: Tensor | None, seed: int, **more: Any) -> Tensor:
    """The latents (slots, C, H, W) of one video from diffusers' pipeline, for embeddings (1, length, text width)."""
    return call(pipeline(model), model, prompt, negative, seed, **more)
