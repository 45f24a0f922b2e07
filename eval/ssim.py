"""SSIM of every frame, with both conventions for the border."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.stacks import Frames, chunk, pair, unit

_WINDOW = [math.exp(-(offset**2) / (2 * 1.5**2)) for offset in range(-5, 6)]


def ssim(frames: Frames, reference: Frames, border: str = "reflect") -> np.ndarray:
    """SSIM of each frame, float64 (T,), at most 1. Wang et al. 2004: Gaussian window 11×11 of sigma 1.5,
    K1 = 0.01, K2 = 0.03, data range 1, population variances; the map is averaged over pixels and RGB channels.

    border="reflect": the whole map of frames mirrored at the border, as in torchmetrics from 1.5 on and in FlowCache.
    border="valid": only positions where the window fits, as in scikit-image with gaussian_weights, older torchmetrics
    and TeaCache.
    """
    a, b = pair(frames, reference)
    if min(a.shape[1:3]) < 11:
        raise ValueError(f"SSIM wants frames of at least 11×11 pixels, got {a.shape[2]}×{a.shape[1]}")
    if border not in ("reflect", "valid"):
        raise ValueError(f"border is 'reflect' or 'valid', got {border!r}")
    values = []
    for x, y in zip(a.split(chunk(a)), b.split(chunk(a)), strict=True):
        planes = unit(torch.cat([x, y]).permute(0, 3, 1, 2).contiguous(), torch.float64)
        if border == "reflect":
            planes = F.pad(planes, (5, 5, 5, 5), mode="reflect")
        channels = zip(*(half.unbind(1) for half in planes.chunk(2)), strict=True)  # one channel fits into the cache
        values.append(torch.stack([_mean_ssim(*pair) for pair in channels]).mean(0))
    return torch.cat(values).cpu().numpy()


def _mean_ssim(x: Tensor, y: Tensor) -> Tensor:
    """The mean of the SSIM map of two planes (..., H, W): (...,). On a CPU it is computed in bands that fit into the
    cache, which is twice as fast for a frame of 544×960. The values of the map do not change."""
    height, width = x.shape[-2] - 10, x.shape[-1] - 10
    band = height if x.is_cuda else max(16, 2**16 // width)
    parts = [
        _ssim_map(*(plane[..., top : top + band + 10, :] for plane in (x, y))).sum((-2, -1))
        for top in range(0, height, band)
    ]
    return torch.stack(parts).sum(0) / (height * width)


def _ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """The SSIM of each window of two planes (..., H, W) in [0, 1]: (..., H - 10, W - 10)."""
    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = _blur(x), _blur(y)
    covariance, variances = (
        _blur(x * y),
        _blur(x.square().add_(y.square())),
    )  # summed; the means are subtracted below
    product = mean_x * mean_y
    squares = mean_x.square_().add_(mean_y.square_())
    covariance.sub_(product)
    variances.sub_(squares).clamp_(min=0)
    above = product.mul_(2).add_(c1).mul_(covariance.mul_(2).add_(c2))  # in place: memory takes half of the time
    return above.div_(squares.add_(c1).mul_(variances.add_(c2)))


def _blur(plane: Tensor) -> Tensor:
    """The Gaussian window along both axes, as sums of shifted planes; several times as fast as a depthwise
    convolution."""
    for axis in (-2, -1):
        size = plane.shape[axis] - 10
        total = plane.narrow(axis, 0, size) * (_WINDOW[0] / sum(_WINDOW))
        for shift in range(1, 11):
            total.add_(plane.narrow(axis, shift, size), alpha=_WINDOW[shift] / sum(_WINDOW))
        plane = total
    return plane
