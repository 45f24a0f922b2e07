"""`accelerate(pipe, "scope", speed="fast")`: a method of the menu inside a stock diffusers pipeline.

    pipe = SkyReelsV2DiffusionForcingPipeline.from_pretrained(...)
    with accelerate(pipe, "scope", speed="fast"):
        video = pipe("a fox in the snow", ...)
    print(summary(pipe))

The pipelines of SkyReels-V2 with diffusion forcing and of AnyFlow-FAR are known. The pipeline's own call, scheduler,
callbacks, offloading and LoRA stay as they are. Methods that stand in for the velocity work (SCOPE, uniform, EasyCache,
PrediT, fixed schedules, ...); a method that needs the inside of the forward is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from conf.schema import CONF, ConfigError, nearest, options, parse
from engine.method import Method
from engine.row import Mode, Row
from models.far.pipeline import FarHook
from models.skyreels.pipeline import SkyReelsHook
from models.wan.hook import PipelineHook

HOOKS: dict[str, type[PipelineHook]] = {name: hook for hook in (SkyReelsHook, FarHook) for name in hook.kinds}
KEPT = "_scope_harness"  # the attribute of a pipeline that holds its Accelerated


@dataclass(frozen=True)
class Summary:
    """What a method did in the pipeline's last call."""

    decisions: dict[str, int]  # rows by mode: cache, predict, recompute
    per_row: tuple[str, ...]  # the mode of every row, in order; "recompute" if a part of the row was computed
    executed_flops: float  # share of the stock loop's FLOPs, denoiser only
    seconds: float  # inside the transformer, skipped rows included
    seconds_saved: float  # estimate: skipped rows at the mean of the computed ones, less what skipping took
    clean_passes: int = 0  # forwards of AnyFlow-FAR that store keys; no method skips them, they are in no other count

    def __str__(self) -> str:
        made = ", ".join(f"{count} {mode}" for mode, count in self.decisions.items())
        made += f", and {self.clean_passes} clean passes" if self.clean_passes else ""
        return (
            f"{len(self.per_row)} rows: {made}; {self.executed_flops:.1%} of the FLOPs; {self.seconds:.2f} s in the "
            f"transformer, about {self.seconds_saved:.2f} s saved"
        )


class Accelerated(AbstractContextManager["Accelerated"]):
    """A pipeline with a method in it. It is on from the start; `disable` gives back the stock pipeline."""

    def __init__(self, pipe: Any, hook: PipelineHook) -> None:
        self.pipe, self.hook, self.enabled = pipe, hook, False
        self.enable()

    def enable(self) -> None:
        """Put the method into the pipeline. Raises ValueError if another one is there."""
        if self.enabled:
            return
        other = getattr(self.pipe, KEPT, None)
        if other is not None and other.enabled:
            name = type(other.hook.method).__name__
            raise ValueError(f"this pipeline is accelerated already, by {name}; call disable() on that first")
        self.hook.attach()
        setattr(self.pipe, KEPT, self)
        self.enabled = True

    def disable(self) -> None:
        """Take the method out; the pipeline is the stock one again. `summary` still answers for the last call."""
        if self.enabled:
            self.hook.detach()
            self.enabled = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disable()


def accelerate(
    pipe: Any,
    method: str = "scope",
    speed: str = "",
    *,
    model: str = "",
    point: str | Path = "",
    **settings: Any,
) -> Accelerated:
    """Put `method` into `pipe`; use the result in a `with`, or call its `disable()` at the end.

    Args:
        pipe: a pipeline of diffusers: SkyReels-V2 with diffusion forcing (any of the three) or AnyFlow-FAR.
        method: a name of the menu, see docs/methods.md.
        speed: its operating point ("fast", "slow", "paper") for `model`; empty: none, so `settings` has to be complete.
        model: whose operating points are used; empty: skyreels or far, as the pipeline is.
        point: a YAML file with an operating point of your own (its `method:` node), instead of `speed`.
        settings: settings of the method, on top of the operating point.

    Raises:
        TypeError: another kind of pipeline.
        ConfigError: no such method, setting or point, or a method that cannot work from outside the forward.
        ValueError: the pipeline is accelerated already.
    """
    kind = HOOKS.get(type(pipe).__name__)
    if kind is None:
        raise TypeError(f"{type(pipe).__name__} cannot be accelerated; want {', '.join(HOOKS)}")
    chosen = build(method, speed, model or kind.models, point, settings)
    _check(chosen, method, kind)
    return Accelerated(pipe, kind(pipe, chosen, model or kind.models))


