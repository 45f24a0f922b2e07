"""The model card and the loss curves of a trained small model, written from the checkpoints of the training."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib import pyplot
from omegaconf import DictConfig

from models.shapes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES

LOSSES, HOURS = "losses.csv", "hours.json"
CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-video
---
# skyreels_tiny

A small text-to-video model with the classes of SkyReels-V2 (`SkyReelsV2Transformer3DModel`, `AutoencoderKLWan`,
`UMT5EncoderModel`, `UniPCMultistepScheduler`), trained from scratch by this project. It runs on a laptop's CPU in
seconds, so that methods of acceleration can be compared without a GPU. It generates one kind of video: a coloured shape
that moves over a gradient and re-enters on the opposite side. Its quality says nothing about that of SkyReels-V2.

* **Prompts**: {colours}; {shapes}; {directions}; {backgrounds}. For example "a red circle moving left over a dusk
  background". Unknown words become one unknown token.
* **Size**: {size}x{size} pixels, 1+4k frames; window of 25 latent frames (97 frames), longer videos by overlap.
  Transformer {transformer_m:.2f} M parameters (width {width}, {layers} layers), autoencoder {vae_m:.2f} M, text
  encoder {text_m:.2f} M; float32 weights.
* **Sampling**: 50 steps, flow shift {flow_shift}, asynchronous (`ar_step=5`, blocks of 5 latents) or synchronous,
  full or block-causal attention, guidance about {guidance}.

## Training

| | steps | batch | hours | last loss |
|---|---|---|---|---|
{stages}

* **Data**: procedural videos (`models/shapes.py`), 216 of 288 combinations of colour, shape, direction and background;
  the other 72 are held out. The VAE was trained on a new video at every step, the transformer on {videos} videos of
  {frames} frames.
* **Objective**: flow matching with a noise level of its own for each block of 5 latents: staircase, synchronous and
  independent levels, 35 % of the windows after a clean block, {causal:.0%} of the batches with the block-causal
  mask, {drop:.0%} empty prompts; AdamW, average of the weights over about {memory:.0f} steps.
* **Hardware**: {threads} thread(s) of {machine}; PyTorch {torch}. Seed {seed}.{notes}
* **To train it again**: `python -m models.train_tiny`. Losses: `losses.csv`, `losses.png`.

## Measured quality

{adherence}

## Licence

Apache-2.0, like the project. No data or weights of others were used.
"""


def parameters(path: Path) -> float:
    """The number of parameters in a safetensors file, in millions, from its header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    count = 0
    for name, entry in header.items():
        if name != "__metadata__":
            count += int(torch.Size(entry["shape"]).numel())
    return count / 1e6


def plot_losses(curves: dict[str, list[float]], path: Path) -> None:
    """Draw each curve with its running mean over 50 steps."""
    figure, axes = pyplot.subplots(1, len(curves), figsize=(5 * len(curves), 3.2), squeeze=False)
    for axis, (name, losses) in zip(axes[0], curves.items(), strict=True):
        values = torch.tensor(losses)
        axis.plot(values, color="0.8", linewidth=0.5)
        if len(values) >= 50:
            axis.plot(torch.arange(25, len(values) - 24), values.unfold(0, 50, 1).mean(1), color="C0")
        axis.set(title=name, xlabel="step", ylabel="loss", yscale="log")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


@dataclass(frozen=True)
class Stage:
    """The result of one stage of a training."""

    losses: list[float]  # loss of every step
    hours: float  # duration


def stages_of(names: Sequence[str], work: Path, start: str = "") -> dict[str, Stage]:
    """The stages with checkpoints in `work`, each appended to that of the model folder `start`, if given."""
    stages: dict[str, Stage] = {}
    if start:
        hours = json.loads((Path(start) / HOURS).read_text())
        for line in (Path(start) / LOSSES).read_text().splitlines()[1:]:
            name, _, loss = line.split(",")
            stages.setdefault(name, Stage([], hours[name])).losses.append(float(loss))
    for name in names:
        path = work / f"{name}.ckpt"
        if path.exists():
            saved = torch.load(path, weights_only=True, mmap=True)
            known = stages.get(name, Stage([], 0.0))
            hours_here = saved.get("seconds", 0.0) / 3600
            stages[name] = Stage(known.losses + saved["losses"], round(known.hours + hours_here, 2))
    return {name: stages[name] for name in names if name in stages}


def stage_rows(stages: dict[str, Stage], batches: dict[str, str]) -> str:
    """The card's table: steps, batch, hours and the mean of the last losses."""
    return "\n".join(
        f"| {name} | {len(stage.losses)} | {batches[name]} | {stage.hours:.2f} | "
        f"{sum(stage.losses[-100:]) / len(stage.losses[-100:]):.4f} |"
        for name, stage in stages.items()
    )


