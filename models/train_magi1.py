"""Train the small MAGI-1 on procedural videos: `python -m models.train_magi1`.

It trains the VAE, computes latents, and trains transformer and text encoder. The result is a folder that `models.magi1`
reads.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from models.magi1.checkpoint import SINGLE, initialise
from models.magi1.config import ModelConfig, RuntimeConfig
from models.magi1.dit import Layer, Magi1DiT
from models.magi1.vae import ViTVAE, load_vae
from models.shapes import sample
from models.train_folder import move_parts, plain
from models.train_magi1_card import write_card
from models.train_magi1_flow import train_flow
from models.train_magi1_vae import make_latents, refine_decoder, save_vae, train_vae
from models.train_tiny import new_tokenizer
from terminal import tolerate


def new_text_encoder(channels: int, words: int) -> T5EncoderModel:
    """A text encoder of two layers, of the same class as the released one."""
    return T5EncoderModel(
        T5Config(
            vocab_size=words,
            d_model=channels,
            d_kv=16,
            d_ff=2 * channels,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=16,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
        )
    )


def new_transformer(config: ModelConfig, seed: int) -> Magi1DiT:
    """The transformer with initial weights: open gates with little dependence on time, and small branch outputs."""
    model = Magi1DiT(config)
    initialise(model, seed)
    with torch.no_grad():
        for layer in model.layers:
            assert isinstance(layer, Layer)
            gates = layer.ada_modulate_layer.proj[0]
            assert isinstance(gates, nn.Linear)
            gates.weight.mul_(0.3)
            gates.bias.fill_(1.0)
            layer.self_attn_post_norm.weight.fill_(-0.7)  # offsets from one: a gain of 0.3
            layer.mlp_post_norm.weight.fill_(-0.7)
    return model


def write_folder(
    config: ModelConfig,
    runtime: RuntimeConfig,
    model: Magi1DiT,
    vae: ViTVAE,
    encoder: T5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
) -> None:
    """Write the model folder to a temporary name, then replace the old parts. Other files in `out` stay.

    Transformer and VAE are stored in float16 and run in float32.
    """
    staging = out.with_name(out.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    sections = {
        "model_config": asdict(config),
        "runtime_config": {k: v for k, v in asdict(runtime).items() if k not in ("distill", "shortcut_mode")},
        "engine_config": {
            "distill": True,
            "shortcut_mode": runtime.shortcut_mode,
            "distill_nearly_clean_chunk_threshold": runtime.distill_nearly_clean_chunk_threshold,
        },
    }
    (staging / "config.json").write_text(json.dumps(sections, indent=2) + "\n")
    save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, staging / SINGLE)
    save_vae(vae, staging / "vae")
    encoder.save_pretrained(staging / "t5")
    tokenizer.save_pretrained(staging / "t5")
    move_parts(staging, out)


def build(config: DictConfig, work: Path, out: Path) -> None:
    """Run the stages of the config that are not yet done and write the model folder.

    If `start` names a trained folder, its VAE encoder is kept, and the training of all else continues from there.
    """
    common = {"seed": config.seed, "checkpoint_every": config.checkpoint_every, "work": work}
    if config.start and not (work / "vae").exists():
        shutil.copytree(Path(config.start) / "vae", work / "vae")
    if not (work / "vae" / "config.json").exists():
        save_vae(train_vae(**plain(config.vae), size=config.size, **common), work / "vae")
    vae = load_vae(work / "vae", dtype=torch.float32)
    runtime = RuntimeConfig(
        noise2clean_kvrange=(),
        video_size_h=config.size,
        video_size_w=config.size,
        scale_factor=1.0,
        **plain(config.runtime),
    )
    shape = ModelConfig.from_dict({**config.transformer, "params_dtype": "float32"})
    torch.manual_seed(config.seed)
    tokenizer = new_tokenizer()
    encoder = new_text_encoder(shape.caption_channels, len(tokenizer))
    model = new_transformer(shape, config.seed)
    if config.start:
        encoder = T5EncoderModel.from_pretrained(Path(config.start) / "t5")
        trained = load_file(Path(config.start) / SINGLE)
        model.load_state_dict({name: tensor.float() for name, tensor in trained.items()})
    if config.flow.steps > 0:
        chunks = runtime.latent_frames // runtime.chunk_width
        latents = make_latents(vae, config.latents.videos, chunks, config.size, work / "latents.pt")
        specs = [sample(i) for i in range(len(latents))]
        train_flow(model, encoder, tokenizer, latents, specs, runtime, **config.flow, **common)
    if config.decoder.steps > 0:  # after the latents, which need the encoder only
        refine_decoder(vae, **config.decoder, size=config.size, **common)
    write_folder(shape, runtime, model.eval(), vae, encoder.eval(), tokenizer, out)


@hydra.main(version_base="1.3", config_path="../conf/train", config_name="magi1_tiny")
def main(config: DictConfig) -> None:
    """Run the stages that are not yet done, and write the model folder and its card."""
    torch.set_num_threads(config.threads)
    work, out = Path(config.work), Path(config.out)
    build(config, work, out)
    write_card(config, work, out)


if __name__ == "__main__":
    tolerate()
    main()
