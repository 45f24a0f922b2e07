"""What all benchmarks share: objects from the same configuration as run.py, and frames in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.progress import track

from conf.schema import CONF, Run, device_of, parse, read_prompts
from conf.words import words
from engine.backbone import Backbone
from engine.ledger import Entry
from engine.loop import generate
from engine.method import Method, Original
from engine.row import Decision, Mode, Row
from engine.visit import Visit

T = TypeVar("T")


def watched(items: Sequence[T], told: str) -> Iterable[T]:
    """The items, with a progress bar on stderr; what a command prints on stdout can then go to a file."""
    return track(items, told, console=Console(stderr=True))


def composed(overrides: Sequence[str]) -> tuple[Run, Any, Method]:
    """The run, the backbone (weights not loaded) and the method of a configuration with `overrides`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=words(overrides))
    run, kind, settings, method = parse(config)
    return run, kind(method.reschedule(settings), torch.device(device_of(run.device))), method


def apart(names: Sequence[str], arguments: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The arguments for all methods, and for each of `names` its own arguments, given as NAME.setting=value.

    >>> apart(["pab"], ["rounds=1", "pab.warmup=2"])
    (['rounds=1'], {'pab': ['method.warmup=2']})
    """
    own = {name: [f"method{a.removeprefix(name)}" for a in arguments if a.startswith(f"{name}.")] for name in names}
    return [a for a in arguments if not a.startswith(tuple(f"{name}." for name in names))], own


def calibrating(overrides: Sequence[str]) -> tuple[Run, Any, Method]:
    """The Original on the calibration prompts, which no result uses, unless `overrides` name other prompts."""
    own = [] if any(given.startswith("prompts=") for given in overrides) else ["prompts=shapes_calibration"]
    return composed(["method=original", *own, *overrides])


def prompts_of(run: Run, count: int) -> list[str]:
    """The first `count` prompts of the run's prompt set."""
    run.prompts.limit = count
    return read_prompts(run.prompts)


def video(model: Backbone, method: Method, text: Any, seed: int = 0) -> tuple[np.ndarray, list[Entry]]:
    """The decoded frames (T, H, W, 3) uint8 of one video, and its ledger."""
    ledger: list[Entry] = []
    latents = generate(model, method, text, seed, ledger)
    return torch.cat(list(model.decode(latents))).numpy(), ledger


def calibration_texts(model: Any, run: Run, count: int) -> list[Any]:
    """The conditioning of the run's first `count` prompts; loads the model. Raises ValueError for untrained weights."""
    model.load()
    prompts = prompts_of(run, count)
    texts = model.texts(prompts)
    found = [model.conditioning(prompt, texts) for prompt in prompts]
    refuse_untrained(model, found[0])
    return found


def velocity(model: Any, latents: torch.Tensor, row: Row) -> torch.Tensor:
    """The unaccelerated velocity of `row`, (slots, C, H, W)."""
    visit = Visit(Original(), row, model.depth, {"": [(row, Decision(Mode.RECOMPUTE))]})
    found: torch.Tensor = model.velocity(latents, row, visit)
    return found


def refuse_untrained(model: Any, text: Any) -> None:
    """Raise ValueError if the model's first velocity is zero everywhere, as with untrained weights."""
    row = model.schedule()[0]
    with torch.inference_mode():
        latents = model.open(model.start(text, 0), row)
        first = velocity(model, latents, row)
    if not bool(first.abs().max() > 0):
        raise ValueError(
            f"the velocity of {model.name} is zero, so its weights are untrained and the table would be useless; "
            "train the model or fetch its weights first"
        )
