"""The joint objective of DSA's generator and confidence head (arXiv 2606.04432) on the small AnyFlow-FAR model.

The abstract says that a lightweight head is trained together with a few-step generator under a distribution-matching
objective, and that it estimates the reliability of denoising per frame. It leaves open what is ours here:

    generator   L_map = mean ||u(z_t, t, r) - (z_t - z_r) / (t - r)||^2     the any-step objective (train_far_flow), not
                                                                          distribution matching
    target      e = mean|x - z_0| / mean|z_0|,  x = z_r - r u(z_r, r, 0)     per frame; no gradient
    head        d = g(pooled last hidden states of the pass from t to r, t, r)
    joint       L = L_map + weight mean (d - log10 e)^2                      over passes with t > r > 0

z is the path of the frozen start model, so z_0 is where all steps end. x is where the generator ends if the next pass
is its last one. So e is the price of stopping now, and nothing else: a pass more is worth it where e is large. The
logarithm makes errors of all sizes count the same. The gradient of the head also reaches the generator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engine.confidence_head import LOWEST, Head, pooled
from models.train_far_flow import Interval, Path, Paths, Source, chunk_error, draw_interval, expand, path_maker
from models.train_far_forward import Trainee
from models.train_loop import fit

SEEN = 4  # paths whose features set what the head calls average


class Confidence(nn.Module):
    """The head in training: the arithmetic of `engine.confidence_head.Head` with weights that have a gradient."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, hidden: int, start: float) -> None:
        """`start`: the output at first, log10 of an error."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.inner, self.outer = nn.Linear(features, hidden), nn.Linear(hidden, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.constant_(self.outer.bias, start)

    @property
    def head(self) -> Head:
        """The head as it decides; its tensors are the parameters themselves."""
        inner, outer = self.inner, self.outer
        return Head(self.mean, self.scale, inner.weight, inner.bias, outer.weight, outer.bias)

    def forward(self, found: Tensor) -> Tensor:
        """Features (..., F) -> log10 of the expected error (...)."""
        return self.head.log10(found)


class Watched:
    """A trainee whose last hidden states are read off while it computes a velocity."""

    def __init__(self, trainee: Trainee) -> None:
        self.trainee = trainee

    def velocity(self, path: Path, drawn: Interval) -> tuple[Tensor, Tensor]:
        """The mean velocities (B, f, C, h, w) of an interval, and the features (B, f, F) of these passes."""
        seen: list[Tensor] = []
        handle = self.trainee.model.norm_out.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        try:
            found = self.trainee.velocity(path.window, drawn.before, drawn.t, drawn.r)
        finally:
            handle.remove()
        frames, patch = drawn.before.shape[1], self.trainee.model.config.patch_size
        tokens = (found.shape[-2] // patch[1]) * (found.shape[-1] // patch[2])
        noisy = seen[0][:, -2 * frames * tokens : -frames * tokens]  # the clean copies are the last ones
        return found, pooled(noisy.unflatten(1, (frames, tokens)), drawn.t, drawn.r)


@torch.no_grad()
def price_of_stopping(trainee: Trainee, path: Path, drawn: Interval) -> Tensor:
    """log10 of e (B, f), see above: the error of one pass from r to the end, against where the path ends."""
    final, r = path.states[-1], drawn.r
    jump = drawn.after - expand(r) * trainee.velocity(path.window, drawn.after, r, torch.zeros_like(r))
    size = lambda x: x.abs().mean((2, 3, 4))  # noqa: E731
    error: Tensor = size(jump - final) / size(final).clamp_min(LOWEST)
    return error.clamp_min(LOWEST).log10()


def joint_loss(
    watched: Watched, confidence: Confidence, path: Path, generator: torch.Generator, weight: float
) -> Tensor:
    """L of the module's docstring, over random intervals of a path."""
    drawn = draw_interval(path, generator)
    wanted = price_of_stopping(watched.trainee, path, drawn)
    found, features = watched.velocity(path, drawn)
    asked = (drawn.r > 0) & (drawn.t > drawn.r)
    miss = (confidence(features) - wanted).square()[asked]
    loss = chunk_error(found, drawn.target, path.learned)
    return loss + weight * miss.mean() if len(miss) else loss


@torch.no_grad()
def standardise(watched: Watched, confidence: Confidence, paths: Paths, seed: int) -> None:
    """Set the head's `mean` and `scale` to those of the features of a few paths."""
    generator, found = torch.Generator().manual_seed(seed), []
    for number in range(SEEN):
        path = paths.pick(number, generator)
        found.append(watched.velocity(path, draw_interval(path, generator))[1].flatten(0, 1))
    features = torch.cat(found)
    confidence.mean.copy_(features.mean(0))
    confidence.scale.copy_(features.std(0).clamp_min(1e-3))


def train_joint(
    trainee: Trainee,
    confidence: Confidence,
    teacher: Trainee,
    source: Source,
    *,
    weight: float,
    head_faster: float,
    path_steps: int,
    shift: float,
    reuse: int,
    kept: int,
    seed: int,
    **training: Any,
) -> None:
    """Train both in place. Paths are made and drawn as in `train_far_flow.train_map`.

    `weight` is that of the head's error; `head_faster` multiplies its learning rate.
    """
    watched = Watched(trainee)

    paths = Paths(path_maker(teacher, source, path_steps, shift), seed, kept)

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)
        return joint_loss(watched, confidence, paths.pick(step // reuse, generator), generator, weight)

    standardise(watched, confidence, paths, seed)
    modules = {"transformer": trainee.model, "head": confidence}
    fit("joint", modules, loss_of, weight_decay=0.01, faster={"head": head_faster}, **training)
