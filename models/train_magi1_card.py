"""The model card and the loss curves of the small MAGI-1, written from what its training left behind."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from models.magi1.checkpoint import SINGLE
from models.magi1.vae import WEIGHTS, load_vae
from models.shapes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES
from models.train_card import adherence_text, parameters, processor, stage_rows, stages_of, write_curves
from models.train_magi1_vae import reconstruction

CARD = """---
license: apache-2.0
pipeline_tag: text-to-video
---
# magi1_tiny

A small text-to-video model in the architecture of MAGI-1 (arXiv:2505.13211), trained from nothing by this project:
chunks of 24 frames, four in flight, later ones noisier, a cache of finished chunks. Like the distilled model it runs
one pass a forward, without guidance. It runs on a laptop's processor in seconds, so that methods of acceleration can
be compared without a GPU. It knows one world: a coloured shape that moves over a gradient on a torus. It is no preview
of what MAGI-1 can show.

* **Prompts**: {colours}; {shapes}; {directions}; {backgrounds}. For example "a red circle moving left over a dusk
  background". Words it does not know become one unknown token.
* **Size**: {size}x{size} pixels, {frames} frames ({chunks} chunks). Transformer {transformer_m:.2f} M parameters (width
  {width}, {layers} layers), autoencoder {vae_m:.2f} M (one block of width 768 each way, because the official decoder
  makes the colours of a pixel from width / 256 channels), text encoder {text_m:.2f} M (T5, two layers). Transformer and
  autoencoder are stored in float16 and run in float32.
* **Sampling**: {steps} steps, window {window}, whole history visible, `scale_factor` 1, no special tokens. Grids of 32,
  16 and 8 steps are known to it. Sizes, lengths and windows other than these were not trained.

## Training

| | steps | batch | hours | last loss |
|---|---|---|---|---|
{stages}

* **Data**: procedural videos (`models/shapes.py`), 216 of 288 combinations of colour, shape, direction and background;
  the other 72 are held out. The autoencoder saw fresh tiles at every step, the transformer {videos} videos.
* **Autoencoder**: starts as the principal components of patches, written into its weights; squared and absolute
  error, five times as heavy on the shape, {kl:g} of the KL divergence, {jitter:.0%} noise on the latents. Mean PSNR on
  held-out videos: {psnr:.1f} dB.
* **Objective**: flow matching, velocity = clean - noise, on the forwards that the pipeline runs: finished chunks at
  `clean_t` without text, the chunks in flight at their own times, and the oldest once more alone where the pipeline
  runs its nearly-clean duplicate. {fewer:.0%} of the batches on grids of fewer steps, {drop:.0%} of the windows without
  a prompt. From step {guided_from} on a single pass learned to stand for classifier-free guidance of scale {guidance:g}
  (Model-guidance, arXiv:2502.12154). Text encoder trained along.
  AdamW, average of the weights over about {memory:.0f} steps.
* **Hardware**: {threads} thread(s) of {machine}, shared with other work; PyTorch {torch}. Seed {seed}.{notes}
* **Again**: `python -m models.train_magi1`. Losses: `losses.csv`, `losses.png`.

## What it shows

{adherence}

## Licence

Apache-2.0, as the project. No data or weights of others went into it.
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
        colours=", ".join(COLOURS),
        shapes=", ".join(SHAPES),
        directions=", ".join(DIRECTIONS),
        backgrounds=", ".join(BACKGROUNDS),
        size=config.size,
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
        videos=config.latents.videos,
        kl=config.vae.kl,
        jitter=config.vae.jitter,
        psnr=reconstruction(load_vae(out / "vae", dtype=torch.float32), config.size),
        fewer=config.flow.fewer_steps,
        drop=config.flow.drop_text,
        guidance=config.flow.guidance,
        guided_from=config.flow.guided_from,
        memory=1 / (1 - config.flow.decay),
        threads=config.threads,
        machine=processor(),
        torch=torch.__version__.split("+")[0],
        seed=config.seed,
        notes=config.notes and f" {config.notes}",
        adherence=adherence_text(out / "adherence.json"),
    )
    (out / "README.md").write_text(card)
