"""Signals that cost no forward, float32 whatever the model's precision, so that neighbouring steps differ."""

from __future__ import annotations

import torch.nn.functional as F
from diffusers import SkyReelsV2Transformer3DModel
from torch import Tensor

SIGNALS = frozenset({"time_projection", "time_embedding", "latent", "patch_embedding"})


def signal(model: SkyReelsV2Transformer3DModel, name: str, latents: Tensor, timesteps: Tensor) -> Tensor:
    """The signal `name` of `latents` (slots, C, H, W) at `timesteps` (slots,), (slots, ...). Raises ValueError.

    `time_projection` and `time_embedding` are known from the timesteps alone, hence the same for every prompt.
    """
    if name == "latent":
        return latents.float().clone()  # the sampler writes to `latents`
    if name == "patch_embedding":
        patch = model.patch_embedding
        x = latents.transpose(0, 1)[None].float()
        out = F.conv3d(x, patch.weight.float(), patch.bias.float(), stride=patch.stride)
        return out.flatten(3)[0].permute(1, 2, 0)
    embed = model.condition_embedder
    time = embed.time_embedder.float()(embed.timesteps_proj(timesteps).float())
    if name == "time_embedding":
        return time
    if name != "time_projection":
        raise ValueError(f"no signal {name!r}; this backbone offers {', '.join(sorted(SIGNALS))}")
    weight, bias = embed.time_proj.weight.float(), embed.time_proj.bias.float()
    return F.linear(F.silu(time), weight, bias).unflatten(-1, (6, -1))