def summary(pipe: Any) -> Summary:
    """What happened in the last call of an accelerated pipeline. Raises ValueError if there was none."""
    found = getattr(pipe, KEPT, None)
    if found is None or not found.hook.ledger:
        raise ValueError("nothing was generated by this pipeline with a method in it; see accelerate()")
    return summarise(found.hook)


def summarise(hook: PipelineHook) -> Summary:
    """The same from the hook itself."""
    by_row: dict[int, set[Mode]] = {}
    for entry in hook.ledger:
        by_row.setdefault(entry.iteration, set()).add(entry.mode)
    passes = {row.iteration for row in hook.rows if row.forced}
    order = (Mode.RECOMPUTE, Mode.PREDICT, Mode.CACHE)  # of what a row is called if its parts differ
    per_row = tuple(str(next(m for m in order if m in by_row[n])) for n in sorted(by_row) if n not in passes)
    whole = [hook.seconds[n] for n, modes in by_row.items() if modes == {Mode.RECOMPUTE} and n not in passes]
    other = [hook.seconds[n] for n, modes in by_row.items() if modes != {Mode.RECOMPUTE}]
    saved = mean(whole) * len(other) - sum(other) if whole else 0.0
    counts = Counter(per_row)
    return Summary(
        {str(mode): counts[str(mode)] for mode in Mode},
        per_row,
        hook.executed(),
        sum(hook.seconds),
        max(0.0, saved),
        len(passes & by_row.keys()),
    )


def build(method: str, speed: str, model: str, point: str | Path, settings: Mapping[str, Any]) -> Method:
    """The method as the menu composes it. Raises ConfigError."""
    if method not in options("method"):
        raise ConfigError(f"method {method!r} is not on the menu{nearest(method, options('method'))}")
    if speed and not (CONF / "point" / model / f"{method}_{speed}.yaml").is_file():
        there = sorted(p.stem.removeprefix(f"{method}_") for p in (CONF / "point" / model).glob(f"{method}_*.yaml"))
        raise ConfigError(
            f"{method} has no operating point {speed!r} for {model}; there are: {', '.join(there) or 'none'}"
        )
    own = OmegaConf.to_container(OmegaConf.load(point)) if point else {}
    given = {**(own.get("method") or {} if isinstance(own, dict) else {}), **settings}
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[f"model={model}", f"method={method}", f"speed={speed or 'none'}"])
    OmegaConf.set_struct(config, False)
    config.method = OmegaConf.merge(config.method, given)
    return parse(config)[3]


def _check(method: Method, name: str, kind: type[PipelineHook]) -> None:
    """Refuse what cannot be done from outside the forward."""
    row = Row(0, 0, range(1), 2, (0,), (1.0,), (0.5,), (True,), 1)
    inner = sorted({site.kind for site in method.sites(2, row)} - {"velocity"})
    lacking = sorted(method.requires - kind.offers)
    adaptive = method.grain == "unit" and not (kind.parts or method.decided_by == "schedule")
    if inner or lacking or method.branchwise or adaptive:
        reasons = {
            f"it stands in for {', '.join(inner)}": inner,
            f"it needs {', '.join(lacking)}": lacking,
            "it needs partial forwards of a row": adaptive,
            "it decides per guidance branch": method.branchwise,
        }
        wanted = "selective=none" if kind.parts else "selective=prefix decide_per=row"
        raise ConfigError(
            f"{name} cannot run in a stock pipeline: {next(text for text, is_so in reasons.items() if is_so)}, inside "
            "the model's forward. Use run.py, or a setting that works on the velocity of a whole row (for scope: "
            f"{wanted}). For ramp set retrace=False"
        )


__all__ = ["Accelerated", "Summary", "accelerate", "summary"]
