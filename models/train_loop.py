"""The loop that every training stage shares: progress bar, learning rate, checkpoints, resume, loss curve."""

import csv
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from torch import Tensor, nn


def save_atomic(state: dict[str, Any], path: Path) -> None:
    """torch.save to a staging name, then rename, so that an interrupted save never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(path.name + ".partial")
    torch.save(state, staging)
    os.replace(staging, path)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up to `peak`, constant for the first half, then half a cosine down to 2 % of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, max(0.0, 2 * step / steps - 1))
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def update_average(average: dict[str, Tensor], modules: dict[str, nn.Module], step: int, decay: float) -> None:
    """Exponential moving average of all parameters, with a shorter memory in the first steps."""
    decay = min(decay, (step + 1) / (step + 10))
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            average[f"{name}.{key}"].lerp_(value, 1 - decay)


def load_average(average: dict[str, Tensor], modules: dict[str, nn.Module]) -> None:
    """Put the averaged weights into the modules."""
    for name, module in modules.items():
        prefix = name + "."
        module.load_state_dict({k[len(prefix) :]: v for k, v in average.items() if k.startswith(prefix)})


def write_losses(losses: list[float], path: Path) -> None:
    """The loss curve as csv: step, loss; written to a staging name, then renamed."""
    staging = path.with_name(path.name + ".partial")
    with staging.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        writer.writerows((i, f"{loss:.6f}") for i, loss in enumerate(losses))
    os.replace(staging, path)


def fit(
    stage: str,
    modules: dict[str, nn.Module],
    loss_of: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float,
    warmup: int,
    decay: float,
    weight_decay: float,
    checkpoint_every: int,
    work: Path,
) -> list[float]:
    """Train `modules` in place with AdamW and leave the averaged weights in them.

    `loss_of(step)` draws the batch of that step (a pure function of the step, so that a resumed run sees the same
    batches) and returns its loss. `work/<stage>.ckpt` is written every `checkpoint_every` steps and read when present;
    `work/<stage>.csv` is the loss curve. Returns the loss of every step.
    Raises FloatingPointError when a loss is not finite.
    """
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    average = {f"{n}.{k}": v.detach().clone() for n, m in modules.items() for k, v in m.state_dict().items()}
    losses: list[float] = []
    before = 0.0  # seconds of earlier runs that this one goes on from
    path = work / f"{stage}.ckpt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(saved["modules"][name])
        optimiser.load_state_dict(saved["optimiser"])
        average, losses, before = saved["average"], saved["losses"], saved.get("seconds", 0.0)
    start = time.perf_counter()

    def checkpoint() -> None:
        weights = {name: module.state_dict() for name, module in modules.items()}
        seconds = before + time.perf_counter() - start
        state = {"modules": weights, "optimiser": optimiser.state_dict(), "average": average, "losses": losses}
        save_atomic({**state, "seconds": seconds}, path)
        write_losses(losses, work / f"{stage}.csv")

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        task = progress.add_task(stage, total=steps, completed=len(losses))
        for step in range(len(losses), steps):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, steps, lr, warmup)
            loss = loss_of(step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            update_average(average, modules, step, decay)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"{stage}: the loss of step {step} is {losses[-1]}; lower lr (now {lr})")
            if (step + 1) % checkpoint_every == 0:
                checkpoint()
            recent = losses[-50:]
            progress.update(task, advance=1, description=f"{stage} loss {sum(recent) / len(recent):.4f}")
    checkpoint()
    load_average(average, modules)
    return losses
