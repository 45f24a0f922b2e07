"""Train the small AnyFlow-FAR model on procedural videos: `python -m models.train_far`.

It starts from the trained small SkyReels-V2, whose autoencoder and text encoder it keeps, and trains the transformer in
two stages (models/train_far_flow.py). It can be stopped at any moment and run again. To get a folder from a training
that was stopped, run it with `flow.steps` and `map.steps` set to the steps that are done.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import hydra
import torch
from diffusers import (
    AnyFlowFARPipeline,
    AnyFlowFARTransformer3DModel,
    AutoencoderKLWan,
    FlowMapEulerDiscreteScheduler,
    SkyReelsV2Transformer3DModel,
)
from omegaconf import DictConfig
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from models.shapes import sample
from models.train_far_card import write_card
from models.train_far_flow import Source, train_flow, train_map
from models.train_far_forward import Trainee
from models.train_folder import move_parts, plain
from models.train_vae import make_latents
from terminal import tolerate

KEPT = ("vae", "text_encoder", "tokenizer")  # parts of the start folder that the model folder holds unchanged


@torch.no_grad()
def starting_weights(start: SkyReelsV2Transformer3DModel, compressed: tuple[int, ...]) -> dict[str, Tensor]:
    """The weights of an AnyFlow-FAR transformer that computes what `start` computes when r equals t.

    The two classes have equal blocks. The constant term of the frame rate goes into the bias of the time projection,
    the embedding of r starts as that of t, and a compressed patch starts as the mean of the patches it covers.
    `compressed` is the size of such a patch. Raises ValueError if `start` has no diffusion-forcing frame rate term.
    """
    if not start.config.inject_sample_info:
        raise ValueError("the start model has inject_sample_info=False; start from a small SkyReels-V2 that sets it")
    found = {name: value.clone() for name, value in start.state_dict().items() if not name.startswith("fps_")}
    fps = start.fps_projection(start.fps_embedding(torch.ones(1, dtype=torch.long)))
    found["condition_embedder.time_proj.bias"] += fps.flatten()
    for name in [name for name in found if "time_embedder" in name]:
        found[name.replace("time_embedder", "delta_embedder")] = found[name].clone()
    patch = found["patch_embedding.weight"]
    times = [large // small for large, small in zip(compressed, patch.shape[2:], strict=True)]
    for axis, n in enumerate(times):
        patch = patch.repeat_interleave(n, 2 + axis) / n
    found["far_patch_embedding.weight"] = patch
    found["far_patch_embedding.bias"] = found["patch_embedding.bias"].clone()
    return found


def new_transformer(start: SkyReelsV2Transformer3DModel, settings: dict[str, Any]) -> AnyFlowFARTransformer3DModel:
    """The transformer with the sizes and weights of `start`."""
    names = ["num_attention_heads", "attention_head_dim", "num_layers", "ffn_dim", "text_dim", "freq_dim"]
    names += ["in_channels", "out_channels", "cross_attn_norm", "eps", "patch_size", "rope_max_seq_len"]
    model = AnyFlowFARTransformer3DModel(**{name: start.config[name] for name in names}, **settings)
    model.load_state_dict(starting_weights(start, tuple(model.config.compressed_patch_size)))
    return model


def write_folder(model: AnyFlowFARTransformer3DModel, start: Path, shift: float, out: Path) -> None:
    """Write the model folder to a temporary name, then replace the old parts. Other files in `out` stay.

    The transformer is stored in float16 and runs in float32. The parts of `start` are copied byte by byte.
    """
    staging = out.with_name(out.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    pipeline = AnyFlowFARPipeline(
        tokenizer=PreTrainedTokenizerFast.from_pretrained(start / "tokenizer"),
        text_encoder=UMT5EncoderModel.from_pretrained(start / "text_encoder"),
        transformer=copy.deepcopy(model).half(),
        vae=AutoencoderKLWan.from_pretrained(start / "vae"),
        scheduler=FlowMapEulerDiscreteScheduler(shift=shift),
    )
    pipeline.save_config(staging)
    pipeline.transformer.save_pretrained(staging / "transformer", safe_serialization=True)
    pipeline.scheduler.save_pretrained(staging / "scheduler")
    for part in KEPT:
        shutil.copytree(start / part, staging / part)
    move_parts(staging, out)


def source_of(config: DictConfig, work: Path) -> Source:
    """The latents of the training videos and their texts, read with the VAE and the text encoder of `config.start`."""
    start = Path(config.start)
    latents = make_latents(start / "vae", **plain(config.latents), size=config.size, path=work / "latents.pt")
    return Source(
        latents,
        [sample(i) for i in range(len(latents))],
        PreTrainedTokenizerFast.from_pretrained(start / "tokenizer"),
        UMT5EncoderModel.from_pretrained(start / "text_encoder").eval(),
        **plain(config.source),
    )


def build(config: DictConfig, work: Path) -> AnyFlowFARTransformer3DModel:
    """Run the stages of the config that are not yet done; returns the trained transformer."""
    start = Path(config.start)
    common = {"seed": config.seed, "checkpoint_every": config.checkpoint_every, "work": work}
    torch.manual_seed(config.seed)
    model = new_transformer(
        SkyReelsV2Transformer3DModel.from_pretrained(start / "transformer"), plain(config.transformer)
    )
    source = source_of(config, work)
    trainee = Trainee(model)
    train_flow(trainee, source, **plain(config.flow), **common)
    if config.map.steps > 0:
        teacher = Trainee(copy.deepcopy(model))
        train_map(trainee, teacher, source, shift=config.shift, **plain(config.map), **common)
    return model.eval()


@hydra.main(version_base="1.3", config_path="../conf/train", config_name="far_tiny")
def main(config: DictConfig) -> None:
    """Run the stages that are not yet done, and write the model folder and its card."""
    torch.set_num_threads(config.threads)
    work, out = Path(config.work), Path(config.out)
    write_folder(build(config, work), Path(config.start), config.shift, out)
    write_card(config, work, out)


if __name__ == "__main__":
    tolerate()
    main()
