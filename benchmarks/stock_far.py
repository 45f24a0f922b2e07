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


def stock(model: AnyFlowFAR, prompt: Tensor, negative: Tensor | None, seed: int, **more: Any) -> Tensor:
    """The latents (slots, C, H, W) of one video, for embeddings (1, length, text width). `more`: further arguments."""
    s = model.settings
    made = pipeline(model)(
        prompt=None,
        prompt_embeds=prompt,
        negative_prompt_embeds=negative,
        height=s.height,
        width=s.width,
        num_frames=s.frames,
        num_inference_steps=s.steps,
        guidance_scale=s.guidance,
        generator=torch.Generator().manual_seed(seed),
        use_mean_velocity=s.use_mean_velocity,
        chunk_partition=list(s.lengths),
        output_type="latent",
        **more,
    )
    latents: Tensor = made.frames[0].transpose(0, 1)
    return latents
