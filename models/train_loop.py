"""The loop of all training stages: progress bar, learning rate, checkpoints, resume, loss curve."""

import csv
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from torch import Tensor, nn


def save_atomic(state: dict[str, Any], path: Path) -> None:
    """torch.save to a temporary name, then rename, so that an interrupted save leaves no incomplete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(path.name + ".partial")
    torch.save(state, staging)
    os.replace(staging, path)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up to `peak`, constant for the first half of the steps, then half a cosine down to 2 % of `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, max(0.0, 2 * step / steps - 1))
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def update_average(average: dict[str, Tensor], modules: dict[str, nn.Module], step: int, decay: float) -> None:
    """Update the exponential moving average of all parameters. In the first steps the decay is smaller."""
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
    """Write the loss curve as csv with columns step, loss, to a temporary name that is then renamed."""
    staging = path.with_name(path.name + ".partial")
    with staging.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        writer.writerows((i, f"{loss:.6f}") for i, loss in enumerate(losses))
    os.replace(staging, path)


class Training:
    """The content of a checkpoint: modules, optimiser, averaged weights and the losses so far."""

    def __init__(
        self,
        stage: str,
        modules: dict[str, nn.Module],
        lr: float,
        weight_decay: float,
        work: Path,
        faster: Mapping[str, float] = {},
    ) -> None:
        """Continues from `work/<stage>.ckpt` if it exists."""
        self.stage, self.modules, self.work = stage, modules, work
        groups: dict[float, list[nn.Parameter]] = {}
        for name, module in modules.items():
            groups.setdefault(faster.get(name, 1.0), []).extend(p for p in module.parameters() if p.requires_grad)
        self.parameters = [p for group in groups.values() for p in group]
        told = [{"params": group, "faster": factor} for factor, group in groups.items()]
        self.optimiser = torch.optim.AdamW(told, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
        self.average = {f"{n}.{k}": v.detach().clone() for n, m in modules.items() for k, v in m.state_dict().items()}
        self.losses: list[float] = []
        self.path = work / f"{stage}.ckpt"
        self.start = time.perf_counter()
        self.before = 0.0  # seconds of earlier runs that this one continues
        if self.path.exists():
            saved = torch.load(self.path, weights_only=True)
            for name, module in modules.items():
                module.load_state_dict(saved["modules"][name])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.average, self.losses, self.before = saved["average"], saved["losses"], saved.get("seconds", 0.0)

    def step(self, loss: Tensor, lr: float, decay: float) -> None:
        """One AdamW update and the update of the average. Raises FloatingPointError if the loss is not finite."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group.get("faster", 1.0)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        step = len(self.losses)
        update_average(self.average, self.modules, step, decay)
        self.losses.append(loss.item())
        if not math.isfinite(self.losses[-1]):
            raise FloatingPointError(f"{self.stage}: the loss of step {step} is {self.losses[-1]}; lower lr (now {lr})")

    def seconds(self) -> float:
        """Seconds of training so far, those of earlier runs included."""
        return self.before + time.perf_counter() - self.start

    def save(self) -> None:
        """Write the checkpoint and the loss curve."""
        weights = {name: module.state_dict() for name, module in self.modules.items()}
        state = {"modules": weights, "optimiser": self.optimiser.state_dict(), "average": self.average}
        save_atomic({**state, "losses": self.losses, "seconds": self.seconds()}, self.path)
        write_losses(self.losses, self.work / f"{self.stage}.csv")


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
    faster: Mapping[str, float] = {},
) -> list[float]:
    """Train `modules` in place with AdamW; at the end they hold the averaged weights.

    `loss_of(step)` draws the batch of that step and returns its loss. It must be a pure function of the step, so that a
    resumed run uses the same batches. `work/<stage>.ckpt` is written every `checkpoint_every` steps and read if it
    exists, and a line with loss and seconds is printed. `work/<stage>.csv` is the loss curve. `faster` multiplies the
    learning rate of single modules, by name. Returns all losses.
    Raises FloatingPointError if a loss is not finite.
    """
    training = Training(stage, modules, lr, weight_decay, work, faster)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        task = progress.add_task(stage, total=steps, completed=len(training.losses))
        for step in range(len(training.losses), steps):
            training.step(loss_of(step), learning_rate(step, steps, lr, warmup), decay)
            recent = training.losses[-50:]
            loss = sum(recent) / len(recent)
            if (step + 1) % checkpoint_every == 0:
                training.save()
                progress.console.print(f"{stage} step {step + 1}: loss {loss:.4f}, {training.seconds():.0f} s")
            progress.update(task, advance=1, description=f"{stage} loss {loss:.4f}")
    training.save()
    load_average(training.average, modules)
    return training.losses
