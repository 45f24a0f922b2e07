"""Running a video VAE in overlapping tiles, blended linearly in the overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

Size = tuple[int, int, int]  # frames, rows, columns
_AXES = (2, 3, 4)  # of (N, C, T, H, W)


@dataclass(frozen=True)
class Tiling:
    """Tile sizes in frames and pixels, and the share of a tile that overlaps the previous one."""

    length: int = 12  # higher: fewer seams in time, more memory
    height: int = 256
    width: int = 256
    spatial_overlap: float = 0.25  # higher: smoother seams, more tiles
    temporal_overlap: float = 0.0

    def sizes(self, factors: Size = (1, 1, 1)) -> Size:
        """The size of a tile in units of `factors` pixels."""
        return self.length // factors[0], self.height // factors[1], self.width // factors[2]

    def overlaps(self) -> tuple[float, float, float]:
        """The overlap in time, height and width, as shares of a tile."""
        return self.temporal_overlap, self.spatial_overlap, self.spatial_overlap


def encode_tiled(x: Tensor, run: Callable[[Tensor], Tensor], tiling: Tiling, factors: Size) -> Tensor:
    """Encode `x` (N, C, T, H, W) in tiles with `run`, whose latents are smaller by `factors`.

    Each tile is blended with its already blended neighbours, as in the released code.
    """
    latent = tiling.sizes(factors)
    return _tiled(x, run, tiling.sizes(), latent, tiling.overlaps(), in_place=True)


def decode_tiled(z: Tensor, run: Callable[[Tensor], Tensor], tiling: Tiling, factors: Size) -> Tensor:
    """Decode `z` (N, C, t, h, w) in tiles with `run`, whose videos are larger by `factors`.

    Each tile is blended with its neighbours as they were decoded, as in the released code.
    """
    latent = tiling.sizes(factors)
    pixels = latent[0] * factors[0], latent[1] * factors[1], latent[2] * factors[2]
    return _tiled(z, run, latent, pixels, tiling.overlaps(), in_place=False)


def _tiled(
    x: Tensor,
    run: Callable[[Tensor], Tensor],
    size: Size,
    out_size: Size,
    overlaps: tuple[float, float, float],
    in_place: bool,
) -> Tensor:
    strides = [int(n * (1 - share)) for n, share in zip(size, overlaps, strict=True)]
    if min(strides) < 1:
        raise ValueError(f"tiles of {size} with overlaps {overlaps} have a stride of 0; raise the tile size")
    extents = [int(n * share) for n, share in zip(out_size, overlaps, strict=True)]
    counts = [-(-x.shape[axis] // stride) for axis, stride in zip(_AXES, strides, strict=True)]
    places = list(product(*map(range, counts)))
    tiles = {}
    for place in places:
        spans = [slice(i * stride, i * stride + n) for i, stride, n in zip(place, strides, size, strict=True)]
        tiles[place] = run(x[:, :, spans[0], spans[1], spans[2]])
    pieces = {}
    for place in places:
        tile = tiles[place] if in_place else tiles[place].clone()
        for axis, i in enumerate(place):
            if i > 0:
                before = tiles[(*place[:axis], i - 1, *place[axis + 1 :])]
                _blend(before, tile, _AXES[axis], extents[axis])
        kept = [slice(0, n - extent) for n, extent in zip(out_size, extents, strict=True)]
        pieces[place] = tile[:, :, kept[0], kept[1], kept[2]]
    slabs = []
    for t in range(counts[0]):
        rows = [torch.cat([pieces[t, i, j] for j in range(counts[2])], dim=4) for i in range(counts[1])]
        slabs.append(torch.cat(rows, dim=3))
    return torch.cat(slabs, dim=2)


def _blend(before: Tensor, tile: Tensor, axis: int, extent: int) -> None:
    """Fade from the end of `before` into the start of `tile`, in place, over `extent` elements of `axis`."""
    extent = min(before.shape[axis], tile.shape[axis], extent)
    if extent == 0:
        return
    ramp = torch.tensor([k / extent for k in range(extent)], device=tile.device, dtype=torch.float64)
    shape = [extent if dim == axis else 1 for dim in range(tile.ndim)]
    rise, fall = ramp.to(tile.dtype).view(shape), (1 - ramp).to(tile.dtype).view(shape)
    end = before.narrow(axis, before.shape[axis] - extent, extent)
    start = tile.narrow(axis, 0, extent)
    start.copy_(end * fall + start * rise)
