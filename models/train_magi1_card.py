"""The model card and the loss curves of the small MAGI-1, written from the checkpoints of the training."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from models.magi1.checkpoint import SINGLE
from models.magi1.vae import WEIGHTS, load_vae
from models.train_card import parameters, shared_values, stage_rows, stages_of, write_curves
from models.train_magi1_vae import reconstruction

CARD = """---
license: apache-2.0
pipeline_tag: text-to-video
---
# magi1_tiny

A small text-to-video model with the architecture of MAGI-1 (arXiv:2505.13211), trained from scratch by this project.
Four chunks of 24 frames are denoised at the same time, later ones noisier, with a cache of finished chunks. Like the
distilled model it runs one pass per forward, without guidance. It runs on a laptop's CPU in seconds, so that methods of
acceleration can be compared without a GPU. It generates one kind of video: a coloured shape that moves over a gradient
and re-enters on the opposite side. Its quality says nothing about that of MAGI-1.

* **Prompts**: {colours}; {shapes}; {directions}; {backgrounds}. For example "a red circle moving left over a dusk
  background". Unknown words become one unknown token.
* **Size**: {size}x{size} pixels, {frames} frames ({chunks} chunks). Transformer {transformer_m:.2f} M parameters (width
  {width}, {layers} layers), VAE {vae_m:.2f} M (one block of width 768 each in encoder and decoder, because the official
  decoder computes the colours of a pixel from width / 256 channels), text encoder {text_m:.2f} M (T5, two layers).
  Transformer and VAE are stored in float16 and run in float32.
* **Sampling**: {steps} steps, window {window}, attention to the whole history, `scale_factor` 1, no special tokens. It
  was also trained on grids of 32, 16 and 8 steps, but not on other sizes, lengths and windows.

## Training

| | steps | batch | hours | last loss |
|---|---|---|---|---|
{stages}

* **Data**: procedural videos (`models/shapes.py`), 216 of 288 combinations of colour, shape, direction and background;
  the other 72 are held out. The VAE was trained on new tiles at every step, the transformer on {videos} videos.
* **VAE**: its initial weights compute the principal components of patches; squared and absolute error, with five times
  the weight on the shape, {kl:g} of the KL divergence, {jitter:.0%} noise on the latents. Mean PSNR on held-out videos:
  {psnr:.1f} dB.
* **Objective**: flow matching, velocity = clean - noise, on the forwards of the pipeline: finished chunks at `clean_t`
  without text, the chunks that are being denoised at their own times, and the oldest of them once more alone if the
  pipeline runs its nearly-clean duplicate. {fewer:.0%} of the batches are on grids of fewer steps, {drop:.0%} of the
  windows have no prompt. From step {guided_from} on the model learned to give in one pass the result of classifier-free
  guidance of scale {guidance:g} (Model-guidance, arXiv:2502.12154). The text encoder was trained with it.
  AdamW, average of the weights over about {memory:.0f} steps.
* **Hardware**: {threads} thread(s) of {machine}, shared with other work; PyTorch {torch}. Seed {seed}.{notes}
* **To train it again**: `python -m models.train_magi1`. Losses: `losses.csv`, `losses.png`.

## Measured quality

{adherence}

## Licence

Apache-2.0, like the project. No data or weights of others were used.
"""


def write_card(config: DictConfig, work: Path, out: Path) -> None:
    """Write README.md, losses.csv and losses.png into the model folder `out` from the checkpoints in `work`."""
    tiles = "tiles of 12 frames"
    batches = {"vae": f"{config.vae.batch} {tiles}", "decoder": f"{config.decoder.batch} {tiles}"}
    batches |= {"flow": f"{config.flow.batch} windows"}
    stages = stages_of(list(batches), work, config.start)
    write_curves(stages, out)
    runtime, shape = config.runtime, config.transformer
    card = CARD.format(
        **shared_values(config, out),
        frames=runtime.num_frames,
        chunks=runtime.num_frames // (4 * runtime.chunk_width),
        transformer_m=parameters(out / SINGLE),
        vae_m=parameters(out / "vae" / WEIGHTS),
        text_m=parameters(out / "t5" / "model.safetensors"),
        width=shape.hidden_size,
        layers=shape.num_layers,
        steps=runtime.num_steps,
        window=runtime.window_size,
        stages=stage_rows(stages, batches),
        kl=config.vae.kl,
        jitter=config.vae.jitter,
        psnr=reconstruction(load_vae(out / "vae", dtype=torch.float32), config.size),
        fewer=config.flow.fewer_steps,
        guidance=config.flow.guidance,
        guided_from=config.flow.guided_from,
    )
    (out / "README.md").write_text(card)
