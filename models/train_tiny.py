"""Train the small SkyReels-V2 model on procedural videos: `python -m models.train_tiny`.

It trains the VAE, computes latents, and trains transformer and text encoder. The result is a folder in the format of
diffusers.
"""

import shutil
from pathlib import Path

import hydra
import torch
from diffusers import (
    AutoencoderKLWan,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
)
from omegaconf import DictConfig
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from models.shapes import sample, vocabulary
from models.train_card import write_card
from models.train_flow import TEXT_LENGTH, train_flow
from models.train_folder import move_parts
from models.train_vae import make_latents, measure_latents, refine_decoder, train_vae
from terminal import tolerate


def new_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word of the captions, one for all other words, one for padding and one for the end."""
    words = ["<pad>", "</s>", "<unk>", *vocabulary()]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TEXT_LENGTH
    )


def new_text_encoder(text_dim: int, words: int) -> UMT5EncoderModel:
    """A text encoder of two layers."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=words,
            d_model=text_dim,
            d_kv=16,
            d_ff=2 * text_dim,
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


def new_transformer(
    *, heads: int, head_dim: int, layers: int, ffn_dim: int, text_dim: int
) -> SkyReelsV2Transformer3DModel:
    """A transformer of small width. Gates and output are zero at first, so that every block is the identity (as in
    DiT, arXiv 2212.09748, section 3.2)."""
    model = SkyReelsV2Transformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        num_layers=layers,
        ffn_dim=ffn_dim,
        text_dim=text_dim,
        in_channels=16,
        out_channels=16,
        freq_dim=128,
        inject_sample_info=True,
        rope_max_seq_len=1024,
    )
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(model.patch_embedding.weight.view(heads * head_dim, -1))
    nn.init.normal_(model.condition_embedder.time_proj.weight, std=0.01)
    nn.init.normal_(model.fps_projection.net[-1].weight, std=0.01)
    nn.init.zeros_(model.proj_out.weight)
    for block in model.blocks:
        nn.init.zeros_(block.scale_shift_table)
    return model


def write_folder(pipeline: SkyReelsV2DiffusionForcingPipeline, out: Path) -> None:
    """Write the model folder to a temporary name, then replace the old parts. Other files in `out` stay."""
    staging = out.with_name(out.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    pipeline.save_pretrained(staging, safe_serialization=True)
    move_parts(staging, out)


def build(config: DictConfig, work: Path) -> SkyReelsV2DiffusionForcingPipeline:
    """Run the stages of the config that are not yet done; returns the pipeline of the trained parts.

    If `start` names a trained folder, its VAE is kept, and the training of its transformer and text encoder continues.
    """
    common = {"seed": config.seed, "checkpoint_every": config.checkpoint_every, "work": work}
    if config.start and not (work / "vae").exists():
        shutil.copytree(Path(config.start) / "vae", work / "vae")
    if not (work / "vae" / "config.json").exists():
        vae = train_vae(**config.vae, size=config.size, **common)
        measure_latents(vae, videos=200, frames=33, size=config.size, seed=10_000_000)
        vae.save_pretrained(work / "vae")
    vae = AutoencoderKLWan.from_pretrained(work / "vae")
    if not config.start:
        refine_decoder(vae, **config.decoder, size=config.size, **common)
    torch.manual_seed(config.seed)
    tokenizer = new_tokenizer()
    encoder = new_text_encoder(config.transformer.text_dim, len(tokenizer))
    transformer = new_transformer(**config.transformer)
    if config.start:
        transformer = SkyReelsV2Transformer3DModel.from_pretrained(Path(config.start) / "transformer")
        encoder = UMT5EncoderModel.from_pretrained(Path(config.start) / "text_encoder")
    if config.flow.steps > 0:
        specs = [sample(i) for i in range(config.latents.videos)]
        latents = make_latents(work / "vae", **config.latents, size=config.size, path=work / "latents.pt")
        train_flow(transformer, encoder, tokenizer, latents, specs, **config.flow, **common)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=config.flow_shift
    )
    return SkyReelsV2DiffusionForcingPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder.eval(),
        transformer=transformer.eval(),
        vae=vae.eval(),
        scheduler=scheduler,
    )


@hydra.main(version_base="1.3", config_path="../conf/train", config_name="skyreels_tiny")
def main(config: DictConfig) -> None:
    """Run the stages that are not yet done, and write the model folder and its card."""
    torch.set_num_threads(config.threads)
    work, out = Path(config.work), Path(config.out)
    write_folder(build(config, work), out)
    write_card(config, work, out)


if __name__ == "__main__":
    tolerate()
    main()
