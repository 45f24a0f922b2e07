"""MAGI-1's autoencoder: tiling identities and what enters and leaves it. Recorded numbers: test_magi1_verify.py."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.magi1.checkpoint import CheckpointError
from models.magi1.tiling import Tiling, decode_tiled
from models.magi1.vae import WEIGHTS, VaeConfig, ViTVAE, load_vae

FOLDER = Path(__file__).parent / "fixtures" / "magi1"
CONFIG = json.loads((FOLDER / "vae_config.json").read_text())  # 16 pixels and 8 frames to a native tile; patch 4, 2


@pytest.fixture(scope="module")
def vae():
    vae = ViTVAE(VaeConfig.from_dict(CONFIG)).eval()
    vae.load_state_dict(load_file(FOLDER / "vae_state_dict.safetensors"))
    return vae


@torch.no_grad()
def test_a_video_that_fits_one_tile_is_not_tiled(vae):
    video, tiling = torch.rand(1, 3, 8, 16, 16) * 2 - 1, Tiling(length=8, height=32, width=32)
    latents = vae.encode(video)
    assert torch.equal(vae.encode_tiled(video, tiling), latents)
    assert torch.equal(vae.decode_tiled(latents, tiling), vae.decode(latents))


def test_tiles_of_a_pointwise_map_leave_no_seam():
    z = torch.randn(1, 2, 5, 11, 7)

    def enlarge(x):
        return x.repeat_interleave(2, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)

    tiling = Tiling(length=4, height=16, width=16, spatial_overlap=0.25, temporal_overlap=0.5)
    torch.testing.assert_close(decode_tiled(z, enlarge, tiling, (2, 4, 4)), enlarge(z))


def test_tiles_fade_linearly_into_one_another():
    tiles = iter([torch.zeros(1, 1, 1, 1, 8), torch.ones(1, 1, 1, 1, 2)])
    blended = decode_tiled(torch.zeros(1, 1, 1, 1, 4), lambda _: next(tiles), Tiling(1, 8, 8, 0.5), (1, 4, 1))
    assert blended.flatten().tolist() == [0.0] * 4  # one tile: the first four columns are kept
    tiles = iter([torch.zeros(1, 1, 1, 1, 8), torch.ones(1, 1, 1, 1, 8)])
    blended = decode_tiled(torch.zeros(1, 1, 1, 1, 8), lambda _: next(tiles), Tiling(1, 8, 8, 0.5), (1, 4, 1))
    assert blended.flatten().tolist() == [0, 0, 0, 0, 0, 0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match="have a stride of 0"):
        decode_tiled(torch.zeros(1, 1, 1, 1, 8), lambda x: x, Tiling(1, 1, 8, 0.5), (1, 1, 1))


def test_frames_are_truncated_to_bytes_and_come_back(vae):
    latents = torch.randn(4, 2, 4, 4)
    frames = vae.frames(latents, scale_factor=0.5)
    assert frames.dtype == torch.uint8 and frames.shape == (4, 16, 16, 3)
    exact = vae.decode(latents[None] / 0.5)[0].permute(1, 2, 3, 0).detach()
    assert torch.equal(frames, (exact * 127.5 + 127.5).clamp(0, 255).floor().to(torch.uint8))
    assert vae.latents(frames, scale_factor=0.5).shape == latents.shape


@torch.no_grad()
def test_an_image_is_one_latent_and_one_latent_is_an_image(vae):
    image = torch.rand(1, 3, 1, 16, 16)
    latent = vae.encode(image)
    assert latent.shape == (1, 4, 1, 4, 4)
    assert torch.equal(latent, vae.encode(image.expand(-1, -1, 4, -1, -1))[:, :, :1])
    assert vae.decode(latent).shape == image.shape


def test_the_published_autoencoder_has_its_size():
    with torch.device("meta"):
        count = sum(p.numel() for p in ViTVAE(VaeConfig()).parameters())
    assert round(count / 1e6) == 614


def test_an_official_folder_loads_and_another_is_refused(tmp_path, vae):
    with pytest.raises(CheckpointError, match="no MAGI-1 VAE in"):
        load_vae(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(CheckpointError, match="is missing"):
        load_vae(tmp_path)
    weights = load_file(FOLDER / "vae_state_dict.safetensors")
    save_file(weights, tmp_path / WEIGHTS)
    loaded = load_vae(tmp_path, dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), vae.state_dict().values(), strict=True))
    weights.pop("encoder.cls_token")
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"1 missing: encoder\.cls_token"):
        load_vae(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "_class_name": "AutoencoderKL"}))
    with pytest.raises(CheckpointError, match="want a ViTVAE"):
        load_vae(tmp_path)


def test_variants_that_were_never_released_are_refused():
    with pytest.raises(ValueError, match="use_rope"):
        VaeConfig(use_rope=True)