def write_curves(stages: dict[str, Stage], out: Path) -> None:
    """Write losses.csv, losses.png and the hours. A later training that starts from this model adds to them."""
    plot_losses({name: stage.losses for name, stage in stages.items()}, out / "losses.png")
    rows = [f"{name},{i},{loss:.5f}" for name, stage in stages.items() for i, loss in enumerate(stage.losses)]
    (out / LOSSES).write_text("\n".join(["stage,step,loss", *rows]) + "\n")
    (out / HOURS).write_text(json.dumps({name: stage.hours for name, stage in stages.items()}) + "\n")


def adherence_text(path: Path) -> str:
    """The table of `adherence.json`, or a sentence that says how to measure it."""
    if not path.exists():
        return "Not measured yet. `python -m benchmarks.adherence` measures it and writes `adherence.json`."
    rows = json.loads(path.read_text())
    lines = ["Read from generated videos of held-out prompts by `eval/adherence.py`:", ""]
    lines += ["| setting | videos | colour | shape | direction | object present | jumps per video |", "|" + "---|" * 7]
    for row in rows:
        shares = " | ".join(f"{row[key]:.1%}" for key in ("colour", "shape", "direction", "present"))
        lines.append(f"| {row['setting']} | {row['videos']} | {shares} | {row['jumps']:.2f} |")
    return "\n".join(lines)


def processor() -> str:
    """The name of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def shared_values(config: DictConfig, out: Path, drop_text: float | None = None) -> dict[str, Any]:
    """The values of a model card that all small models have. `drop_text` is that of the config's `flow` by default."""
    return {
        "colours": ", ".join(COLOURS),
        "shapes": ", ".join(SHAPES),
        "directions": ", ".join(DIRECTIONS),
        "backgrounds": ", ".join(BACKGROUNDS),
        "size": config.size,
        "videos": config.latents.videos,
        "drop": config.flow.drop_text if drop_text is None else drop_text,
        "memory": 1 / (1 - config.flow.decay),
        "threads": config.threads,
        "machine": processor(),
        "torch": torch.__version__.split("+")[0],
        "seed": config.seed,
        "notes": config.notes and f" {config.notes}",
        "adherence": adherence_text(out / "adherence.json"),
    }


def write_card(config: DictConfig, work: Path, out: Path) -> None:
    """Write README.md, losses.csv and losses.png into the model folder `out` from the checkpoints in `work`."""
    images = f"{config.vae.image_batch} frames, then {config.vae.video_batch} videos"
    batches = {"vae": images, "decoder": f"{config.decoder.batch} videos", "flow": f"{config.flow.batch} windows"}
    stages = stages_of(list(batches), work, config.start)
    write_curves(stages, out)
    width = config.transformer.heads * config.transformer.head_dim
    card = CARD.format(
        **shared_values(config, out),
        width=width,
        layers=config.transformer.layers,
        flow_shift=config.flow_shift,
        guidance=config.guidance,
        transformer_m=parameters(out / "transformer" / "diffusion_pytorch_model.safetensors"),
        vae_m=parameters(out / "vae" / "diffusion_pytorch_model.safetensors"),
        text_m=parameters(out / "text_encoder" / "model.safetensors"),
        stages=stage_rows(stages, batches),
        frames=config.latents.frames,
        causal=config.flow.causal,
    )
    (out / "README.md").write_text(card)
