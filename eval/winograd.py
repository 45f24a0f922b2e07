"""LPIPS on a CPU in half the time: convolutions with fewer multiplications, and distances without large copies.

A convolution of stride 1 with an r×r kernel computes m×m outputs with (m + r - 1)² products instead of (m r)². This is
Winograd's minimal filtering (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016), with the
Cook-Toom points 0, ±1, ±2, ±1/2. Relative to the direct convolution, values differ by 3e-6 of the largest, LPIPS by
1e-7.
"""

import copy
import math
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POINTS = [Fraction(*point) for point in ((0, 1), (1, 1), (-1, 1), (2, 1), (-2, 1), (1, 2), (-1, 2))]
OUTPUTS = 4  # m: outputs of a tile per axis; raising it: fewer products, larger rounding errors
TILES = 256  # tiles transformed at once; raising it: larger matrix products, more cache misses
SMALL = 2**16  # pixels below which torch's own convolution is faster, because there are few tiles
EPSILON = 1e-10  # added to a feature's norm, as the lpips package does


def quicken(network: Any) -> nn.Module:
    """The LPIPS network (lpips_weights.load), faster for large pictures on a CPU. With spatial=True it is unchanged."""
    return network if network.spatial else Distances(network)


class Distances(nn.Module):
    """LPIPS of (N, 3, H, W) against (N, 3, H, W) in [-1, 1]: (N, 1, 1, 1), as `lpips.LPIPS.forward`."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.plain, self.net = network, copy.deepcopy(network.net)
        for name, layer in list(self.net.named_modules()):
            if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] in (3, 5) and layer.stride == (1, 1):
                parent, _, child = name.rpartition(".")
                setattr(self.net.get_submodule(parent), child, Winograd(layer))
        self.heads = [lin.model[-1].weight.detach().flatten() for lin in network.lins]  # (C,) per layer

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] < SMALL:
            distances: Tensor = self.plain(x, y)
            return distances
        totals = []
        for pair in zip(x, y, strict=True):  # the same computation for both, so that equal pictures have distance 0
            maps = (self.net(self.plain.scaling_layer(picture[None])) for picture in pair)
            layers = [_distance(*layer) for layer in zip(self.heads, *maps, strict=True)]
            totals.append(torch.stack(layers).sum())
        return torch.stack(totals).to(x.dtype).reshape(-1, 1, 1, 1)


def _distance(head: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The mean over positions of the weighted squared difference of two (1, C, H, W), with unit norm per position."""
    places = [features.permute(0, 2, 3, 1).flatten(0, 2).split(2048) for features in (a, b)]  # 2048 fit into the cache
    total = torch.zeros((), dtype=torch.float64)
    for parts in zip(*places, strict=True):
        x, y = (part / (torch.linalg.vector_norm(part, dim=1, keepdim=True) + EPSILON) for part in parts)
        total += (x.sub_(y).square_() @ head).sum(dtype=torch.float64)
    return total / (a.shape[2] * a.shape[3])


class Winograd(nn.Module):
    """A convolution of stride 1 with a square kernel, for (1, C, H, W) with channels last in memory."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.kernel, self.pad = layer.kernel_size[0], int(layer.padding[0])
        self.tile = OUTPUTS + self.kernel - 1
        back, forth, taps = matrices(OUTPUTS, self.kernel)
        weight = torch.einsum("ai,ocij,bj->abco", taps, layer.weight.double(), taps)
        self.weight = weight.flatten(0, 1).float().contiguous()  # (tile², C in, C out)
        self.bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
        self.back, self.forth = back.float(), forth.float()

    def forward(self, x: Tensor) -> Tensor:
        height, width = (size + 2 * self.pad - self.kernel + 1 for size in x.shape[2:])
        down, across = -(-height // OUTPUTS), -(-width // OUTPUTS)
        below, beside = (
            tiles * OUTPUTS + self.kernel - 1 - self.pad - size
            for tiles, size in zip((down, across), x.shape[2:], strict=True)
        )
        planes = F.pad(x[0].permute(1, 2, 0), (0, 0, self.pad, beside, self.pad, below))
        tiles = planes.unfold(0, self.tile, OUTPUTS).unfold(1, self.tile, OUTPUTS)  # (down, across, C, tile, tile)
        rows = max(1, TILES // across)
        out = torch.cat([self._rows(part) for part in tiles.split(rows)])[:height, :width].contiguous()
        return out.permute(2, 0, 1)[None]

    def _rows(self, tiles: Tensor) -> Tensor:
        """(rows, across, C, tile, tile) to (m rows, m across, C out)."""
        down, across = tiles.shape[:2]
        spread = _both_axes(self.forth, tiles.permute(3, 4, 0, 1, 2).reshape(self.tile, -1))
        products = torch.bmm(spread.view(self.tile**2, down * across, -1), self.weight)
        out = _both_axes(self.back, products.view(self.tile, -1)).view(OUTPUTS, OUTPUTS, down, across, -1)
        return out.permute(2, 0, 3, 1, 4).reshape(down * OUTPUTS, across * OUTPUTS, -1).add_(self.bias)


def _both_axes(matrix: Tensor, tiles: Tensor) -> Tensor:
    """Apply a (k, n) matrix along both axes of tiles given as (n, n · rest); returns (k, k, rest)."""
    k, n = matrix.shape
    return matrix @ (matrix @ tiles).view(k, n, -1)


def matrices(outputs: int, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """A, B, G, float64: A ((G g) * (B d)) is the correlation of n = outputs + taps - 1 data d with `taps` taps g.

    The shapes are (outputs, n), (n, n), (n, taps). Cook-Toom algorithm: evaluation at n - 1 points and at infinity.
    """
    n = outputs + taps - 1
    points = POINTS[: n - 1]
    scales = [math.prod(p - q for q in points if q != p) for p in points]
    back = [[p**i for p in points] + [Fraction(i == outputs - 1)] for i in range(outputs)]
    kernel = [[p**j / s for j in range(taps)] for p, s in zip(points, scales, strict=True)]
    kernel.append([Fraction(j == taps - 1) for j in range(taps)])
    forth = [[*_polynomial([q for q in points if q != p]), Fraction(0)] for p in points] + [_polynomial(points)]
    a, b, g = (
        torch.tensor([[float(x) for x in row] for row in rows], dtype=torch.float64) for rows in (back, forth, kernel)
    )
    return a, b, g


def _polynomial(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients, constant first, of the product of (x - root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, kept = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [a - root * b for a, b in zip(shifted, kept, strict=True)]
    return coefficients
