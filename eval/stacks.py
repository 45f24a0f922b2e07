"""Two stacks of frames that are compared: the checks, and the conversion to floats."""

import numpy as np
import torch
from torch import Tensor

Frames = np.ndarray | Tensor


class MismatchError(ValueError):
    """The two videos cannot be compared frame by frame."""


def chunk(frames: Tensor) -> int:
    """The number of frames per batch: eight on a GPU or if they are small, else one, because of the CPU's cache."""
    return 8 if frames.is_cuda else max(1, min(8, 2**16 // (frames.shape[1] * frames.shape[2])))


def pair(frames: Frames, reference: Frames) -> tuple[Tensor, Tensor]:
    if tuple(frames.shape) != tuple(reference.shape):
        raise MismatchError(
            f"frames have the shape {tuple(frames.shape)} and their reference {tuple(reference.shape)}; "
            "want equal shapes (T, H, W, 3)"
        )
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ValueError(f"frames must be (T, H, W, 3) RGB with T > 0, got {tuple(frames.shape)}")
    return _tensor(frames), _tensor(reference)


def _tensor(frames: Frames) -> Tensor:
    return frames if isinstance(frames, Tensor) else torch.from_numpy(np.require(frames, requirements=["C", "W"]))


def unit(frames: Tensor, dtype: torch.dtype) -> Tensor:
    """The frames as floats in [0, 1]. Bytes are converted to floats only here."""
    if frames.dtype == torch.uint8:
        return frames.to(dtype).div_(255)
    if not frames.dtype.is_floating_point or not (frames.min() >= 0 and frames.max() <= 1):
        raise ValueError(
            f"frames must be uint8 or float in [0, 1], got {frames.dtype} in "
            f"[{frames.min():g}, {frames.max():g}]; divide by 255, or add 1 and halve for [-1, 1]."
        )
    return frames.to(dtype)
