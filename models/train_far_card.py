"""The model card and the loss curves of the small AnyFlow-FAR model, written from the checkpoints of the training."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from omegaconf import DictConfig

from models.train_card import parameters, shared_values, stage_rows, stages_of, write_curves

WEIGHTS = "diffusion_pytorch_model.safetensors"
CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
---
# far_tiny

A small text-to-video model with the classes of AnyFlow-FAR (`AnyFlowFARTransformer3DModel`, `AutoencoderKLWan`,
`UMT5EncoderModel`, `FlowMapEulerDiscreteScheduler`), trained by this project. Chunk after chunk is generated in any
number of steps, each from the keys and values of its past. It runs on a laptop's CPU in seconds, so that methods of
acceleration can be compared without a GPU. It generates one kind of video: a coloured shape that moves over a gradient
and re-enters on the opposite side. Its quality says nothing about that of AnyFlow-FAR.

* **Prompts**: {colours}; {shapes}; {directions}; {backgrounds}. For example "a red circle moving left over a dusk
  background". Unknown words become one unknown token. The text has 512 tokens, zeros after the last word, and all of
  them are attended to.
* **Size**: {size}x{size} pixels, {frames} frames in chunks of {chunks} latents (trained up to {longest} frames).
  Transformer {transformer_m:.2f} M parameters, stored in float16 and run in float32; autoencoder {vae_m:.2f} M, text
  encoder {text_m:.2f} M.
* **Sampling**: 1 to 50 steps with the mean velocity (`use_mean_velocity`), flow shift {shift}, guidance 1. The padding
  of the attention must be masked (`model.padding=masked`), as in the class's training forward; the class's inference
  forward attends to 80 keys of padding at a chunk of 48 tokens, which this model has not learned.

## Training

| | steps | batch | hours | last loss |
|---|---|---|---|---|
{stages}

* **Start**: autoencoder, text encoder and tokenizer are those of `skyreels_tiny`, unchanged. The transformer starts
  from that of `skyreels_tiny`: the blocks have the same parameters, the embedding of the target time starts as that
  of the time, the compressed patches start as means of the patches they cover. So most of what it knows comes from the
  training of `skyreels_tiny`.
* **Data**: procedural videos (`models/shapes.py`), 216 of 288 combinations of colour, shape, direction and background;
  the other 72 are held out. {videos} videos of {longest} frames; windows of 1 to 9 chunks, all from the first frame on.
* **flow**: the class's own training forward (noisy chunks see the clean past), flow matching with r = t and a noise
  level for each chunk, {drop:.0%} empty prompts, noise of up to {context:g} on the past. One pass learns the result of
  classifier-free guidance of scale {guidance:g} (Model-guidance, arXiv:2502.12154).
* **map**: the mean velocity from t to r. The frozen result of the stage before follows its own path in {path_steps}
  steps; (z_t - z_r) / (t - r) between two points of a path is the target. A path serves {reuse} updates.
* AdamW, average of the weights over about {memory:.0f} steps.
* **Hardware**: {threads} thread(s) of {machine}, shared with other work; PyTorch {torch}. Seed {seed}.{notes}
* **To train it again**: `python -m models.train_far`. Losses: `losses.csv`, `losses.png`.

## Measured quality

{adherence}{figure}

## Licence

Apache-2.0, like the project. No data or weights of others were used.
"""


def plot_quality(rows: list[dict], path: Path) -> None:
    """Draw the shares of `adherence.json` against the number of steps of each row."""
    rows = sorted(rows, key=lambda row: row["steps"])
    figure, axis = pyplot.subplots(figsize=(5, 3.2))
    for key in ("colour", "direction", "shape"):
        axis.plot([row["steps"] for row in rows], [100 * row[key] for row in rows], marker="o", label=key)
    axis.set(xlabel="steps", ylabel="% of videos", xscale="log", ylim=(0, 103))
    axis.set_xticks([row["steps"] for row in rows], [str(row["steps"]) for row in rows])
    axis.minorticks_off()
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def steps_of(setting: str) -> int | None:
    """The number of steps that the setting of a row of `adherence.json` names, or None."""
    named = [part.split("=")[1] for part in setting.split(", ") if part.startswith("model.steps=")]
    return int(named[0]) if named else None


def write_card(config: DictConfig, work: Path, out: Path) -> None:
    """Write README.md, losses.csv and losses.png into the model folder `out` from the checkpoints in `work`.

    If `out/adherence.json` has rows for several numbers of steps, quality.png shows quality against steps.
    """
    batch = f"{config.source.batch} windows (x2, x4 where short)"
    stages = stages_of(["flow", "map"], work)
    write_curves(stages, out)
    measured = out / "adherence.json"
    rows = json.loads(measured.read_text()) if measured.exists() else []
    drawn = [{**row, "steps": steps_of(row["setting"])} for row in rows if steps_of(row["setting"])]
    if len(drawn) > 1:
        plot_quality(drawn, out / "quality.png")
    values = shared_values(config, out, config.source.drop_text)
    card = CARD.format(
        **values,
        stages=stage_rows(stages, dict.fromkeys(stages, batch)),
        frames=4 * sum(config.transformer.chunk_partition) - 3,
        chunks=", ".join(str(n) for n in config.transformer.chunk_partition),
        longest=config.latents.frames,
        transformer_m=parameters(out / "transformer" / WEIGHTS),
        vae_m=parameters(out / "vae" / WEIGHTS),
        text_m=parameters(out / "text_encoder" / "model.safetensors"),
        shift=config.shift,
        context=config.source.context_noise,
        guidance=config.flow.guidance,
        path_steps=config.map.path_steps,
        reuse=config.map.reuse,
        figure="\n\n![Quality against steps](quality.png)" if len(drawn) > 1 else "",
    )
    (out / "README.md").write_text(card)
