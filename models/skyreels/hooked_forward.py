"""The forward of diffusers' own class with a library's hooks, and the sites that the hooks skipped.

Our own hooks on the last layer of every branch of every block record what ran. That layer is called if and only if the
branch is computed, whichever modules around it the library hooks, replaces or skips.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers import SkyReelsV2Transformer3DModel
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2TransformerBlock
from torch import Tensor, nn

from engine.row import Row, Site
from models.skyreels.forward import FPS_ID

# diffusers' block hooks accept registered classes only; it registers Wan's block, but not this copy of it
TransformerBlockRegistry.register(
    SkyReelsV2TransformerBlock,
    TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None),
)
KINDS = ("attention", "cross_attention", "feed_forward")


@dataclass(frozen=True)
class Place:
    """The position in the denoising loop, in the form that diffusers' hooks expect."""

    step: int  # index of the row in its segment
    steps: int  # number of rows of the segment
    sigma: float  # mean over the updating slots: the hooks expect one noise level for all frames

    @classmethod
    def of(cls, row: Row, rows: list[Row]) -> Place:
        """The position of `row`; `rows` are all rows of the video."""
        segment = [r.iteration for r in rows if r.segment == row.segment]
        levels = [sigma for sigma, on in zip(row.sigma, row.active, strict=True) if on] or list(row.sigma)
        return cls(row.iteration - segment[0], len(segment), sum(levels) / len(levels))


def own_forward(
    model: SkyReelsV2Transformer3DModel,
    latents: Tensor,
    timesteps: Tensor,
    embedding: Tensor,
    fps: int,
    branch: str,
    place: Place,
    causal_block: int = 0,
) -> tuple[Tensor, list[Site]]:
    """The velocity (slots, C, H, W) of `latents` (slots, C, H, W) from the model's own forward, and the skipped sites.

    `timesteps` (slots,) are integers. `embedding` is (1, length, text width). `causal_block` is as in forward.forward.
    """
    model.register_to_config(num_frame_per_block=causal_block or 1)
    context = {"step_index": place.step, "num_inference_steps": place.steps, "sigma": place.sigma}
    with watched(model) as ran, model.cache_context(branch, **context):
        out = model(
            hidden_states=latents.transpose(0, 1)[None],
            timestep=timesteps[None],
            encoder_hidden_states=embedding,
            enable_diffusion_forcing=True,
            fps=[FPS_ID.get(fps, 1)],
            return_dict=False,
        )[0]
    return out[0].transpose(0, 1), left_out(ran, len(model.blocks))


@contextmanager
def watched(model: SkyReelsV2Transformer3DModel) -> Iterator[set[tuple[int, str]]]:
    """Collects (block, kind of branch) of every branch that is computed inside the context."""
    ran: set[tuple[int, str]] = set()

    def note(number: int, kind: str) -> Any:
        return lambda *_: ran.add((number, kind))

    handles = [
        layer.register_forward_hook(note(number, kind))
        for number, block in enumerate(model.blocks)
        for kind, layer in zip(KINDS, _last_layers(block), strict=True)
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def _last_layers(block: Any) -> tuple[nn.Module, ...]:
    return block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[-1]


def left_out(ran: set[tuple[int, str]], depth: int) -> list[Site]:
    """The sites missing from `ran`, in a model of `depth` blocks. If all branches are missing: the whole block."""
    sites = []
    for i in range(depth):
        missing = [kind for kind in KINDS if (i, kind) not in ran]
        sites += [Site(kind, range(i, i + 1)) for kind in (["blocks"] if missing == list(KINDS) else missing)]
    return sites
