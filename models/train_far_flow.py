"""Train the small AnyFlow-FAR model: flow matching on chunks, then jumps of any length learned from its own paths.

Stage 1, "flow": flow matching with r = t. Each noisy chunk has a noise level of its own and sees the clean past (FAR,
arXiv 2503.19325). One pass learns to stand for classifier-free guidance (Model-guidance, arXiv 2502.12154).

Stage 2, "map": the mean velocity from t to r, so that few steps are enough (flow maps: AnyFlow, arXiv 2605.13724; mean
velocity: MeanFlow, arXiv 2505.13447). The frozen result of stage 1 follows its own path from noise to data in
`path_steps` small steps. For any two points of the path the target is (z_t - z_r) / (t - r). This has no derivative
through the network and no moving target, so it is stable, and a path is used for several updates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from models.shapes import Spec, caption
from models.train_far_forward import Trainee, Window
from models.train_flow import TEXT_LENGTH, embed_prompts, loosen, shifted
from models.train_loop import fit

STEPS = (1, 2, 4, 8, 16)  # numbers of sampling steps whose intervals stage 2 draws most often


@dataclass(frozen=True)
class Source:
    """Clean videos with captions, from which windows are drawn."""

    latents: Tensor  # (N, C, F, h, w)
    specs: list[Spec]  # N
    tokenizer: PreTrainedTokenizerFast
    encoder: UMT5EncoderModel
    batch: int  # videos of a window with three or more chunks; shorter windows hold more
    drop_text: float  # share of empty prompts
    context_noise: float  # largest noise on what the model sees of the past; more forgives larger errors there

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Window]:
        """The latents (B, F, C, h, w) of a random window without noise, and the window."""
        chunks = draw_chunks(self.latents.shape[2], generator)
        batch = self.batch * {1: 4, 2: 2}.get(len(chunks), 1)
        chosen = torch.randint(len(self.latents), (batch,), generator=generator).tolist()
        data = self.latents[chosen][:, :, : sum(chunks)].float().transpose(1, 2)
        dropped = (torch.rand(batch, generator=generator) < self.drop_text).tolist()
        texts = [
            "" if drop else loosen(caption(self.specs[i]), generator) for i, drop in zip(chosen, dropped, strict=True)
        ]
        level = self.context_noise * torch.rand(batch, 1, 1, 1, 1, generator=generator)
        seen = data + level * torch.randn(data.shape, generator=generator)
        return data, Window(seen, chunks, *self.embed(texts))

    @torch.no_grad()
    def embed(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """The embeddings of prompts, and the bias on their scores."""
        return embed_prompts(self.tokenizer, self.encoder, texts, TEXT_LENGTH)


def draw_chunks(frames: int, generator: torch.Generator) -> tuple[int, ...]:
    """The chunks of a window of at most `frames` latents: 1, 3, 3, ...; one window in five ends with a chunk of 2.

    20 % of the windows are the first chunk alone, 15 % have two chunks, 25 % three, 40 % more.
    """
    most = 1 + (frames - 1) // 3
    pick = float(torch.rand(1, generator=generator))
    count = next((n for n, share in ((1, 0.2), (2, 0.35), (3, 0.6)) if pick < share), 0)
    count = min(count or int(torch.randint(4, max(5, most + 1), (1,), generator=generator)), most)
    last = 2 if float(torch.rand(1, generator=generator)) < 0.2 else 3
    return (1,) if count == 1 else (1, *(3,) * (count - 2), last)


def by_frame(levels: Tensor, learned: tuple[int, ...]) -> Tensor:
    """Values per chunk (..., K) repeated for the frames of each chunk."""
    return levels.repeat_interleave(torch.tensor(learned), -1)


def expand(levels: Tensor) -> Tensor:
    """Levels (B, f) as (B, f, 1, 1, 1)."""
    return levels[..., None, None, None]


def chunk_error(found: Tensor, target: Tensor, learned: tuple[int, ...]) -> Tensor:
    """The mean squared error in which every chunk counts the same, whatever its number of frames."""
    parts = (found.float() - target).square().mean((0, 2, 3, 4)).split(learned)
    return torch.stack([part.mean() for part in parts]).mean()


def flow_loss(trainee: Trainee, source: Source, generator: torch.Generator, guidance: float) -> Tensor:
    """The flow matching loss of a random window. See `Model-guidance` above for `guidance`; 1 is none."""
    data, window = source.draw(generator)
    learned = trainee.learned(window.chunks)
    data = data[:, -sum(learned) :]
    batch = len(data)
    level = shifted(
        torch.rand(batch, len(learned), generator=generator), 2 + 6 * torch.rand(batch, 1, generator=generator)
    )
    t = by_frame(level, learned)
    noise = torch.randn(data.shape, generator=generator)
    noisy = (1 - expand(t)) * data + expand(t) * noise
    found = trainee.velocity(window, noisy, t, t)
    target = noise - data
    if guidance != 1:
        text, bias = source.embed([""] * batch)
        with torch.no_grad():
            free = trainee.velocity(replace(window, text=text, text_bias=bias), noisy, t, t)
            target = target + (1 - 1 / guidance) * (found - free)
    return chunk_error(found, target, learned)


@dataclass(frozen=True)
class Path:
    """A path of the teacher from noise to data in S steps, for the learned chunks of a window."""

    window: Window
    learned: tuple[int, ...]
    times: Tensor  # (S+1, B, K) from 1 to 0, one per chunk
    states: Tensor  # (S+1, B, f, C, h, w)
    speeds: Tensor  # (S, B, f, C, h, w), velocities at the states


def path_times(steps: int, batch: int, chunks: int, shift: float, generator: torch.Generator) -> Tensor:
    """Noise levels (S+1, B, K) from 1 to 0. In half of the videos the inner ones are moved by up to half a step."""
    even = torch.linspace(1, 0, steps + 1)[:, None, None].repeat(1, batch, chunks)
    moved = (torch.rand(batch, 1, generator=generator) < 0.5).float()
    even[1:-1] += moved * (torch.rand(steps - 1, batch, chunks, generator=generator) - 0.5) / steps
    return shifted(even, torch.tensor(shift))


@torch.no_grad()
def follow(teacher: Trainee, window: Window, noise: Tensor, times: Tensor) -> Path:
    """The teacher's path through `times` by the two-step Adams-Bashforth rule; its first step is Euler's."""
    learned = teacher.learned(window.chunks)
    states, speeds = [noise], []
    for i in range(len(times) - 1):
        t, width = by_frame(times[i], learned), by_frame(times[i] - times[i + 1], learned)
        speeds.append(teacher.velocity(window, states[-1], t, t))
        slope = speeds[-1]
        if i > 0:
            before = by_frame(times[i - 1] - times[i], learned)
            slope = slope + expand(width / (2 * before)) * (slope - speeds[-2])
        states.append(states[-1] - expand(width) * slope)
    return Path(window, learned, times, torch.stack(states), torch.stack(speeds))


def draw_intervals(steps: int, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices (B, K) of two points of a path of `steps` steps, start and end.

    60 % are an interval of a sampler with 1, 2, 4, 8 or 16 steps, 20 % are any two points, 20 % are one point, where
    the target is the teacher's velocity.
    """
    rand = lambda: torch.rand(shape, generator=generator)  # noqa: E731
    grids = torch.tensor([n for n in STEPS if steps % n == 0])
    grid = grids[(rand() * len(grids)).long()]
    start = (rand() * grid).long() * (steps // grid)
    end = start + steps // grid
    kind = rand()
    first, second = (rand() * steps).long(), (rand() * steps).long()
    low, high = torch.minimum(first, second), torch.maximum(first, second) + 1
    start = torch.where(kind < 0.8, torch.where(kind < 0.6, start, low), first)
    end = torch.where(kind < 0.8, torch.where(kind < 0.6, end, high), first)
    return start, end


@dataclass(frozen=True)
class Interval:
    """Two points of a path for every frame, and what a pass from the first to the second is to find."""

    t: Tensor  # (B, f), noise level of the first
    r: Tensor  # (B, f), of the second; equal where the target is the velocity at t
    before: Tensor  # (B, f, C, h, w), the state at t
    after: Tensor  # the state at r
    target: Tensor  # the mean velocity between them


def draw_interval(path: Path, generator: torch.Generator) -> Interval:
    """Random intervals of a path, of another length for every chunk."""
    start, end = draw_intervals(len(path.speeds), (path.times.shape[1], path.times.shape[2]), generator)
    frames = [by_frame(index, path.learned) for index in (start, end)]
    rows, columns = torch.arange(len(start))[:, None], torch.arange(frames[0].shape[1])
    at = lambda values, index: values[index.clamp_max(len(values) - 1), rows, columns]  # noqa: E731
    times = torch.stack([by_frame(level, path.learned) for level in path.times])
    t, r = at(times, frames[0]), at(times, frames[1])
    before, after = at(path.states, frames[0]), at(path.states, frames[1])
    mean = (before - after) / expand((t - r).clamp_min(1e-6))
    return Interval(t, r, before, after, torch.where(expand(t == r), at(path.speeds, frames[0]), mean))


def map_loss(trainee: Trainee, path: Path, generator: torch.Generator) -> Tensor:
    """The error of the mean velocities over random intervals of a path."""
    drawn = draw_interval(path, generator)
    found = trainee.velocity(path.window, drawn.before, drawn.t, drawn.r)
    return chunk_error(found, drawn.target, path.learned)


class Paths:
    """The teacher's newest paths. Path number k is a pure function of k, so that a resumed run has the same ones."""

    def __init__(self, make: Callable[[torch.Generator], Path], seed: int, kept: int) -> None:
        self.make, self.seed, self.kept = make, seed, kept
        self.found: dict[int, Path] = {}

    def pick(self, newest: int, generator: torch.Generator) -> Path:
        """One of the `kept` paths up to number `newest`."""
        index = max(0, newest - int(torch.randint(self.kept, (1,), generator=generator)))
        self.found = {k: path for k, path in self.found.items() if k > newest - self.kept}
        if index not in self.found:
            self.found[index] = self.make(torch.Generator().manual_seed((self.seed + 2) * 1_000_003 + index))
        return self.found[index]


def path_maker(teacher: Trainee, source: Source, steps: int, shift: float) -> Callable[[torch.Generator], Path]:
    """A function that draws a window and noise and follows the teacher through `steps` steps."""

    def make(generator: torch.Generator) -> Path:
        data, window = source.draw(generator)
        learned = teacher.learned(window.chunks)
        times = path_times(steps, len(data), len(learned), shift, generator)
        return follow(teacher, window, torch.randn(data[:, -sum(learned) :].shape, generator=generator), times)

    return make


def train_flow(
    trainee: Trainee, source: Source, *, guidance: float, guided_from: int, seed: int, **training: Any
) -> None:
    """Stage 1, in place. `guidance` acts from step `guided_from` on. `training` is passed to `train_loop.fit`."""

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        return flow_loss(trainee, source, generator, guidance if step >= guided_from else 1.0)

    fit("flow", {"transformer": trainee.model}, loss_of, weight_decay=0.01, **training)


def train_map(
    trainee: Trainee,
    teacher: Trainee,
    source: Source,
    *,
    path_steps: int,
    shift: float,
    reuse: int,
    kept: int,
    seed: int,
    **training: Any,
) -> None:
    """Stage 2, in place. A new path of `path_steps` steps is made for every `reuse` updates; each update takes one of
    the newest `kept` paths. `training` is passed to `train_loop.fit`."""

    paths = Paths(path_maker(teacher, source, path_steps, shift), seed, kept)

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)
        return map_loss(trainee, paths.pick(step // reuse, generator), generator)

    fit("map", {"transformer": trainee.model}, loss_of, weight_decay=0.01, **training)
