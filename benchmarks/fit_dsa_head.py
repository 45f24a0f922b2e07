"""Fit DSA-proxy's head: it estimates the distance of a slot's clean estimate to the final one from pooled features.

    python -m benchmarks.fit_dsa_head [model=magi1_tiny] [count=24] [hidden=16] [out=dsa_head.safetensors]

Runs the last `count` prompts of the prompt set without acceleration. For every slot and step it records the features
(baselines.shared.confidence_head) and log10 of mean|x0_k - x0_last| / mean|x0_last|. The head is fitted by least
squares on the full batch. The last quarter of the prompts is held out. R^2 is printed on both parts, and for comparison
the R^2 of a straight line through the logarithm of the change alone. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.dsa_proxy import DSAProxy
from baselines.shared.confidence_head import ProxyHead, features
from benchmarks.common import composed, prompts_of, watched
from engine.confidence_head import LOWEST, save_head
from engine.discrepancy import relative_l1
from engine.loop import generate
from engine.row import Row, Site
from terminal import tolerate


@dataclass
class Watch(DSAProxy):
    """The Original; records features and clean estimates of every slot and step."""

    threshold: float = 0.0

    def reset(self) -> None:
        super().reset()
        self.seen: dict[int, list[tuple[Tensor, Tensor]]] = {}  # slot: (features, clean estimate), by step

    def _judged(self, share: Tensor, before: Tensor, now: Tensor, velocity: Tensor) -> Tensor:
        self.found = features(share, before, now, velocity)
        return super()._judged(share, before, now, velocity)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        known = [slot for slot in part.updating if self.clean.count(slot)]
        super().keep(site, part, x, out)
        for i, slot in enumerate(known):
            self.seen.setdefault(slot, []).append((self.found[i], self.clean.last([slot])[0]))

    def samples(self) -> tuple[Tensor, Tensor]:
        """Features (n, F) and log10 of the distance to the final estimate (n,), recorded since `reset`."""
        rows, distances = [], []
        for steps in self.seen.values():
            final = steps[-1][1]
            for found, clean in steps[:-1]:
                rows.append(found)
                distances.append(relative_l1(clean[None], final[None], LOWEST)[0].clamp(min=LOWEST).log10())
        return torch.stack(rows), torch.stack(distances)


def fit(x: Tensor, y: Tensor, hidden: int, rounds: int = 800) -> ProxyHead:
    """The head fitted to features (n, F) and targets (n,). The result is deterministic."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        mean, scale = x.mean(0), x.std(0).clamp(min=1e-6)
        inner, outer = torch.nn.Linear(x.shape[1], hidden), torch.nn.Linear(hidden, 1)
        parameters = [*inner.parameters(), *outer.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, rounds)
        inputs = (x - mean) / scale
        for _ in range(rounds):
            loss = F.mse_loss(outer(F.silu(inner(inputs)))[:, 0], y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    weights = [tensor.detach().clone() for tensor in (inner.weight, inner.bias, outer.weight, outer.bias)]
    return ProxyHead(mean, scale, *weights)


def explained(guess: Tensor, y: Tensor) -> float:
    """R^2 of `guess`."""
    return float(1 - ((y - guess) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def report(train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], head: ProxyHead) -> dict[str, Any]:
    """R^2 of the head and of the change alone."""
    line = np.polyfit(train[0][:, 1].numpy(), train[1].numpy(), 1)
    change = torch.from_numpy(np.polyval(line, held[0][:, 1].numpy()))
    return {
        "samples": [len(train[1]), len(held[1])],
        "r_squared": explained(head(train[0]).log10(), train[1]),
        "r_squared_held_out": explained(head(held[0]).log10(), held[1]),
        "r_squared_of_the_change_held_out": explained(change, held[1]),
    }


def _joined(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The features and the targets of several videos as one tensor each."""
    return torch.cat([features for features, _ in samples]), torch.cat([targets for _, targets in samples])


def main(arguments: Sequence[str]) -> None:
    own = dict(a.split("=", 1) for a in arguments if a.split("=")[0] in ("count", "hidden", "out"))
    rest = [a for a in arguments if a.split("=")[0] not in own]
    if not any(a.startswith("model=") for a in rest):
        rest.append("model=magi1_tiny")
    run, model, _ = composed(["method=original", *rest])
    model.load()
    prompts = prompts_of(run, 0)[-int(own.get("count", 24)) :]  # the tail of the suite: not what is reported on
    if len(prompts) < 2:
        raise SystemExit(f"want at least 2 prompts, one of them held out; got {len(prompts)}")
    texts, found = model.texts(prompts), []
    for number, prompt in enumerate(watched(prompts, "watching")):
        watch = Watch()
        generate(model, watch, model.conditioning(prompt, texts), 10_000 + number, [])
        features, targets = watch.samples()
        found.append((features.cpu().clone(), targets.cpu().clone()))
    split = max(1, len(found) * 3 // 4)
    train, held = _joined(found[:split]), _joined(found[split:])
    head = fit(*train, hidden=int(own.get("hidden", 16)))
    about = {"model": model.name, "prompts": len(prompts), **report(train, held, head)}
    path = Path(own.get("out", "dsa_head.safetensors"))
    save_head(head, path, about)
    print(f"{path}: use method=dsa_proxy method.head={path}")
    print(json.dumps(about))


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
