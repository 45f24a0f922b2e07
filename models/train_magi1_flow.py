"""Train a small MAGI-1 transformer and its text encoder by flow matching, on the forwards of its pipeline.

A training window is one forward of `models.magi1.schedule`: finished chunks at `clean_t` without text, the chunks in
flight, later ones noisier, and the oldest of them once more alone if the pipeline does so (arXiv:2505.13211, Sec. 2).
The velocity is clean minus noise. Time rises from 0 (noise) to 1 (clean).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from models.magi1.attention import Range
from models.magi1.config import RuntimeConfig
from models.magi1.dit import Magi1DiT
from models.magi1.schedule import Forward, Schedule, schedule
from models.shapes import WORDINGS, Spec, caption
from models.train_loop import fit


@dataclass(frozen=True)
class Window:
    """The chunks of one transformer call on one video, and their targets."""

    latents: Tensor  # (n, C, chunk_width, h, w), with the noise of `times`
    times: list[float]  # 0 noise, 1 clean
    text: list[Tensor]  # n × (L, caption channels)
    positions: list[int]  # numbers of the chunks in the video
    visible: list[Range]  # chunks of this window that each chunk attends to
    slots: list[int | None]  # None: attends only to itself
    target: Tensor  # clean minus noise, in the shape of `latents`
    learned: list[bool]  # False for finished chunks, which are context only


def window_of(
    forward: Forward, clean: Tensor, noise: Tensor, text: Tensor, null_text: Tensor, clean_t: float
) -> Window:
    """The window of a forward on a video with latents `clean` and `noise`, each (chunks, C, chunk_width, h, w)."""
    flight, past = forward.chunks, forward.chunks.start
    times = [clean_t] * past + list(forward.times)
    mixed = [clean[:past], *(_mix(clean[k], noise[k], t)[None] for k, t in zip(flight, forward.times, strict=True))]
    whose = [*range(flight.stop)]
    visible: list[Range] = [(0, k + 1) for k in range(past)] + list(forward.visible)
    slots: list[int | None] = [*whose]
    positions = [*whose]
    if forward.duplicate:
        mixed.append(mixed[1])
        times.append(forward.times[0])
        whose.append(past)
        positions.append(flight.stop)
        visible.append((0, 1))
        slots.append(None)
    learned = [i >= past for i in range(len(whose))]
    texts = [text if here else null_text for here in learned]
    target = (clean - noise)[whose]
    return Window(torch.cat(mixed), times, texts, positions, visible, slots, target, learned)


def _mix(clean: Tensor, noise: Tensor, time: float) -> Tensor:
    return time * clean + (1 - time) * noise


def velocities(model: Magi1DiT, windows: Sequence[Window], step_length: float) -> Tensor:
    """The velocities of all chunks of all windows, concatenated, from one call of the transformer.

    Chunks are renumbered, so that the chunks of one video do not attend to those of another.
    """
    visible, slots, first = [], [], 0
    for window in windows:
        visible += [(first + start, first + stop) for start, stop in window.visible]
        slots += [None if slot is None else first + slot for slot in window.slots]
        first += len(window.slots)
    return model(
        torch.cat([window.latents for window in windows]),
        torch.tensor([time for window in windows for time in window.times]),
        [text for window in windows for text in window.text],
        [position for window in windows for position in window.positions],
        visible,
        slots,
        step_length=step_length,
    )


def embed_prompts(tokenizer: PreTrainedTokenizerFast, encoder: T5EncoderModel, texts: list[str]) -> list[Tensor]:
    """Token embeddings (L, D) of every prompt, without padding."""
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    hidden = encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    return [rows[: int(mask.sum())] for rows, mask in zip(hidden, tokens.attention_mask, strict=True)]


def draw_forwards(plan: Schedule, windows: int, generator: torch.Generator) -> list[Forward]:
    """Random forwards of a pipeline from its stages in turn, so that a batch has about equally many of each stage."""
    stages = plan.forwards[-1].stage + 1
    inner = len(plan.forwards) // stages
    first = int(torch.randint(stages, (1,), generator=generator))
    places = torch.randint(inner, (windows,), generator=generator).tolist()
    return [plan.forwards[(first + i) % stages * inner + place] for i, place in enumerate(places)]


def train_flow(
    model: Magi1DiT,
    encoder: T5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    latents: Tensor,
    specs: list[Spec],
    runtime: RuntimeConfig,
    *,
    batch: int,
    fewer_steps: float,
    drop_text: float,
    guidance: float,
    guided_from: int,
    bfloat16: bool,
    seed: int,
    **training: Any,
) -> list[float]:
    """Train transformer and text encoder together, in place, on `latents` (N, chunks, C, chunk_width, h, w) of `specs`.

    `fewer_steps` is the share of batches on the grid of a run with half, a quarter or an eighth of the steps. It trains
    the second time embedding, the step length, for these runs. `drop_text` is the share of windows without a prompt.
    From step `guided_from` on, a single pass learns guidance of scale `guidance`, see `_guidance_term`. `training` are
    steps, lr, decay, checkpoint_every and work, see `train_loop.fit`. Returns the loss of every step.
    """
    if guidance < 1:
        raise ValueError(f"got flow.guidance={guidance}; want 1 (none) or more, e.g. 2.5")
    plans = [schedule(runtime.with_(num_steps=runtime.num_steps // part)) for part in (1, 2, 4, 8)]

    def loss_of(step: int) -> Tensor:
        drawn = _draw(plans, latents, specs, batch, fewer_steps, torch.Generator().manual_seed(seed * 1_000_003 + step))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            windows = _windows(model, encoder, tokenizer, drawn, runtime.clean_t, drop_text)
            found = velocities(model, windows, drawn.forwards[0].step_length)
            push = _guidance_term(model, windows, drawn, found, guidance if step >= guided_from else 1.0)
        return flow_loss(found, windows, push)

    modules: dict[str, nn.Module] = {"transformer": model, "text_encoder": encoder}
    return fit("flow", modules, loss_of, warmup=100, weight_decay=0.01, **training)


@dataclass(frozen=True)
class Drawn:
    """A random batch: for each video a forward of the pipeline, its latents, noise and prompt."""

    forwards: list[Forward]
    latents: list[Tensor]  # (chunks, C, chunk_width, h, w) each
    noise: Tensor  # (batch, chunks, C, chunk_width, h, w)
    prompts: list[str]  # of equal length, so that attention needs fewer calls
    generator: torch.Generator


def _draw(
    plans: Sequence[Schedule],
    latents: Tensor,
    specs: Sequence[Spec],
    batch: int,
    fewer_steps: float,
    generator: torch.Generator,
) -> Drawn:
    """A batch of `batch` videos of `latents`. The first of `plans` has all steps, the others have fewer."""
    rand = torch.rand(2, generator=generator).tolist()
    plan = plans[1 + int(3 * rand[1])] if rand[0] < fewer_steps else plans[0]
    forwards = draw_forwards(plan, batch, generator)
    chosen = torch.randint(len(latents), (batch,), generator=generator).tolist()
    wording = int(torch.randint(len(WORDINGS), (1,), generator=generator))
    noise = torch.randn(batch, *latents.shape[1:], generator=generator)
    prompts = [_worded(specs[i], wording) for i in chosen]
    return Drawn(forwards, [latents[i].float() for i in chosen], noise, prompts, generator)


def _windows(
    model: Magi1DiT,
    encoder: T5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    drawn: Drawn,
    clean_t: float,
    drop_text: float,
) -> list[Window]:
    """The windows of a batch; a share `drop_text` of them has no prompt."""
    texts, null = embed_prompts(tokenizer, encoder, drawn.prompts), model.y_embedder.null_text
    bare = (torch.rand(len(texts), generator=drawn.generator) < drop_text).tolist()
    texts = [null if without else text for text, without in zip(texts, bare, strict=True)]
    each = zip(drawn.forwards, drawn.latents, drawn.noise, texts, strict=True)
    return [window_of(forward, clean, noise, text, null, clean_t) for forward, clean, noise, text in each]


@torch.no_grad()
def _guidance_term(
    model: Magi1DiT, windows: Sequence[Window], drawn: Drawn, found: Tensor, guidance: float
) -> Tensor | float:
    """The term of the target with which one pass learns the result of classifier-free guidance of scale `guidance`.

    The target is v + w (v_text - v_none) with w = 1 - 1 / guidance. The model then converges to
    v_none + (v - v_none) / (1 - w) (Model-guidance, arXiv:2502.12154). 0 for a guidance of 1.
    """
    if guidance == 1:
        return 0.0
    null = model.y_embedder.null_text
    unprompted = [replace(window, text=[null] * len(window.text)) for window in windows]
    push = (1 - 1 / guidance) * (found - velocities(model, unprompted, drawn.forwards[0].step_length))
    return push.float()


def flow_loss(found: Tensor, windows: Sequence[Window], push: Tensor | float = 0.0) -> Tensor:
    """The mean squared error of the velocities against their targets plus `push`, over the learned chunks."""
    keep = torch.tensor([here for window in windows for here in window.learned])
    target = torch.cat([window.target for window in windows]) + push
    return (found.float() - target)[keep].square().mean()


def _worded(spec: Spec, wording: int) -> str:
    return caption(Spec(**{**vars(spec), "wording": wording}))
