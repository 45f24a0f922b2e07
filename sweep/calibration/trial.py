"""Measures one setting of a method on the calibration prompts: FLOPs, speedup or LPIPS relative to the Original."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conf.schema import ConfigError
from engine.backbone import Backbone
from engine.ledger import Entry, flops, plan
from engine.loop import NonFinite, generate
from engine.meter import meter
from engine.method import Method, Original
from engine.produce import warm_up
from eval import lpips_weights
from eval.metrics import lpips
from sweep.calibration.rehearsal import rehearse
from sweep.events import Notify, nobody

QUANTITIES = {"flops": False, "speedup": True, "lpips": True}  # quantity: whether less computation raises it
SEED = 10_000  # seed of the first prompt; reports never use such seeds


class Trial:
    """Tries settings of `method` on `model`. `base` is the model that the Original runs on."""

    def __init__(self, model: Backbone, base: Backbone, method: Method, quantity: str, notify: Notify = nobody) -> None:
        self.model, self.base, self.method, self.quantity = model, base, method, quantity
        self.notify, self.number = notify, 0  # receives events; number of measured settings
        self.turning = "as it is"  # the settings being measured
        self.values: list[float] = []  # values of the last measured setting, one per prompt
        self.by_settings: dict[tuple[tuple[str, float], ...], list[float]] = {}

    def prepare(self, prompts: Sequence[str], cache: Path) -> None:
        """Load the models and embed the prompts. Raises ConfigError if LPIPS is the target and its weights are
        missing."""
        if self.quantity == "lpips":
            _ = self.network
        for model in {id(m): m for m in (self.base, self.model)}.values():
            if not model.loaded:
                model.load()
        texts = self.model.texts(prompts, cache)
        self.texts = [self.model.conditioning(prompt, texts) for prompt in prompts]
        if self.quantity == "speedup":
            warm_up(self.base, self.texts[0])

    def turned(self, settings: Mapping[str, float]) -> Method:
        """The method with changed settings. Raises ValueError if they cannot be combined."""
        turned: Method = replace(self.method, **settings)  # type: ignore[type-var]
        turned.check(self.model)
        return turned

    # --- the rehearsal -------------------------------------------------------------------------------------------

    def agrees(self, method: Method) -> bool:
        """Whether a rehearsal makes the same decisions as the video of the first prompt, and has the same FLOPs."""
        ledgers = rehearse(self.model, method, self.texts[0]), self._video(0, method)[1]
        (thought, made), (share, real) = map(_decided, ledgers), map(self._share, ledgers)
        return thought == made and math.isclose(share, real, rel_tol=1e-9)

    def rehearsed(self, settings: dict[str, float]) -> float:
        """The executed share of the Original's FLOPs, computed without forwards; NaN if the settings are refused."""
        method = self._allowed(settings)
        return self._share(rehearse(self.model, method, self.texts[0])) if method else math.nan

    # --- real videos ---------------------------------------------------------------------------------------------

    def measured(self, settings: dict[str, float]) -> float:
        """The mean of the quantity over all prompts (geometric for a speedup); NaN if refused or without a video."""
        method = self._allowed(settings)
        if not method:
            return math.nan
        one: Callable[[int, Method], float] = getattr(self, f"_{self.quantity}")
        self.number += 1
        self.turning = ", ".join(f"{k}={v:g}" for k, v in settings.items())
        try:
            self.values = [one(number, method) for number in range(len(self.texts))]
        except NonFinite:
            self.values = [math.nan]
        mean = float(np.exp(np.mean(np.log(self.values))) if self.quantity == "speedup" else np.mean(self.values))
        self.by_settings[tuple(settings.items())] = self.values
        self.notify("say", f"  {self.number}: {self.turning}: {self.quantity} {mean:.4f}")
        return mean

    def apart(self, method: Method, told: str) -> list[float]:
        """The squared error of the final latents, relative to the Original's size, one per prompt; inf where they are
        not finite. `told` is what those who watch are told."""
        self.turning = told
        errors = []
        for number, original in enumerate(self._latents):
            try:
                made = self._video(number, method)[0]
                errors.append(float((made - original).square().sum() / original.square().sum()))
            except NonFinite:
                errors.append(math.inf)
        return errors

    def watched(self, number: int, recorder: Method) -> None:
        """One video of the Original's model, with a method that computes everything and remembers what it sees."""
        self.turning = "the Original, recorded"
        self._made(number, self.base, recorder, [])

    def share(self, method: Method) -> float:
        """The share of the Original's FLOPs that `method` executes on the first prompt."""
        return self._flops(0, method)

    def _allowed(self, settings: dict[str, float]) -> Method | None:
        try:
            return self.turned(settings)
        except ValueError:
            return None

    def _flops(self, number: int, method: Method) -> float:
        return self._share(self._video(number, method)[1])

    def _speedup(self, number: int, method: Method) -> float:
        """Runs Original, method, Original, method, so that a slower machine affects both."""
        seconds = {True: 0.0, False: 0.0}
        for accelerated in (False, True, False, True):
            model, chosen = (self.model, method) if accelerated else (self.base, Original())
            with meter(model.device) as cost:
                list(model.decode(self._made(number, model, chosen, [])))
            seconds[accelerated] += cost.seconds
        return seconds[False] / seconds[True]

    def _lpips(self, number: int, method: Method) -> float:
        frames = self._frames(self.model, self._video(number, method)[0])
        return float(lpips(frames, self._originals[number], self.network).mean())

    def _video(self, number: int, method: Method) -> tuple[torch.Tensor, list[Entry]]:
        ledger: list[Entry] = []
        return self._made(number, self.model, method, ledger), ledger

    def _made(self, number: int, model: Backbone, method: Method, ledger: list[Entry]) -> torch.Tensor:
        told = f"try {self.number}, {self.turning}" if self.number else self.turning
        self.notify("video", "", told, f"prompt {number + 1} of {len(self.texts)}", len(model.schedule()))
        return generate(model, method, self.texts[number], SEED + number, ledger, lambda row: self.notify("row"))

    def _frames(self, model: Backbone, latents: torch.Tensor) -> torch.Tensor:
        return torch.cat(list(model.decode(latents)))

    def _share(self, ledger: Sequence[Entry]) -> float:
        return flops(ledger, self.model.price)[0] / self._whole

    @cached_property
    def _whole(self) -> float:
        return flops(plan(self.base.schedule()), self.base.price)[0]

    @cached_property
    def _latents(self) -> list[torch.Tensor]:
        self.turning = "the Original"
        return [self._made(number, self.base, Original(), []) for number in range(len(self.texts))]

    @cached_property
    def _originals(self) -> list[torch.Tensor]:
        numbers = range(len(self.texts))
        return [self._frames(self.base, self._made(number, self.base, Original(), [])) for number in numbers]

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network of LPIPS. Raises ConfigError if its weights are missing."""
        try:
            return lpips_weights.load("alex", lpips_weights.find("alex")).to(self.model.device)
        except lpips_weights.MissingWeights as error:
            raise ConfigError(f"target=lpips needs LPIPS: {error}") from None


def _decided(ledger: Sequence[Entry]) -> list[tuple[Any, ...]]:
    return [(e.iteration, e.slots, e.branch, e.mode, e.sites, e.idle, e.kept, e.tokens) for e in ledger]
